//! The ledger itself: who among its parts is told what.

use super::metrics::{Metrics, RoundRecord};
use super::observation::{Observation, TimelinePoint};
use super::stalls::Stalls;
use super::switch::Switch;
use super::throttle::Throttle;
use super::timeline::Timeline;
use super::traffic::{OpenSend, Over, Stage, Traffic};
use super::work::Work;
use crate::machine::{Ending, Outcome, Phase};
use crate::pages::PageSet;
use crate::units::{Bytes, Span, Time};
use crate::vocabulary::{CmdId, Command, Event, Failure, Region, Reply, Send, Sent, Side};

/// The metrics of one migration in the making.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Commands whose completion matters.
    open: Vec<(CmdId, Order)>,
    preparing: Option<Time>,
    requested: Option<Time>,
    released: Option<Time>,
    ended: Option<Time>,
    queued: Span,
    guest_gap: Option<Span>,
    first_touches: u64,
    switch: Switch,
    traffic: Traffic,
    throttle: Throttle,
    work: Work,
    stalls: Stalls,
    staging: Staging,
    lost: Bytes,
    timeline: Option<Box<Timeline>>,
}

/// An outstanding command, with what its completion must know.
#[derive(Clone, Copy, Debug)]
enum Order {
    Send(OpenSend),
    /// A collection into a send, with what became of that if it was over in the meantime.
    Join {
        of: CmdId,
        over: Option<Over>,
    },
    PeekDirty(Region),
    Pause,
    SendState,
    Resume(Side),
    RedirectFaults,
    Gather,
    Release,
}

/// What intermediaries hold.
#[derive(Clone, Debug, Default)]
struct Staging {
    now: Vec<Bytes>,
    peaks: Vec<Bytes>,
    peak: Bytes,
}

