//! The conductor: one migration of one VM, from the request to the release.
//!
//! A migration passes through stages, each a state with the data that it needs and a file of its own:
//!
//! ```text
//! Waiting -> Preparation -> Snapshots -> LiveCopy -> Switch -> Push -> Release -> Gather -> Ended
//!                 |             |           |           |                                     ^
//!                 +-------------+-----------+-----------+--> Rollback ------------------------+
//! ```
//!
//! The [`Spec`] says which stages take part. Up to the moment at which `Resume` at the destination is ordered every failure
//! leads to `Rollback`, because the source still has everything. From then on the source is *fenced*: it runs the guest again
//! only when the destination proves that it never started it.
//!
//! Pages may be staged at intermediaries ([`intermediaries`]). Where a staged page is the driver knows, and nobody else: the
//! conductor names the hosts, takes back what a failed one had, and releases the source once the destination knows every place.

mod desk;
mod gather;
mod intermediaries;
mod live;
mod preparation;
mod push;
mod regions;
mod rollback;
mod snapshots;
mod switch;

use crate::machine::{Ending, Migration, Outcome, PeerError, Phase};
use crate::pages::PageSet;
use crate::policy::selection::SelectionPolicy;
use crate::policy::timeout::OnTimeout;
use crate::strategy::{Spec, Technique};
use crate::units::{Bytes, Share, Time};
use crate::vocabulary::{CmdId, Command, Event, Failure, Peer, Prepaging, Region, Reply, Send, SendClass, Sent, Side};
use desk::{Desk, Kind, Order};
pub use gather::Remainder;
use intermediaries::Intermediaries;
use regions::Both;

/// The state machine of one migration.
#[derive(Debug)]
pub struct Conductor<P> {
    spec: Spec,
    /// What a selection has chosen.
    technique: Option<Technique>,
    memory: Bytes,
    /// Zero when there is no disk to be moved.
    disk: Bytes,
    intermediaries: Intermediaries,
    desk: Desk<P>,
    state: State<P>,
    /// When the migration was requested, once it was.
    requested: Option<Time>,
    /// Rounds that have been begun: snapshots and rounds of live copy.
    rounds: u32,
    /// What has been collected while the other region's pages are still to come.
    gathered: Both<P>,
    /// Dirty bytes as last counted.
    dirty: Both<Bytes>,
    /// The number of the round that stop rules count as the first.
    first_round: u32,
    /// Bytes on the wire in all rounds.
    sent: Bytes,
    /// Whether the stop rule was met.
    converged: bool,
    /// The vCPU share that was last ordered.
    share: Share,
    /// Since when a link that the migration needs is cut.
    link_lost: Option<Time>,
    /// `Resume` at the destination has been ordered and not been disproved.
    fenced: bool,
}

#[derive(Debug)]
enum State<P> {
    Waiting,
    Preparation,
    Snapshots(snapshots::Snapshots),
    LiveCopy(live::LiveCopy),
    Switch(switch::Switch<P>),
    Push(push::Pushing<P>),
    Release(gather::Fetching),
    Gather(gather::Fetching),
    Rollback(rollback::Rollback),
    Ended(Ending),
}

impl<P: PageSet> Conductor<P> {
    /// A migration that waits for its request: of a VM with `memory`, by `spec`, with the intermediaries of these numbers.
    #[must_use]
    pub fn new(spec: Spec, memory: Bytes, intermediaries: Vec<u16>) -> Conductor<P> {
        debug_assert_eq!(spec.check(), Ok(()));
        let converged = spec.live.is_none();
        let intermediaries = Intermediaries::new(intermediaries, spec.uses_intermediaries());
        Conductor {
            spec,
            technique: None,
            memory,
            disk: Bytes::ZERO,
            intermediaries,
            desk: Desk::new(),
            state: State::Waiting,
            requested: None,
            rounds: 0,
            gathered: Both::default(),
            dirty: Both::default(),
            first_round: 0,
            sent: Bytes::ZERO,
            converged,
            share: Share::FULL,
            link_lost: None,
            fenced: false,
        }
    }

    /// The VM has a disk of this size, which is moved with it. [`Spec::check_disk`] says whether the strategy can.
    #[must_use]
    pub fn with_disk(mut self, disk: Bytes) -> Conductor<P> {
        debug_assert!(disk.is_zero() || self.spec.check_disk() == Ok(()));
        self.disk = disk;
        self
    }

    /// How the VM's technique is to be chosen, as long as that is open.
    #[must_use]
    pub fn selection(&self) -> Option<&SelectionPolicy> {
        self.spec.selection.as_ref()
    }

