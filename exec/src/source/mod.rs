//! The source's side of a migration: the driver that carries out what the [`Conductor`] orders.
//!
//! The driver is one thread with one queue of inputs: completions from the sender's threads, answers from the destination, news of
//! the connections, wishes from outside. Everything that goes into the migration and comes out of it is recorded, in that
//! order, so that the coordinator can follow it with a migration of its own.

mod connecting;
mod early;
mod execute;
mod flow;
mod link;
mod orders;
mod probing;
mod sender;
mod sends;
mod stage_link;
mod staging;
mod vias;
mod watch;

use crate::agent::message::{Migrate, Record};
use crate::agent::{Hosted, Part, Reports};
use crate::clock::Clock;
use crate::error::ExecError;
use crate::tls::Security;
use crate::wire::WireError;
use crate::wire::fingerprint::Fingerprints;
use crate::wire::message::Answer;
use link::{Connections, Link, Target, Unconnected};
use livemig_core::conductor::Conductor;
use livemig_core::ledger::Observation;
use livemig_core::machine::{Migration, Phase};
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Event, Peer};
use orders::Pending;
use sender::Sender;
use stage_link::StageNews;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vias::Vias;
use watch::Watches;

/// During a rollback a link that is down is waited for no longer than this.
const ROLLBACK: Duration = Duration::from_secs(3);

/// What reaches the driver.
#[derive(Debug)]
enum Input {
    /// A wish or news from outside.
    Outside(Event<Bitmap>),
    /// So much may be sent at most, whatever the migration says.
    Allow(Rate),
    /// A command of the sender is complete.
    Completed(Event<Bitmap>),
    /// An order has been answered.
    Answer {
        id: u32,
        answer: Answer,
    },
    Connected(Connections),
    Unconnected(Unconnected),
    /// The connections of an epoch are of no use any more.
    Broken {
        epoch: u32,
        connection: &'static str,
        why: WireError,
    },
    /// Something is new with the connection to an intermediary.
    Stage(u16, StageNews),
    /// Pages are staged, at all of these intermediaries.
    Located {
        via: Vec<u16>,
        extents: Vec<Extent>,
    },
}

