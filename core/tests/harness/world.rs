//! The world of a run: two hosts, what lies between them, a guest, and one migration after the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use livemig_core::conductor::Conductor;
use livemig_core::ledger::{Ledger, Observation, Session};
use livemig_core::machine::{Ending, Migration, PeerError, Phase};
use livemig_core::pages::Bitmap;
use livemig_core::strategy::{Spec, Technique};
use livemig_core::tasks::TaskSizes;
use livemig_core::units::{Bytes, PageIndex, Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Command, Event, Peer, Region, Side};

use super::bugs::Bug;
use super::channel::{Lane, Lanes, MAX_STREAMS, MAX_VIAS};
use super::choice::Choices;
use super::coverage::Coverage;
use super::destination::{Destination, Effect};
use super::driver::describe;
use super::faults::{Fault, FaultKind};
use super::guest::{Guest, GuestSetup};
use super::intermediary::{Intermediary, ViaState};
use super::memory::{Content, Memory, initial};
use super::places::Places;
use super::scenario::Timing;
use super::sender::OutSend;
use super::staging::SourcePlaces;
use super::watch::Watching;
use super::wire::{Envelope, Message, Order};

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A vCPU makes a step.
    Step(usize),
    /// A message arrives.
    Arrive(Envelope),
    /// A message arrives at an intermediary.
    ArriveVia(usize, Envelope),
    /// A connection has room.
    Room(usize),
    /// The source agent carries out a command.
    Execute(CmdId, Command<Bitmap>),
    /// The machine is told something.
    Tell(Event<Bitmap>),
    /// A watch is evaluated.
    Tick(CmdId),
    /// The migration of this session is requested.
    Request(u32),
    /// Something goes wrong.
    Strike(FaultKind),
    /// What was cut or away is back.
    Restore,
    /// The source waits no longer for the answer to `Resume`.
    GiveUp(CmdId),
    /// The link to an intermediary is back.
    RestoreVia(u16),
}

/// The connections between the hosts, or one of the hosts, are out of order for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) lossy: bool,
    pub(crate) away: Option<Side>,
}

/// The source host and its agent.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) memory: Memory,
    pub(crate) tracker: super::tracker::DirtyTracker,
    pub(crate) sends: Vec<OutSend>,
    pub(crate) watches: Vec<Watching>,
    /// Of each page, how often the machine has been handed it and has not given it back.
    pub(crate) hands: Vec<u8>,
    /// Orders without an answer.
    pub(crate) orders: BTreeMap<CmdId, Order>,
    /// The sets of outstanding orders to drop stale pages.
    pub(crate) stale: BTreeMap<CmdId, Bitmap>,
    /// Pages that the destination has asked for and not acknowledged.
    pub(crate) wanted: BTreeSet<PageIndex>,
    /// Where staged pages are.
    pub(crate) places: SourcePlaces,
    pub(crate) serving: bool,
    pub(crate) released: bool,
    pub(crate) epoch: u32,
    pub(crate) next_frame: u32,
    pub(crate) busy: [bool; MAX_STREAMS],
    pub(crate) limit: Option<Rate>,
    /// Bytes put on the wire so far.
    pub(crate) wire: u64,
    /// Bytes not put on it, because intermediaries had the content.
    pub(crate) deduplicated: u64,
}

/// The migration under way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) conductor: Session<Bitmap, Conductor<Bitmap>>,
    pub(crate) session: u32,
    /// Commands without a completion, and whether that is on its way.
    pub(crate) outstanding: BTreeMap<CmdId, bool>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) elide_zero_pages: bool,
    pub(crate) tasks: Option<TaskSizes>,
    pub(crate) resume_issued: bool,
    /// The machine has been told that the destination never started the guest.
    pub(crate) never_proven: bool,
    pub(crate) cancelled: bool,
    /// Nobody knows whether the destination has been freed.
    pub(crate) abort_failed: bool,
    /// Whoever holds something of the VM beside the source is being freed.
    pub(crate) aborting: bool,
    /// Intermediaries of which the machine knows that they have failed.
    pub(crate) known_dead: Vec<u16>,
    /// The destination has said that pages are lost.
    pub(crate) pages_lost: bool,
    /// What the machine has been told is lost.
    pub(crate) lost: Bytes,
    /// Something was to go wrong.
    pub(crate) disturbed: bool,
    pub(crate) steps: u64,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) lanes: Lanes<Happening>,
    pub(crate) choices: Choices,
    pub(crate) timing: Timing,
    pub(crate) guest: Guest,
    /// What the guest's memory must be: every write applied in order, in one place.
    pub(crate) ideal: Vec<Content>,
    pub(crate) source: Source,
    pub(crate) destination: Destination,
    /// Hosts that stage pages.
    pub(crate) vias: Vec<Intermediary>,
    pub(crate) run: Run,
    pub(crate) cut: Option<Cut>,
    pub(crate) dead: Option<Side>,
    pub(crate) guest_died: bool,
    /// The next order to resume, or the answer to it, is lost.
    pub(crate) resume_loses: Option<bool>,
    pub(crate) touched: Vec<PageIndex>,
    pub(crate) coverage: Coverage,
    pub(crate) bug: Option<Bug>,
    /// The first invariant that was broken.
    pub(crate) violation: Option<String>,
    trace: Option<VecDeque<String>>,
}

