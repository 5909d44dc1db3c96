//! Snapshots: memory is sent before the migration is requested, so that little is left when it is.
//!
//! First everything once, then some passes over what is dirty, then snapshots as the policy wants them. They need be neither complete nor
//! consistent: the guest goes on at the source, and what it writes is dirty again. The request may come at any moment. A send that is
//! under way is then taken back; what it has not delivered is dirty, like everything written since.

use super::regions::{Both, Sends};
use super::{Conductor, Kind, State};
use crate::pages::PageSet;
use crate::policy::stop::Round;
use crate::units::{Bytes, Span, Time};
use crate::vocabulary::{CmdId, Region, Sent};

/// The stage of snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Sends that have been completed: the first copy, the passes and the snapshots.
    taken: u32,
    /// The last of them.
    last: Option<Round>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Until dirty pages are counted again.
    Sleeping { until: Time },
    /// They are being counted.
    Counting,
    /// They are being collected.
    Collecting,
    /// They are being sent.
    Sending { sends: Sends, started: Time },
    /// The migration is requested; what is outstanding comes to its end.
    Requested,
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn begin_snapshots(&mut self) {
        self.state = State::Snapshots(Snapshots { taken: 0, last: None, step: Step::Collecting });
        self.collect_all();
    }

    fn snapshots(&mut self) -> Option<&mut Snapshots> {
        match &mut self.state {
            State::Snapshots(snapshots) => Some(snapshots),
            State::Waiting
            | State::Preparation
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => None,
        }
    }

    pub(super) fn snapshot_collected(&mut self, now: Time, sets: Both<P>) {
        let Some(Snapshots { step: Step::Collecting, .. }) = self.snapshots() else { return self.give_back_both(sets) };
        if sets.is_empty() {
            return self.sleep(now, Span::ZERO);
        }
        let sends = self.send_both(sets, self.rounds);
        self.rounds += 1;
        self.snapshots().expect("still in snapshots").step = Step::Sending { sends, started: now };
    }

    pub(super) fn snapshot_sent(&mut self, now: Time, id: CmdId, sent: Sent) {
        let passes = self.spec.ahead.as_ref().map_or(0, |a| a.passes);
        let index = self.rounds.saturating_sub(1);
        let Some(snapshots) = self.snapshots() else { return };
        let Step::Sending { sends, started } = &mut snapshots.step else { return };
        if !sends.closes(id, sent) {
            return;
        }
        let (sent, started) = (sends.sent, *started);
        snapshots.taken += 1;
        let round = Round { index, started, ended: now, wire: sent.wire, skipped: sent.skipped, dirty: Bytes::ZERO };
        snapshots.last = Some(round);
        if snapshots.taken <= passes {
            snapshots.step = Step::Collecting;
            self.collect_all();
        } else {
            self.sleep(now, round.duration());
        }
    }

    /// A snapshot has lost its way: what it has not sent is dirty again and waits for the next.
    pub(super) fn snapshot_unsent(&mut self, now: Time, id: CmdId, region: Region, unsent: P) {
        self.give_back(region, unsent);
        // A send of the other region goes on, and nothing of it may be overtaken by the next snapshot.
        if let Some(Snapshots { step: Step::Sending { sends, .. }, .. }) = self.snapshots()
            && sends.closes(id, Sent::default())
        {
            self.sleep(now, Span::ZERO);
        }
    }

    fn sleep(&mut self, now: Time, sending: Span) {
        let Some(ahead) = &mut self.spec.ahead else { return };
        let until = now + ahead.snapshots.sleep(sending);
        if let Some(snapshots) = self.snapshots() {
            snapshots.step = Step::Sleeping { until };
        }
    }

    /// When dirty pages are to be counted again.
    pub(super) fn snapshot_deadline(&self) -> Option<Time> {
        match &self.state {
            State::Snapshots(Snapshots { step: Step::Sleeping { until }, .. }) => Some(*until),
            State::Snapshots(_)
            | State::Waiting
            | State::Preparation
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => None,
        }
    }

    pub(super) fn wake_snapshots(&mut self, now: Time) {
        if self.snapshot_deadline().is_some_and(|until| now >= until) {
            self.snapshots().expect("only snapshots have this deadline").step = Step::Counting;
            self.count_dirty();
        }
    }

    pub(super) fn snapshot_counted(&mut self, now: Time, dirty: Bytes) {
        let Some(Snapshots { step: Step::Counting, last, .. }) = self.snapshots() else { return };
        let since = last.map_or(Span::MAX, |l| now - l.ended);
        let take = self.spec.ahead.as_ref().and_then(|a| a.snapshots.take(dirty, since));
        match take {
            Some(limit) => {
                self.snapshots().expect("still in snapshots").step = Step::Collecting;
                self.collect_some(limit);
            }
            None => self.sleep(now, Span::ZERO),
        }
    }

    /// The migration is requested.
    pub(super) fn interrupt_snapshots(&mut self) {
        self.desk.recall_all(&[Kind::Send]);
        if let Some(snapshots) = self.snapshots() {
            snapshots.step = Step::Requested;
        }
    }

    /// Goes on with what is left, once nothing of the snapshots is outstanding.
    pub(super) fn advance_snapshots(&mut self, now: Time) {
        const UNDER_WAY: [Kind; 5] = [Kind::Send, Kind::Collect, Kind::ReturnDirty, Kind::PeekDirty, Kind::Reclaim];
        self.reclaim_next();
        let open = self.desk.any_open(&UNDER_WAY);
        let Some(&mut Snapshots { step: Step::Requested, last, .. }) = self.snapshots() else { return };
        if open {
            return;
        }
        match last {
            _ if self.spec.live.is_none() => self.begin_switch(self.spec.push),
            // The last snapshot counts as a round: perhaps so little is left that no other is needed.
            Some(round) => self.judge_after(now, &round),
            None => self.begin_live_copy(now),
        }
    }
}
