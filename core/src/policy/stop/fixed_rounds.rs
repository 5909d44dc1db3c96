//! A fixed number of rounds, whatever they achieve: the rule of hybrid migration, of comparisons and of parity tests.

use super::{PolicyEntry, Round, Verdict};
use crate::strategy::SpecError;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "fixed-rounds",
    origin: "Hines, Deshpande and Gopalan, VEE 2009 (hybrid)",
    summary: "stop after `rounds` rounds of live copy",
};

/// Stop after a number of rounds of live copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedRounds {
    /// How many; the first copy of all memory counts as one.
    pub rounds: u32,
}

impl FixedRounds {
    pub(super) fn round_ended(self, round: &Round) -> Verdict {
        if round.index + 1 >= self.rounds { Verdict::Converged } else { Verdict::Continue }
    }

    pub(super) fn check(self) -> Result<(), SpecError> {
        if self.rounds == 0 { Err(SpecError::OutOfRange { key: "rounds", allowed: "at least 1" }) } else { Ok(()) }
    }
}