/// No migration of the swarm takes so many steps.
const MAX_STEPS: u64 = 400_000;
const TRACE_LENGTH: usize = 300;

impl World {
    pub(crate) fn new(guest: GuestSetup, timing: Timing, choices: Choices, bug: Option<Bug>, traced: bool) -> World {
        let pages = guest.pages;
        let ideal: Vec<Content> = (0..pages).map(|p| initial(PageIndex(p))).collect();
        let mut destination = Destination::new(pages);
        destination.bug = bug;
        let mut world = World {
            now: Time::ZERO,
            lanes: Lanes::new(),
            choices,
            timing,
            guest: Guest::new(guest),
            source: Source::new(Memory::whole(ideal.clone()), ideal.len()),
            ideal,
            destination,
            vias: Vec::new(),
            run: Run::new(Spec::default(), (pages, 0), 0, 0, Vec::new()),
            cut: None,
            dead: None,
            guest_died: false,
            resume_loses: None,
            touched: Vec::new(),
            coverage: Coverage::default(),
            bug,
            violation: None,
            trace: traced.then(VecDeque::new),
        };
        world.arm_vcpus();
        world
    }

    /// Requests a migration and follows it until nothing happens any more.
    pub(crate) fn migrate(&mut self, spec: Spec, faults: Vec<Fault>) -> Option<Ending> {
        self.begin(spec, faults);
        while self.violation.is_none() && self.step() {}
        if self.violation.is_none() {
            self.check_end();
        }
        self.run.conductor.ending()
    }

    /// Requests a migration.
    pub(crate) fn begin(&mut self, spec: Spec, faults: Vec<Fault>) {
        let size = |region| self.guest.region(region).count() as u64;
        let sizes = (size(Region::Memory), size(Region::Disk));
        self.run = Run::new(spec, sizes, self.vias.len(), self.run.session + 1, faults);
        // An order to free that a cut link has swallowed leaves pages of the migration before; this one is not to blame for them.
        self.run.disturbed |= self.vias.iter().any(|via| via.pages() > 0);
        let mut links = [ViaState::Up; MAX_VIAS];
        links.iter_mut().zip(&self.vias).for_each(|(link, via)| *link = via.state);
        let tracked = if self.vias.is_empty() { 0 } else { self.guest.pages() };
        self.destination.places = Places::of(tracked, links);
        self.guest.rouse();
        self.arm_vcpus();
        self.source.begin_session();
        self.apply_faults();
        if self.run.conductor.ending().is_some() {
            return;
        }
        match self.timing.notice {
            Some(notice) => {
                self.tell(Event::Prepare);
                self.lanes.push(Lane::World, self.now + notice, Happening::Request(self.run.session));
            }
            None => self.request(),
        }
    }

    /// Requests the migration; where its technique is open, it is mostly chosen before.
    fn request(&mut self) {
        if self.run.conductor.migration().selection().is_some() {
            match self.choices.below(5) {
                0 => {}
                n => self.tell(Event::Selected(Technique::post_copy_if(n % 2 == 0))),
            }
        }
        self.tell(Event::Requested);
    }

