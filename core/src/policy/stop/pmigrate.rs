//! `PMigrate`'s rule: the rest of memory and disk against a downtime limit, a growing round, and two caps.

use super::{PolicyEntry, Round, Totals, Verdict, within};
use crate::strategy::SpecError;
use crate::units::Span;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "pmigrate",
    origin: "Song et al., VEE 2013",
    summary: "stop when the rest takes less than `downtime_limit`, when a round sent more than the last, after `max_rounds` or `max_factor` x size",
};

/// Stop when the rest takes less than the downtime limit; capped after a number of rounds, a multiple of the size, or a round
/// that sent more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PMigrate {
    /// How long the rest may take.
    pub downtime_limit: Span,
    /// Capped after so many rounds.
    pub max_rounds: u32,
    /// Capped when more than this multiple of the size has been sent.
    pub max_factor: f64,
    previous: Option<u64>,
}

impl PMigrate {
    /// The rule with its parameters.
    #[must_use]
    pub fn new(downtime_limit: Span, max_rounds: u32, max_factor: f64) -> PMigrate {
        PMigrate { downtime_limit, max_rounds, max_factor, previous: None }
    }

    pub(super) fn round_ended(&mut self, round: &Round, totals: Totals) -> Verdict {
        let grew = self.previous.is_some_and(|p| round.wire.0 > p);
        self.previous = Some(round.wire.0);
        if round.dirty < within(round.bandwidth(), self.downtime_limit) || round.dirty.is_zero() {
            Verdict::Converged
        } else if grew || round.index + 1 >= self.max_rounds || totals.sent.0 as f64 > self.max_factor * totals.size.0 as f64 {
            Verdict::Capped
        } else {
            Verdict::Continue
        }
    }

    pub(super) fn check(self) -> Result<(), SpecError> {
        if self.max_rounds == 0 {
            return Err(SpecError::OutOfRange { key: "max_rounds", allowed: "at least 1" });
        }
        if self.max_factor.is_nan() || self.max_factor <= 0.0 {
            return Err(SpecError::OutOfRange { key: "max_factor", allowed: "above zero" });
        }
        Ok(())
    }
}

impl Default for PMigrate {
    /// The published source's constants: 30 rounds, 3 times the size; 300 ms is ours.
    fn default() -> PMigrate {
        PMigrate::new(Span::from_millis(300), 30, 3.0)
    }
}