/// A migration under way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    input: mpsc::Sender<Input>,
    requested: AtomicBool,
    connected: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Outgoing {
    /// Gets ready; the migration waits for its request.
    pub(crate) fn start(
        migrate: Migrate,
        guest: Arc<Hosted>,
        clock: Clock,
        reports: Reports,
        security: Security,
    ) -> Result<Outgoing, ExecError> {
        let (input, inputs) = mpsc::channel();
        let driver = Driver::new(migrate, guest, clock, reports, security, (input.clone(), inputs))?;
        let (requested, connected) = (AtomicBool::new(false), driver.is_linked.clone());
        let thread = std::thread::Builder::new().name("driver".to_owned()).spawn(move || driver.run());
        let thread = thread.map_err(|source| ExecError::Kernel { call: "starting the driver's thread", source })?;
        Ok(Outgoing { input, requested, connected, thread })
    }

    /// Tells it something; one that has ended does not mind.
    pub(crate) fn tell(&self, event: Event<Bitmap>) {
        if matches!(event, Event::Requested) {
            self.requested.store(true, Ordering::Relaxed);
        }
        let _ = self.input.send(Input::Outside(event));
    }

    /// It may send so much at most, whatever its strategy says.
    pub(crate) fn allow(&self, rate: Rate) {
        let _ = self.input.send(Input::Allow(rate));
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    pub(crate) fn part(&self) -> Part {
        match (self.is_over(), self.connected.load(Ordering::Relaxed)) {
            (true, _) => Part::Over,
            (false, true) => Part::Connected,
            (false, false) => Part::Alone,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

#[derive(Debug)]
struct Driver {
    session: u32,
    vm: u32,
    conductor: Conductor<Bitmap>,
    guest: Arc<Hosted>,
    clock: Clock,
    reports: Reports,
    inputs: mpsc::Receiver<Input>,
    news: mpsc::Sender<Input>,
    /// What the migration has not been told yet.
    events: VecDeque<Event<Bitmap>>,
    now: Time,
    sender: Arc<Sender>,
    watches: Watches,
    target: Target,
    epochs: Arc<AtomicU32>,
    link: Option<Link>,
    /// Whether there is one, for whoever asks from another thread.
    is_linked: Arc<AtomicBool>,
    /// Since when there is no link although there was one.
    down: Option<Instant>,
    /// Since when every attempt has been refused.
    refused: Option<Instant>,
    /// The destination is gone for good.
    dead: bool,
    orders: BTreeMap<u32, Pending>,
    /// The order that waits for the first connection.
    reserving: Option<CmdId>,
    vias: Vias,
    /// The destination has been told to go on without the source.
    handing_over: bool,
    /// It does.
    handed_over: bool,
    /// Bytes of control messages that have not been reported.
    control: u64,
    small: Arc<AtomicU64>,
}

impl Driver {
    fn new(
        migrate: Migrate,
        guest: Arc<Hosted>,
        clock: Clock,
        reports: Reports,
        security: Security,
        (news, inputs): (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    ) -> Result<Driver, ExecError> {
        let Migrate { session, vm, spec, ways, key, via } = migrate;
        let memory = guest.memory()?;
        let bytes = Bytes::from_pages(memory.pages());
        let fingerprints = spec.transfer.dedup.then(|| Fingerprints::of_run(&key));
        let target = Target { ways, security, key, session, streams: spec.transfer.streams };
        let sender = Arc::new(Sender::new(memory, news.clone()));
        sender.use_intermediaries(via.iter().map(|(way, _)| way.to));
        Ok(Driver {
            session,
            vm,
            conductor: Conductor::new(spec, bytes, (0..).take(via.len()).collect()),
            guest,
            clock,
            reports,
            inputs,
            sender,
            news,
            events: VecDeque::new(),
            now: Time::ZERO,
            watches: Watches::default(),
            target,
            epochs: Arc::default(),
            link: None,
            is_linked: Arc::default(),
            down: None,
            refused: None,
            dead: false,
            orders: BTreeMap::new(),
            reserving: None,
            vias: Vias::of(via, fingerprints),
            handing_over: false,
            handed_over: false,
            control: 0,
            small: Arc::default(),
        })
    }

    /// The thread: until the migration has ended, or goes on without the source.
    fn run(mut self) {
        while self.conductor.phase() != Phase::Ended && !self.handed_over {
            match self.inputs.recv_timeout(self.patience()) {
                Ok(input) => self.take(input),
                // This value holds a sender, so that the queue is never closed.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.look_around();
            self.work_off();
            self.is_linked.store(self.link.is_some(), Ordering::Relaxed);
        }
        // The connections go before anything else that a thread of theirs might use.
        self.link = None;
        self.leave_vias();
        self.sender.track(None);
        self.report_control();
        if self.handed_over {
            self.reports.handed_over(self.session);
        } else {
            self.reports.ended(self.session);
        }
    }

    /// How long nothing needs to be done unless something happens.
    fn patience(&self) -> Duration {
        let due = [self.conductor.deadline(), self.watches.deadline()].into_iter().flatten().min();
        let until = Duration::from_nanos(due.map_or(Span::MAX, |at| at.since(self.clock.now())).0);
        let attempt = self.vias.deadline().map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        until.min(attempt).min(Duration::from_millis(100))
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Outside(event) => {
                if matches!(event, Event::Requested) {
                    // What was said before t0 counts as preparation.
                    self.report_control();
                }
                match event {
                    Event::PeerDead { peer: Peer::Destination, recoverable: false } => self.destination_dead(),
                    Event::PeerDead { peer: Peer::Intermediary(via), recoverable: false } => self.stage_gone(via),
                    event => self.tell(event),
                }
            }
            Input::Allow(rate) => self.sender.allow(rate),
            Input::Completed(event) => self.tell(event),
            Input::Answer { id, answer } => self.answered(id, answer),
            Input::Connected(connections) => self.connected(connections),
            Input::Unconnected(why) => self.unconnected(&why),
            Input::Broken { epoch, connection, why } => self.broken(epoch, connection, &why),
            Input::Stage(via, news) => self.stage_news(via, news),
            Input::Located { via, extents } => self.located(via, extents),
        }
    }

    /// What time alone brings.
    fn look_around(&mut self) {
        let now = self.clock.now();
        for event in self.watches.tick(now, &self.sender) {
            self.tell(event);
        }
        if let Some(link) = &mut self.link
            && let Err(why) = link.ping()
        {
            let epoch = link.epoch;
            self.broken(epoch, "control", &why);
        }
        self.look_around_vias();
        let stuck = self.conductor.phase() == Phase::Rollback && self.down.is_some_and(|since| since.elapsed() > ROLLBACK);
        if stuck {
            self.fail_orders();
        }
    }

    /// Tells the migration what there is to tell, wakes it when it is time, and carries out what it orders.
    fn work_off(&mut self) {
        loop {
            let now = self.clock.now().max(self.now);
            if let Some(event) = self.events.pop_front() {
                self.now = now;
                self.record_event(&event);
                if let Err(error) = self.conductor.handle(now, event) {
                    self.warn(&format!("the migration refuses: {error}"));
                }
            } else if self.conductor.deadline().is_some_and(|at| at <= now) {
                self.now = now;
                self.reports.record(self.session, Record::Wake { at: now });
                self.conductor.wake(now);
            } else {
                return;
            }
            while let Some((id, command)) = self.conductor.poll() {
                self.record_command(id, &command);
                self.execute(id, command);
            }
            self.hand_over();
        }
    }

    /// The migration will be told.
    fn tell(&mut self, event: Event<Bitmap>) {
        self.events.push_back(event);
    }

    fn observe(&self, observation: Observation) {
        self.reports.record(self.session, Record::Observed(observation));
    }

    fn report_control(&mut self) {
        let bytes = std::mem::take(&mut self.control) + self.small.swap(0, Ordering::Relaxed);
        self.observe(Observation::Control(Bytes(bytes)));
    }

    fn warn(&self, text: &str) {
        self.reports.warn(format!("session {}: {text}", self.session));
    }

    fn record_event(&self, event: &Event<Bitmap>) {
        self.encode(event, |event| Record::Event { at: self.now, event });
    }

    fn record_command(&self, id: CmdId, command: &livemig_core::vocabulary::Command<Bitmap>) {
        self.encode(command, |command| Record::Command { id: id.0, command });
    }

    fn encode<T: serde::Serialize>(&self, what: &T, record: impl FnOnce(Vec<u8>) -> Record) {
        match postcard::to_stdvec(what) {
            Ok(bytes) => self.reports.record(self.session, record(bytes)),
            Err(error) => self.warn(&format!("recording: {error}")),
        }
    }

    fn guest_lock(&self) -> std::sync::MutexGuard<'_, Option<crate::guest::Guest>> {
        self.guest.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