    /// Lets the next thing happen; whether there was one.
    pub(crate) fn step(&mut self) -> bool {
        let deadline = self.run.conductor.deadline();
        let next = self.lanes.next_at();
        if let Some(at) = deadline.filter(|&at| next.is_none_or(|n| at < n && !self.choices.exhaustive())) {
            self.now = self.now.max(at);
            self.note(|| "wake".into());
            self.run.conductor.wake(self.now);
            self.take_commands();
        } else if let Some((at, what)) = self.lanes.pop(self.now, &mut self.choices) {
            self.now = at;
            self.happen(what);
        } else {
            return false;
        }
        self.apply_faults();
        self.run.steps += 1;
        if self.run.steps > MAX_STEPS {
            self.broken("the migration does not end".into());
        }
        self.check_step();
        true
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Step(vcpu) => self.vcpu_step(vcpu),
            Happening::Arrive(envelope) => self.arrive(envelope),
            Happening::ArriveVia(via, envelope) => self.arrive_at_intermediary(via, envelope),
            Happening::Room(stream) => {
                self.source.busy[stream] = false;
                self.feed(stream);
                self.end_sends();
            }
            Happening::Execute(id, command) => self.execute(id, command),
            Happening::Tell(event) => self.tell(event),
            Happening::Tick(id) => self.tick(id),
            Happening::Request(session) => {
                // What has failed before the request is not there any more when it comes.
                let failed = matches!(self.run.conductor.phase(), Phase::Rollback | Phase::Ended);
                if session == self.run.session && !failed {
                    self.request();
                }
            }
            Happening::Strike(kind) => self.strike(kind),
            Happening::Restore => {
                self.note(|| "back".into());
                self.restore();
            }
            Happening::GiveUp(id) => self.give_up_resume(id),
            Happening::RestoreVia(via) => self.restore_intermediary(via),
        }
    }

    fn arrive(&mut self, envelope: Envelope) {
        match &envelope.message {
            Message::Ack { .. }
            | Message::Ask(_)
            | Message::LastAsk { .. }
            | Message::Answer { .. }
            | Message::Located { .. }
            | Message::Stored { .. } => {
                if envelope.session == self.run.session {
                    self.source_receives(&envelope.message);
                }
            }
            Message::Fetched { page, frame, content, .. } => {
                if envelope.session == self.destination.session {
                    self.receive_fetched(*page, *frame, *content);
                }
            }
            Message::Stage(_) | Message::Fetch(_) | Message::Free => unreachable!("goes to an intermediary"),
            Message::Pages(_) | Message::Order { .. } | Message::Hello | Message::Locate(_) => self.arrive_at_destination(envelope),
        }
    }

    fn arrive_at_intermediary(&mut self, via: usize, envelope: Envelope) {
        let (session, epoch) = (envelope.session, envelope.epoch);
        if let Some((lane, message)) = self.vias[via].receive(envelope) {
            self.put_on_way(via, lane, Span::ZERO, Envelope { session, epoch, message });
        }
        let bytes = Bytes::from_pages(self.vias[via].pages());
        let via = u16::try_from(via).unwrap();
        self.run.conductor.observe(Observation::Staged { via, bytes });
    }

    fn arrive_at_destination(&mut self, envelope: Envelope) {
        if let Message::Order { order: Order::Resume, id } = envelope.message {
            if self.resume_loses == Some(true) {
                self.lose_resume(id);
                return;
            }
            self.note(|| "destination gets Resume".into());
        }
        let Effect { replies, touched, started, outdated, superseded } = self.destination.receive(envelope);
        self.coverage.superseded += superseded;
        self.coverage.outdated += u64::from(outdated);
        if started {
            self.guest_starts_at_destination();
        }
        self.touched.extend_from_slice(&touched);
        for (lane, message) in replies {
            match message {
                Message::Answer { id, .. } if started && self.resume_loses == Some(false) => self.lose_resume(id),
                _ => self.post_as_destination(lane, message),
            }
        }
        self.unblock();
        self.request_staged();
        self.check_gathering();
    }

    fn lose_resume(&mut self, id: CmdId) {
        self.note(|| "a message about Resume is lost".into());
        self.resume_loses = None;
        let patience = Span(self.timing.page.0 * 10);
        self.lanes.push(Lane::World, self.now + patience, Happening::GiveUp(id));
    }

    /// Sends a message from the source.
    pub(crate) fn post(&mut self, lane: Lane, message: Message) {
        self.post_after(lane, Span::ZERO, message);
    }

    pub(crate) fn post_after(&mut self, lane: Lane, delay: Span, message: Message) {
        self.put_on_wire(lane, delay, Envelope { session: self.run.session, epoch: self.source.epoch, message });
    }

    pub(crate) fn post_as_destination(&mut self, lane: Lane, message: Message) {
        let (session, epoch) = (self.destination.session, self.destination.epoch);
        let envelope = Envelope { session, epoch, message };
        if let Lane::Fetch(via) = lane {
            let pace = self.destination.places.gathering.map_or(Span::ZERO, |g| g.pace);
            self.put_on_way(via, lane, pace, envelope);
        } else {
            self.put_on_wire(lane, Span::ZERO, envelope);
        }
    }

    /// Sends a message to or from an intermediary.
    pub(crate) fn put_on_way(&mut self, via: usize, lane: Lane, delay: Span, envelope: Envelope) {
        let other = match lane {
            Lane::Stage(_) | Lane::Stored(_) => Side::Source,
            _ => Side::Destination,
        };
        if self.dead == Some(other) || self.vias[via].state == ViaState::Dead {
            return;
        }
        let at = self.now + delay + self.timing.latency + Span(self.choices.below(self.timing.jitter.0));
        let to_intermediary = matches!(lane, Lane::Stage(_) | Lane::Fetch(_));
        let what = if to_intermediary { Happening::ArriveVia(via, envelope) } else { Happening::Arrive(envelope) };
        self.lanes.push(lane, at, what);
    }

    fn put_on_wire(&mut self, lane: Lane, delay: Span, envelope: Envelope) {
        if self.dead.is_some() || self.cut.is_some_and(|cut| cut.lossy) {
            return;
        }
        let at = self.now + delay + self.timing.latency + Span(self.choices.below(self.timing.jitter.0));
        self.lanes.push(lane, at, Happening::Arrive(envelope));
    }

    pub(crate) fn phase(&self) -> Phase {
        self.run.conductor.phase()
    }

    /// Tells the machine what happened, and takes its commands.
    pub(crate) fn tell(&mut self, event: Event<Bitmap>) {
        if let Err(error) = self.try_tell(event) {
            self.broken(format!("the machine blames a peer that did nothing wrong: {error}"));
        }
    }

    pub(crate) fn try_tell(&mut self, event: Event<Bitmap>) -> Result<(), PeerError> {
        self.note(|| format!("-> {}", describe(&event)));
        self.completed(&event);
        if let Event::PeerDead { peer: Peer::Intermediary(via), recoverable: false } = event {
            self.run.known_dead.push(via);
        }
        let result = self.run.conductor.handle(self.now, event);
        self.take_commands();
        result
    }

    /// Tells the machine something that is on its way to it for a while.
    pub(crate) fn tell_later(&mut self, event: Event<Bitmap>) {
        let lane = usize::try_from(self.choices.below(2)).unwrap();
        self.tell_on(lane, event);
    }

    /// Tells the machine something before everything that it is told in this way later.
    pub(crate) fn tell_in_order(&mut self, event: Event<Bitmap>) {
        self.tell_on(0, event);
    }

    fn tell_on(&mut self, lane: usize, event: Event<Bitmap>) {
        let at = self.now + Span(self.choices.below(self.timing.local.0));
        self.lanes.push(Lane::Completion(lane), at, Happening::Tell(event));
    }

    pub(crate) fn broken(&mut self, what: String) {
        self.note(|| format!("BROKEN: {what}"));
        self.violation.get_or_insert(what);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let (now, phase) = (self.now, self.run.conductor.phase());
        if let Some(trace) = &mut self.trace {
            trace.push_back(format!("{:>14} {:<12} {}", now.0, phase.name(), line()));
            if trace.len() > TRACE_LENGTH {
                trace.pop_front();
            }
        }
    }

    pub(crate) fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }
}

