//! Rollback: everything as it was before the request. The guest runs at the source, at full speed, as soon as it can.

use super::{Conductor, Kind, State};
use crate::machine::Outcome;
use crate::pages::PageSet;
use crate::units::Share;
use crate::vocabulary::{Command, Side};

/// The rollback under way.
#[derive(Debug)]
pub(super) struct Rollback {
    outcome: Outcome,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The guest is perhaps still being stopped; it is started again when that is over.
    Stopping,
    /// Outstanding commands come to their end.
    Draining,
    /// The other hosts are being freed.
    Aborting,
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn roll_back(&mut self, outcome: Outcome) {
        self.stop_copying();
        self.give_back_gathered();
        let stopped = self.leave_switch();
        let step = if stopped { Step::Stopping } else { Step::Draining };
        self.state = State::Rollback(Rollback { outcome, step });
        self.set_share(Share::FULL);
        self.advance_rollback();
    }

    pub(super) fn advance_rollback(&mut self) {
        let State::Rollback(rollback) = &mut self.state else { return };
        if rollback.step == Step::Stopping && !self.desk.any_open(&[Kind::Pause]) {
            rollback.step = Step::Draining;
            self.resume_at(Side::Source);
            return;
        }
        match rollback.step {
            Step::Stopping => {}
            Step::Draining if self.desk.nothing_open() => {
                rollback.step = Step::Aborting;
                self.desk.order(Command::Abort);
            }
            Step::Aborting if self.desk.nothing_open() => {
                let outcome = rollback.outcome;
                self.end(outcome);
            }
            Step::Draining | Step::Aborting => {}
        }
    }
}