    /// The technique that a selection has chosen.
    #[must_use]
    pub fn technique(&self) -> Option<Technique> {
        self.technique
    }

    fn done(&mut self, now: Time, id: CmdId, region: Region, reply: Reply<P>) {
        match reply {
            Reply::Reserved => self.reserved(),
            Reply::Prepared => self.prepared(now),
            Reply::DirtyCount(dirty) => self.region_counted(now, region, dirty),
            Reply::Dirty(set) => self.region_collected(now, region, set),
            Reply::Joined(joined) => self.joined(now, joined),
            Reply::Sent(sent) => self.send_ended(now, id, sent),
            Reply::Watched(watched) => self.watched(now, id, watched),
            Reply::Discarded(set) => self.discarded(set),
            Reply::Resumed { .. } => self.resumed(),
            Reply::FaultsRedirected { .. } => self.redirected(),
            Reply::Reclaimed(set) => self.reclaimed(set),
            Reply::Released => self.begin_gather(),
            Reply::Gathered { .. } => self.gathered(),
            // These matter only in that they are no longer outstanding.
            Reply::Returned
            | Reply::RecallNoted
            | Reply::RateSet
            | Reply::Throttled
            | Reply::Paused
            | Reply::StateSent { .. }
            | Reply::ServingFaults
            | Reply::Aborted => {}
        }
        self.advance(now);
    }

    /// Pages have come out of the dirty trackers.
    fn collected(&mut self, now: Time, sets: Both<P>) {
        match &mut self.state {
            State::Snapshots(_) => self.snapshot_collected(now, sets),
            State::LiveCopy(_) => self.round_collected(now, sets),
            State::Switch(_) => self.rest_collected(sets),
            State::Rollback(_) => self.give_back_both(sets),
            State::Waiting | State::Preparation | State::Push(_) | State::Release(_) | State::Gather(_) | State::Ended(_) => {
                unreachable!("nothing is collected in phase {}", self.phase().name())
            }
        }
    }

    fn send_ended(&mut self, now: Time, id: CmdId, sent: Sent) {
        self.sent += sent.wire;
        match &mut self.state {
            State::Snapshots(_) => self.snapshot_sent(now, id, sent),
            State::LiveCopy(_) => self.round_sent(now, id, sent),
            State::Switch(_) | State::Push(_) | State::Rollback(_) => {}
            // The source has failed since, and it is known already what is missing.
            State::Release(_) | State::Gather(_) => {}
            State::Waiting | State::Preparation | State::Ended(_) => {
                unreachable!("nothing is sent in phase {}", self.phase().name())
            }
        }
    }

    fn recalled(&mut self, now: Time, region: Region, sent: Sent, unsent: P) {
        self.sent += sent.wire;
        self.give_back(region, unsent);
        self.advance(now);
    }

    fn failed(&mut self, now: Time, Order { id, kind, region }: Order, failure: Failure, sent: Sent, unsent: P) {
        self.sent += sent.wire;
        if kind == Kind::Reserve && self.reserve_without(failure) {
            return;
        }
        match &self.state {
            State::Snapshots(_) if has_lost_its_way(kind, failure) => self.snapshot_unsent(now, id, region, unsent),
            State::Preparation | State::Snapshots(_) | State::LiveCopy(_) => {
                self.give_back(region, unsent);
                self.roll_back(Outcome::Aborted);
            }
            State::Switch(_) if kind == Kind::Resume => self.resume_failed(failure),
            State::Switch(_) => {
                self.give_back(region, unsent);
                self.roll_back(Outcome::Aborted);
            }
            State::Push(_) if matches!(failure, Failure::PagesLost { .. }) => self.gather_failed(now, failure),
            State::Push(_) => self.push_failed(now, unsent, kind),
            State::Release(_) | State::Gather(_) if kind == Kind::Gather => self.gather_failed(now, failure),
            // The source is gone, and with it everything that was to be freed.
            State::Release(_) => self.begin_gather(),
            State::Gather(_) => {}
            State::Rollback(_) => self.give_back(region, unsent),
            State::Waiting | State::Ended(_) => unreachable!("nothing is outstanding at {now}"),
        }
        self.advance(now);
    }

    /// Goes on where a state has waited for several completions.
    fn advance(&mut self, now: Time) {
        match &self.state {
            State::Snapshots(_) => self.advance_snapshots(now),
            State::Switch(_) => self.advance_switch(),
            State::Push(_) => self.advance_push(),
            State::Rollback(_) => self.advance_rollback(),
            State::LiveCopy(_) => self.reclaim_next(),
            State::Waiting | State::Preparation | State::Release(_) | State::Gather(_) | State::Ended(_) => {}
        }
    }