impl Source {
    fn new(memory: Memory, pages: usize) -> Source {
        Source {
            memory,
            tracker: Default::default(),
            sends: Vec::new(),
            watches: Vec::new(),
            hands: vec![0; pages],
            orders: BTreeMap::new(),
            stale: BTreeMap::new(),
            wanted: BTreeSet::new(),
            places: SourcePlaces::default(),
            serving: false,
            released: false,
            epoch: 0,
            next_frame: 0,
            busy: [false; MAX_STREAMS],
            limit: None,
            wire: 0,
            deduplicated: 0,
        }
    }

    /// Forgets the migration before. Frames go on being counted, as late acknowledgements may still arrive.
    fn begin_session(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        *self = Source { next_frame: self.next_frame, ..Source::new(memory, self.hands.len()) };
    }
}

impl Run {
    /// A migration of so many pages of memory and blocks of disk, with so many intermediaries.
    fn new(spec: Spec, (memory, disk): (u64, u64), vias: usize, session: u32, faults: Vec<Fault>) -> Run {
        let vias = (0..u16::try_from(vias).unwrap()).collect();
        let conductor = Conductor::new(spec, Bytes::from_pages(memory), vias).with_disk(Bytes::from_pages(disk));
        Run {
            conductor: Session::new(conductor, Ledger::new()),
            session,
            outstanding: BTreeMap::new(),
            disturbed: !faults.is_empty(),
            faults,
            elide_zero_pages: false,
            tasks: None,
            resume_issued: false,
            never_proven: false,
            cancelled: false,
            abort_failed: false,
            aborting: false,
            known_dead: Vec::new(),
            pages_lost: false,
            lost: Bytes::ZERO,
            steps: 0,
        }
    }
}