impl Staging {
    fn set(&mut self, via: u16, bytes: Bytes) {
        let via = usize::from(via);
        if via >= self.now.len() {
            self.now.resize(via + 1, Bytes::ZERO);
            self.peaks.resize(via + 1, Bytes::ZERO);
        }
        self.now[via] = bytes;
        self.peaks[via] = self.peaks[via].max(bytes);
        self.peak = self.peak.max(self.now.iter().copied().sum());
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// An empty ledger that keeps a timeline, which grows with the migration.
    #[must_use]
    pub fn with_timeline() -> Ledger {
        Ledger { timeline: Some(Box::default()), ..Ledger::default() }
    }

    /// Whether a timeline is kept; a driver that must work for [`Observation::Bandwidth`] may do without otherwise.
    #[must_use]
    pub fn keeps_timeline(&self) -> bool {
        self.timeline.is_some()
    }

    /// A command was polled from the migration.
    pub fn command<P: PageSet>(&mut self, now: Time, id: CmdId, command: &Command<P>) {
        if let Some(timeline) = &mut self.timeline {
            timeline.command(now, command.name());
        }
        if matches!(command, Command::PeekDirty { .. }) && self.requested.is_none() {
            self.traffic.snapshots_begin();
        }
        let order = match command {
            Command::Send(send) => Order::Send(self.send_ordered(now, send)),
            Command::Collect { into: Some(of), .. } => Order::Join { of: *of, over: None },
            // What is dirty when the guest stands still is more than what was at the end of the round.
            Command::PeekDirty { region } if !self.switch.standing() => Order::PeekDirty(*region),
            Command::Pause => {
                self.switch.pause(now);
                Order::Pause
            }
            Command::SendState => {
                self.switch.order_state(now);
                Order::SendState
            }
            Command::Resume { side } => {
                self.switch.order_resume(now, *side);
                if *side == Side::Destination && self.open.iter().any(|(_, order)| matches!(order, Order::Send(_))) {
                    self.switch.push_ordered();
                }
                Order::Resume(*side)
            }
            Command::RedirectFaults => Order::RedirectFaults,
            Command::Gather { .. } => Order::Gather,
            Command::Release => Order::Release,
            Command::Reserve { .. }
            | Command::Prepare { .. }
            | Command::PeekDirty { .. }
            | Command::Collect { into: None, .. }
            | Command::ReturnDirty { .. }
            | Command::Recall { .. }
            | Command::SetRate { .. }
            | Command::Throttle { .. }
            | Command::DiscardStale { .. }
            | Command::ServeFaults
            | Command::Reclaim { .. }
            | Command::Watch(_)
            | Command::Abort => return,
        };
        self.open.push((id, order));
    }

    fn send_ordered<P: PageSet>(&mut self, now: Time, send: &Send<P>) -> OpenSend {
        let stage = self.stage();
        if stage == Stage::Pushing {
            self.switch.push_ordered();
        }
        if !send.routes.via.is_empty() {
            self.switch.stages();
        }
        let open = self.traffic.order(now, send, stage);
        self.note_rounds();
        open
    }

    fn stage(&self) -> Stage {
        if self.requested.is_none() {
            Stage::BeforeRequest
        } else if self.switch.pushing() {
            Stage::Pushing
        } else if self.switch.standing() {
            Stage::Stopped
        } else {
            Stage::Live
        }
    }

    /// An event is handed to the migration. What is no answer to the command that it names is not entered: the migration will
    /// refuse it.
    pub fn event<P: PageSet>(&mut self, now: Time, event: &Event<P>) {
        match event {
            Event::Prepare => {
                self.preparing.get_or_insert(now);
            }
            Event::Requested => {
                self.requested.get_or_insert(now);
            }
            Event::Done { id, reply } => self.done(now, *id, reply),
            Event::Failed { id, failure, sent, unsent } => self.undone(now, *id, Some(*failure), *sent, unsent.len()),
            Event::Recalled { id, sent, unsent } => self.undone(now, *id, None, *sent, unsent.len()),
            Event::Selected(_)
            | Event::Cancel
            | Event::StageRefused { .. }
            | Event::LinkLost(_)
            | Event::LinkRestored(_)
            | Event::PeerDead { .. } => {}
        }
    }

    fn take(&mut self, id: CmdId) -> Option<Order> {
        let i = self.open.iter().position(|&(open, _)| open == id)?;
        Some(self.open.swap_remove(i).1)
    }

    fn done<P>(&mut self, now: Time, id: CmdId, reply: &Reply<P>) {
        let Some(order) = self.take(id) else { return };
        match (order, reply) {
            (Order::Send(send), Reply::Sent(sent)) => self.send_over(now, id, send, *sent, Bytes::ZERO),
            (Order::Join { of, over }, Reply::Joined(joined)) => {
                let stage = self.stage();
                match over {
                    Some(over) => self.traffic.joined_late(now, &over, *joined, stage),
                    None => {
                        if let Some((_, Order::Send(send))) = self.open.iter_mut().find(|(open, _)| *open == of) {
                            self.traffic.joined(now, send, *joined, stage);
                        }
                    }
                }
                self.note_rounds();
            }
            // The send was over: its pages are handed over, and a send of their own begins their round.
            (Order::Join { .. }, Reply::Dirty(_)) => {}
            (Order::PeekDirty(region), Reply::DirtyCount(dirty)) => self.traffic.dirty(region, *dirty),
            (Order::Pause, Reply::Paused) => self.throttle.runs_at_source(now, false),
            (Order::SendState, Reply::StateSent { wire }) => {
                self.switch.state_acked(now);
                self.traffic.bytes.state += *wire;
            }
            (Order::Resume(side), Reply::Resumed { at }) => {
                self.switch.resumed(side, *at);
                self.throttle.runs_at_source(*at, side == Side::Source);
            }
            (Order::RedirectFaults, Reply::FaultsRedirected { at }) => self.switch.redirected(*at),
            (Order::Gather, Reply::Gathered { at }) => self.switch.gathered(*at),
            (Order::Release, Reply::Released) => self.released = Some(now),
            (no_answer_to_it, _) => self.open.push((id, no_answer_to_it)),
        }
    }

    /// A command has failed, or was recalled.
    fn undone(&mut self, now: Time, id: CmdId, failure: Option<Failure>, sent: Sent, unsent: Bytes) {
        match self.take(id) {
            Some(Order::Send(send)) => self.send_over(now, id, send, sent, unsent),
            Some(Order::Pause) => self.switch.pause_failed(),
            Some(Order::Resume(Side::Destination)) if failure == Some(Failure::NeverStarted) => self.switch.never_started(),
            Some(Order::Gather) => {
                if let Some(Failure::PagesLost { bytes }) = failure {
                    self.lost += bytes;
                }
            }
            Some(
                Order::Join { .. }
                | Order::PeekDirty(_)
                | Order::SendState
                | Order::Resume(_)
                | Order::RedirectFaults
                | Order::Release,
            )
            | None => {}
        }
    }

    fn send_over(&mut self, now: Time, id: CmdId, send: OpenSend, sent: Sent, unsent: Bytes) {
        let ended = self.traffic.over(now, send, sent, unsent);
        self.switch.send_over(now);
        for (_, order) in &mut self.open {
            if let Order::Join { of, over } = order
                && *of == id
            {
                *over = Some(ended);
            }
        }
    }

    /// The migration is in this phase.
    pub fn phase(&mut self, now: Time, phase: Phase) {
        if phase == Phase::Ended {
            self.ended.get_or_insert(now);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.phase(now, phase);
        }
    }

    /// The timeline gets a point for a round that has begun with what was just entered.
    fn note_rounds(&mut self) {
        if let (Some(timeline), Some(last)) = (&mut self.timeline, self.traffic.rounds.last()) {
            timeline.round(last.started, last.index);
        }
    }

    /// The driver has measured something.
    ///
    /// # Panics
    /// When work is reported before its observation has begun, or at a rate that is negative or not finite.
    pub fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Work { until, rate } => {
                let from = self.work.interval(until, rate);
                if let (Some(timeline), Some(from)) = (&mut self.timeline, from) {
                    timeline.work(from, rate);
                }
            }
            Observation::WorkBegins(at) => self.work.begin(at),
            Observation::Control(bytes) => {
                let counted = &mut self.traffic.bytes;
                let purpose = if self.requested.is_some() { &mut counted.control } else { &mut counted.snapshot };
                *purpose += bytes;
            }
            Observation::Faults { count, stall } => self.stalls.record(stall, count),
            Observation::FirstTouches(count) => self.first_touches = self.first_touches.saturating_add(count),
            Observation::Gathered(bytes) => self.traffic.bytes.gathered += bytes,
            Observation::Staged { via, bytes } => self.staging.set(via, bytes),
            Observation::ShareInForce { at, share } => self.throttle.set(at, share),
            Observation::GuestGap(gap) => self.guest_gap = self.guest_gap.max(Some(gap)),
            Observation::Queued(span) => self.queued = span,
            Observation::Progress { send, sent } => {
                if let Some((_, Order::Send(open))) = self.open.iter_mut().find(|(id, _)| *id == send) {
                    self.traffic.progress(open, sent);
                }
            }
            Observation::Link { link, bytes } => self.traffic.over_link(link, bytes),
            Observation::Bandwidth { at, rate } => {
                if let Some(timeline) = &mut self.timeline {
                    timeline.bandwidth(at, rate);
                }
            }
        }
    }

    /// The rounds so far, the one under way included. Of very many only the first [`FIRST_ROUNDS`](super::FIRST_ROUNDS) and the last
    /// [`LAST_ROUNDS`](super::LAST_ROUNDS) or some more are there.
    #[must_use]
    pub fn rounds(&self) -> &[RoundRecord] {
        self.traffic.rounds.kept()
    }

    /// Hands over the rounds; to be called after [`Ledger::finish`]. Of very many only the first [`FIRST_ROUNDS`](super::FIRST_ROUNDS)
    /// and the last [`LAST_ROUNDS`](super::LAST_ROUNDS) are there.
    pub fn take_rounds(&mut self) -> Vec<RoundRecord> {
        self.traffic.rounds.take()
    }

    /// Hands over the timeline; to be called after [`Ledger::finish`]. It is in the order of time; empty when none was kept.
    pub fn take_timeline(&mut self) -> Vec<TimelinePoint> {
        self.timeline.as_deref_mut().map(std::mem::take).map_or_else(Vec::new, Timeline::into_points)
    }

    /// The observation is over: computes the metrics. To be called once, with what the migration says of its ending; without
    /// one it is unfinished. Rounds and timeline are still there afterwards.
    pub fn finish(&mut self, now: Time, ending: Option<Ending>) -> Metrics {
        self.traffic.finish(now);
        self.throttle.advance(now);
        self.open = Vec::new();
        let completed = ending.is_some_and(|e| e.outcome == Outcome::Completed);
        let whole_at = self.switch.whole_at(completed);
        let since_request = |at: Option<Time>| Some(at?.since(self.requested?));
        let exposed_from = self.switch.resumed_at(Side::Destination).filter(|_| self.switch.depended());
        let exposed_until = whole_at.or(self.ended).unwrap_or(now);
        let running_again = whole_at.or(self.switch.resumed_at(Side::Source));
        let perceived = |work: &Work| work.perceived_downtime(self.switch.paused_at()?, running_again?);
        let mut metrics = Metrics {
            outcome: ending.map_or(Outcome::Unfinished, |e| e.outcome),
            converged: ending.is_some_and(|e| e.converged),
            requested: self.requested,
            queued: self.queued,
            preparation: self.preparing.and_then(|from| Some(self.requested?.since(from))),
            eviction_time: since_request(self.released),
            total_migration_time: since_request(whole_at),
            downtime: self.switch.downtime(),
            guest_gap: self.guest_gap,
            perceived_downtime: perceived(&self.work),
            bytes: self.traffic.bytes,
            snapshots: self.traffic.snapshots,
            links: std::mem::take(&mut self.traffic.links),
            rounds: self.traffic.rounds.count(),
            work_lost: self.work.lost(),
            observed: self.work.observed(),
            throttle: self.throttle.lost(),
            exposure: exposed_from.map_or(Span::ZERO, |from| exposed_until.since(from)),
            exposed_from,
            bytes_lost: self.lost,
            bytes_deduplicated: self.traffic.deduplicated,
            intermediary_peak: self.staging.peak,
            intermediary_peaks: std::mem::take(&mut self.staging.peaks),
            ..Metrics::default()
        };
        metrics.set_faults(std::mem::take(&mut self.stalls), self.first_touches);
        metrics
    }
}