    fn give_back(&mut self, region: Region, set: P) {
        if !set.is_empty() {
            self.desk.order(Command::ReturnDirty { region, set });
        }
    }

    /// Sends pages as part of the current round, by the routes of the current stage.
    fn send(&mut self, region: Region, set: P, round: u32) -> CmdId {
        let class = match &self.state {
            State::Snapshots(_) => SendClass::Snapshot,
            State::Waiting
            | State::Preparation
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => {
                if round == 0 {
                    SendClass::First
                } else {
                    SendClass::Resend
                }
            }
        };
        self.send_as(region, set, round, class, Prepaging::default())
    }

    fn send_as(&mut self, region: Region, set: P, round: u32, class: SendClass, order: Prepaging) -> CmdId {
        let live = matches!(self.state, State::LiveCopy(_));
        self.desk.order(Command::Send(Send {
            set,
            region,
            routes: self.routes(region),
            streams: self.spec.transfer.streams,
            class,
            round,
            skip_redirtied: live && self.spec.live.as_ref().is_some_and(|l| l.skip_redirtied),
            order,
        }))
    }

    fn release(&mut self, fetching: gather::Fetching) {
        assert!(self.fenced, "a source is released only after the guest has started elsewhere");
        self.desk.order(Command::Release);
        self.state = State::Release(fetching);
    }

    fn end(&mut self, outcome: Outcome) {
        self.state = State::Ended(Ending { outcome, converged: self.converged });
    }

    fn cancel(&mut self) -> Result<(), PeerError> {
        match &self.state {
            State::Waiting => self.end(Outcome::Cancelled),
            State::Preparation | State::Snapshots(_) | State::LiveCopy(_) => self.roll_back(Outcome::Cancelled),
            State::Switch(_) if !self.fenced => self.roll_back(Outcome::Cancelled),
            State::Rollback(_) => {}
            State::Switch(_) | State::Push(_) | State::Release(_) | State::Gather(_) | State::Ended(_) => {
                return Err(PeerError::TooLate { phase: self.phase() });
            }
        }
        Ok(())
    }

    fn peer_dead(&mut self, now: Time, peer: Peer, recoverable: bool) -> Result<(), PeerError> {
        match peer {
            Peer::Intermediary(via) => return self.intermediary_dead(via, recoverable),
            Peer::Source | Peer::Destination if recoverable => {
                self.link_lost.get_or_insert(now);
            }
            Peer::Source => self.source_dead(),
            Peer::Destination => self.destination_dead(),
        }
        Ok(())
    }

    fn source_dead(&mut self) {
        match &self.state {
            State::Waiting | State::Preparation | State::Snapshots(_) | State::LiveCopy(_) | State::Rollback(_) => {
                self.end(Outcome::Lost);
            }
            // Once the destination may have started the guest, its answer tells what became of it, if it ever comes.
            State::Switch(switch) => self.end(if self.fenced && switch.all_sent() { Outcome::Undecided } else { Outcome::Lost }),
            State::Push(_) => self.source_dead_in_push(),
            State::Release(_) => self.begin_gather(),
            State::Gather(_) | State::Ended(_) => {}
        }
    }

    fn destination_dead(&mut self) {
        match &self.state {
            State::Waiting | State::Ended(_) | State::Rollback(_) => {}
            State::Preparation | State::Snapshots(_) | State::LiveCopy(_) => self.roll_back(Outcome::Aborted),
            State::Switch(_) if !self.fenced => self.roll_back(Outcome::Aborted),
            // It may have run the guest for a moment: nobody can know, so nobody starts it again.
            State::Switch(_) => self.end(Outcome::Undecided),
            State::Push(_) | State::Release(_) | State::Gather(_) => self.end(Outcome::Lost),
        }
    }

    fn check_timeouts(&mut self, now: Time) {
        if !self.can_roll_back() {
            return;
        }
        if self.link_deadline().is_some_and(|at| now >= at) {
            self.roll_back(Outcome::Aborted);
        } else if self.completion_deadline().is_some_and(|at| now >= at) {
            let then = self.spec.timeout.expect("a deadline has a policy").then;
            match then {
                OnTimeout::Abort => self.roll_back(Outcome::Aborted),
                OnTimeout::PostCopy => self.begin_switch(Some(self.spec.push.unwrap_or_default())),
                OnTimeout::Pause => self.begin_switch(None),
            }
        }
        self.advance(now);
    }

