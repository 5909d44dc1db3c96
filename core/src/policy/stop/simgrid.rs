//! The rule of `SimGrid`'s live-migration plugin, which is also that of the geometric series (Liu et al., HPDC 2011).

use super::{PolicyEntry, Round, Verdict, within};
use crate::strategy::SpecError;
use crate::units::Span;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "simgrid",
    origin: "SimGrid live_migration plugin; Liu et al., HPDC 2011",
    summary: "stop at the end of a round when the rest takes at most `downtime_limit` at that round's bandwidth; no cap",
};

/// Stop when dirty <= bandwidth of the round x downtime limit. There is no cap on rounds: a migration that does not converge
/// goes on until something else ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimGrid {
    /// How long the rest may take.
    pub downtime_limit: Span,
}

impl SimGrid {
    pub(super) fn round_ended(self, round: &Round) -> Verdict {
        if round.dirty <= within(round.bandwidth(), self.downtime_limit) { Verdict::Converged } else { Verdict::Continue }
    }

    pub(super) fn check(self) -> Result<(), SpecError> {
        Ok(())
    }
}

impl Default for SimGrid {
    /// `SimGrid`'s constant, 30 ms.
    fn default() -> SimGrid {
        SimGrid { downtime_limit: Span::from_millis(30) }
    }
}
