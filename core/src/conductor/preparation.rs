//! Preparation: room at the destination, open channels, writes tracked.

use super::{Conductor, Phase, State};
use crate::machine::{Migration, PeerError};
use crate::pages::PageSet;
use crate::units::Time;
use crate::vocabulary::Command;

impl<P: PageSet> Conductor<P> {
    /// The migration is requested: t0.
    pub(super) fn begin(&mut self, now: Time) -> Result<(), PeerError> {
        if self.phase() != Phase::Waiting {
            return Err(PeerError::TooLate { phase: self.phase() });
        }
        self.requested = now;
        self.desk.order(Command::Reserve { memory: self.memory, intermediaries: self.intermediaries.clone() });
        self.state = State::Preparation;
        Ok(())
    }

    pub(super) fn reserved(&mut self) {
        if matches!(self.state, State::Preparation) {
            self.desk.order(Command::Prepare { elide_zero_pages: self.spec.transfer.elide_zero_pages });
        }
    }

    pub(super) fn prepared(&mut self, now: Time) {
        if !matches!(self.state, State::Preparation) {
            return;
        }
        if let Some(limit) = self.spec.transfer.limit {
            self.desk.order(Command::SetRate { limit: Some(limit) });
        }
        if self.spec.live.is_some() {
            self.begin_live_copy(now);
        } else {
            self.begin_switch(self.spec.push);
        }
    }
}