    /// Whether there is something to go back to: the source still has everything and may run the guest.
    fn can_roll_back(&self) -> bool {
        let under_way = matches!(self.state, State::Preparation | State::Snapshots(_) | State::LiveCopy(_) | State::Switch(_));
        under_way && !self.fenced
    }

    /// When patience with a cut link ends.
    fn link_deadline(&self) -> Option<Time> {
        self.link_lost.filter(|_| self.can_roll_back()).map(|since| since + self.spec.link_patience)
    }

    /// When the completion timeout ends the rounds of live copy.
    fn completion_deadline(&self) -> Option<Time> {
        let timeout = self.spec.timeout.filter(|_| matches!(self.state, State::LiveCopy(_)))?;
        Some(self.requested? + timeout.limit(self.size()))
    }
}

impl<P: PageSet> Migration<P> for Conductor<P> {
    fn handle(&mut self, now: Time, event: Event<P>) -> Result<(), PeerError> {
        match event {
            Event::Prepare => self.prepare_ahead(),
            Event::Selected(technique) => self.select(technique),
            Event::Requested => self.begin(now),
            Event::Cancel => self.cancel(),
            Event::Done { id, reply } => {
                self.desk.check(id, &reply, self.phase())?;
                let Order { region, .. } = self.desk.close(id);
                if !matches!(self.state, State::Ended(_)) {
                    self.done(now, id, region, reply);
                }
                Ok(())
            }
            Event::Failed { id, failure, sent, unsent } => {
                let what = self.desk.close(id);
                if !matches!(self.state, State::Ended(_)) {
                    self.failed(now, what, failure, sent, unsent);
                }
                Ok(())
            }
            Event::Recalled { id, sent, unsent } => {
                let Order { region, .. } = self.desk.close(id);
                if !matches!(self.state, State::Ended(_)) {
                    self.recalled(now, region, sent, unsent);
                }
                Ok(())
            }
            Event::StageRefused { via, set } => self.stage_refused(now, via, set),
            Event::LinkLost(Peer::Intermediary(via)) | Event::LinkRestored(Peer::Intermediary(via)) => {
                // What went that way stands still there; everything else goes on.
                self.know(via)
            }
            Event::LinkLost(Peer::Source | Peer::Destination) => {
                self.link_lost.get_or_insert(now);
                Ok(())
            }
            Event::LinkRestored(Peer::Source | Peer::Destination) => {
                self.link_lost = None;
                self.advance(now);
                Ok(())
            }
            Event::PeerDead { peer, recoverable } => self.peer_dead(now, peer, recoverable),
        }
    }

    fn wake(&mut self, now: Time) {
        self.check_timeouts(now);
        self.wake_snapshots(now);
        self.retry_push(now);
        self.retry_gather(now);
    }

    fn poll(&mut self) -> Option<(CmdId, Command<P>)> {
        self.desk.poll()
    }

    fn deadline(&self) -> Option<Time> {
        let of_state = match &self.state {
            State::Push(pushing) => pushing.retry_at(),
            State::Gather(fetching) => fetching.retry_at(),
            State::LiveCopy(_) => self.completion_deadline(),
            State::Snapshots(_) => self.snapshot_deadline(),
            State::Waiting | State::Preparation | State::Switch(_) | State::Release(_) | State::Rollback(_) | State::Ended(_) => {
                None
            }
        };
        match (of_state, self.link_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (of_state, link) => of_state.or(link),
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Waiting => Phase::Waiting,
            State::Preparation => Phase::Preparation,
            State::Snapshots(_) => Phase::Snapshots,
            State::LiveCopy(_) => Phase::LiveCopy,
            State::Switch(_) => Phase::Switch,
            State::Push(_) => Phase::Push,
            State::Release(_) => Phase::Release,
            State::Gather(_) => Phase::Gather,
            State::Rollback(_) => Phase::Rollback,
            State::Ended(_) => Phase::Ended,
        }
    }

    fn ending(&self) -> Option<Ending> {
        match &self.state {
            State::Ended(ending) => Some(*ending),
            State::Waiting
            | State::Preparation
            | State::Snapshots(_)
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_) => None,
        }
    }
}

impl<P: PageSet> Conductor<P> {
    fn resume_at(&mut self, side: Side) {
        match side {
            Side::Source => assert!(!self.fenced, "a fenced source does not run the guest"),
            Side::Destination => self.fenced = true,
        }
        self.desk.order(Command::Resume { side });
    }
}

/// Whether a send has failed only because no intermediary was left that it could go to.
fn has_lost_its_way(kind: Kind, failure: Failure) -> bool {
    kind == Kind::Send && matches!(failure, Failure::Unreachable(Peer::Intermediary(_)))
}
