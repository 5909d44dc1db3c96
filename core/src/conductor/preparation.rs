//! Preparation: room at the destination, open channels, writes tracked.

use super::{Conductor, State};
use crate::machine::{Migration, PeerError};
use crate::pages::PageSet;
use crate::strategy::Technique;
use crate::units::Time;
use crate::vocabulary::Command;

impl<P: PageSet> Conductor<P> {
    /// The migration will be requested later.
    pub(super) fn prepare_ahead(&mut self) -> Result<(), PeerError> {
        match &self.state {
            State::Waiting if self.spec.ahead.is_some() => self.reserve(),
            // Other strategies have nothing to do before the request.
            State::Waiting => {}
            State::Preparation
            | State::Snapshots(_)
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => return Err(PeerError::TooLate { phase: self.phase() }),
        }
        Ok(())
    }

    /// A selection has chosen. Whoever is not open to it, or not any more, is told too late.
    pub(super) fn select(&mut self, technique: Technique) -> Result<(), PeerError> {
        if self.spec.selection.is_none() || self.requested.is_some() {
            return Err(PeerError::TooLate { phase: self.phase() });
        }
        self.spec = std::mem::take(&mut self.spec).selected(technique);
        self.technique = Some(technique);
        // Without rounds there is no rule to meet.
        self.converged |= self.spec.live.is_none();
        Ok(())
    }

    /// The migration is requested: t0.
    pub(super) fn begin(&mut self, now: Time) -> Result<(), PeerError> {
        match &self.state {
            State::Waiting => self.reserve(),
            // What was begun ahead of the request goes on as if it had been begun by it.
            State::Preparation if self.requested.is_none() => {}
            State::Snapshots(_) => self.interrupt_snapshots(),
            State::Preparation
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => return Err(PeerError::TooLate { phase: self.phase() }),
        }
        if self.spec.selection.is_some() {
            // Without traffic nothing speaks against pre-copy.
            self.select(Technique::PreCopy)?;
        }
        self.requested = Some(now);
        self.advance(now);
        Ok(())
    }

    pub(super) fn reserve(&mut self) {
        let (memory, disk) = (self.memory, self.disk);
        let intermediaries = self.intermediaries.usable().to_vec();
        self.desk.order(Command::Reserve { memory, disk, intermediaries });
        self.state = State::Preparation;
    }

    pub(super) fn reserved(&mut self) {
        if matches!(self.state, State::Preparation) {
            let transfer = &self.spec.transfer;
            let (elide_zero_pages, channels) = (transfer.elide_zero_pages, transfer.channels);
            self.desk.order(Command::Prepare { elide_zero_pages, channels });
        }
    }

    pub(super) fn prepared(&mut self, now: Time) {
        if !matches!(self.state, State::Preparation) {
            return;
        }
        if let Some(limit) = self.spec.transfer.limit {
            self.desk.order(Command::SetRate { limit: Some(limit) });
        }
        if self.requested.is_none() {
            self.begin_snapshots();
        } else if self.spec.live.is_some() {
            self.begin_live_copy(now);
        } else {
            self.begin_switch(self.spec.push);
        }
    }
}
