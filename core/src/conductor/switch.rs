//! The switch: the guest stops at the source and starts at the destination.
//!
//! Without a push the rest of memory goes first, while the guest stands still. With one, the destination drops the old versions
//! of what is left, if it has any, and the guest starts without it. What is left of the disk goes first in either case: there is no
//! asking for a missing block.

use super::regions::Both;
use super::{Conductor, Kind, State};
use crate::machine::Outcome;
use crate::pages::PageSet;
use crate::strategy::Push;
use crate::vocabulary::{Command, Failure, Region, Side};

/// The switch under way.
#[derive(Debug)]
pub(super) struct Switch<P> {
    /// How the rest is pushed after it; without, the rest is sent within.
    push: Option<Push>,
    step: Step<P>,
    /// An intermediary has failed with pages that belong to the rest: it is collected once more.
    again: bool,
}

#[derive(Debug)]
enum Step<P> {
    /// The guest is being stopped and earlier sends end.
    Stopping,
    /// What is dirty is being collected, for the last time.
    Collecting,
    /// The rest is being sent, but for what is to be pushed.
    Sending { rest: P },
    /// Device state is on its way, and the list of stale pages.
    Settling {
        /// What is to be pushed; on loan to `DiscardStale` while that is outstanding.
        rest: P,
    },
    /// The destination is starting the guest.
    Starting { rest: P },
}

impl<P: PageSet> Switch<P> {
    /// Whether the destination, which is starting the guest, has all of its memory.
    pub(super) fn all_sent(&self) -> bool {
        match &self.step {
            Step::Starting { rest } => rest.is_empty(),
            Step::Stopping | Step::Collecting | Step::Sending { .. } | Step::Settling { .. } => false,
        }
    }
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn begin_switch(&mut self, push: Option<Push>) {
        self.stop_copying();
        self.give_back_gathered();
        if self.spec.transfer.unlimited_while_paused && self.spec.transfer.limit.is_some() {
            self.desk.order(Command::SetRate { limit: None });
        }
        self.desk.order(Command::Pause);
        if push.is_some() {
            self.desk.order(Command::ServeFaults);
        }
        self.state = State::Switch(Switch { push, step: Step::Stopping, again: false });
    }

    /// The rest has been collected.
    pub(super) fn rest_collected(&mut self, mut rest: Both<P>) {
        let State::Switch(switch) = &mut self.state else { unreachable!("only the switch collects a rest") };
        if matches!(switch.step, Step::Stopping) {
            // A round's collection that was under way when the switch began: the last one takes these pages again.
            return self.give_back_both(rest);
        }
        let pushed = if switch.push.is_some() { std::mem::take(&mut rest.memory) } else { P::default() };
        if rest.is_empty() {
            self.settle(pushed);
        } else {
            switch.step = Step::Sending { rest: pushed };
            self.send_both(rest, self.rounds);
        }
    }

    fn settle(&mut self, mut rest: P) {
        let stale = self.rounds > 0 && !rest.is_empty();
        if stale {
            let set = std::mem::take(&mut rest);
            self.desk.order(Command::DiscardStale { set });
        }
        self.desk.order(Command::SendState);
        let State::Switch(switch) = &mut self.state else { unreachable!("only the switch settles") };
        switch.step = Step::Settling { rest };
    }

    /// The destination has dropped what it had of the rest.
    pub(super) fn discarded(&mut self, set: P) {
        match &mut self.state {
            State::Switch(Switch { step: Step::Settling { rest }, .. }) => *rest = set,
            State::Rollback(_) => self.give_back(Region::Memory, set),
            State::Switch(_)
            | State::Waiting
            | State::Snapshots(_)
            | State::Preparation
            | State::LiveCopy(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Ended(_) => unreachable!("nothing is being dropped"),
        }
    }

    pub(super) fn advance_switch(&mut self) {
        const UNSETTLED: [Kind; 6] = [Kind::Pause, Kind::Send, Kind::Collect, Kind::ReturnDirty, Kind::PeekDirty, Kind::Reclaim];
        const STARTING: [Kind; 5] = [Kind::SendState, Kind::DiscardStale, Kind::ServeFaults, Kind::Reclaim, Kind::ReturnDirty];
        if !matches!(self.state, State::Switch(_)) {
            return;
        }
        self.reclaim_next();
        let State::Switch(switch) = &mut self.state else { return };
        match &mut switch.step {
            Step::Stopping if !self.desk.any_open(&UNSETTLED) => {
                switch.step = Step::Collecting;
                switch.again = false;
                self.collect_all();
            }
            Step::Sending { rest } if !self.desk.any_open(&[Kind::Send]) => {
                let rest = std::mem::take(rest);
                self.settle(rest);
            }
            Step::Settling { rest } if switch.again && !self.desk.any_open(&STARTING) => {
                let rest = std::mem::take(rest);
                switch.step = Step::Stopping;
                self.give_back(Region::Memory, rest);
                self.advance_switch();
            }
            Step::Settling { rest } if !self.desk.any_open(&STARTING) => {
                switch.step = Step::Starting { rest: std::mem::take(rest) };
                self.resume_at(Side::Destination);
            }
            Step::Stopping | Step::Collecting | Step::Sending { .. } | Step::Settling { .. } | Step::Starting { .. } => {}
        }
    }

    /// Pages that only a failed intermediary had belong to the rest. Once the guest is being started they are merely pushed.
    pub(super) fn switch_reclaimed(&mut self, set: P) {
        let State::Switch(switch) = &mut self.state else { unreachable!("only the switch takes pages back here") };
        if let Step::Starting { rest } = &mut switch.step {
            rest.merge(set);
        } else if !set.is_empty() {
            switch.again = true;
            self.give_back(Region::Memory, set);
        }
    }

    /// The guest has started: at the destination, or again at the source.
    pub(super) fn resumed(&mut self) {
        let State::Switch(switch) = &mut self.state else { return };
        let Step::Starting { rest } = &mut switch.step else { unreachable!("nothing is being started") };
        let rest = std::mem::take(rest);
        match switch.push {
            Some(push) => self.begin_push(rest, push),
            None => self.release(super::gather::Fetching::default()),
        }
    }

    pub(super) fn resume_failed(&mut self, failure: Failure) {
        match failure {
            Failure::NeverStarted => {
                self.fenced = false;
                self.roll_back(Outcome::Aborted);
            }
            Failure::Refused(_) | Failure::Unreachable(_) | Failure::AnswerLost | Failure::PagesLost { .. } => {
                self.end(Outcome::Undecided);
            }
        }
    }

    /// Ends the switch: gives up the pages that it holds. Whether the guest may stand still.
    pub(super) fn leave_switch(&mut self) -> bool {
        let State::Switch(switch) = &mut self.state else { return false };
        let held = match &mut switch.step {
            Step::Stopping | Step::Collecting => P::default(),
            Step::Sending { rest } | Step::Settling { rest } | Step::Starting { rest } => std::mem::take(rest),
        };
        self.give_back(Region::Memory, held);
        true
    }
}
