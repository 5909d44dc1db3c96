//! Xen's rule: rounds, bytes and a small rest (Clark et al., NSDI 2005; `xc_domain_save`).

use super::{PolicyEntry, Round, Totals, Verdict};
use crate::strategy::SpecError;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "clark",
    origin: "Clark et al., NSDI 2005 (Xen)",
    summary: "stop below `min_pages`, after `max_rounds`, after `max_factor` x memory, or when a round sent more than the one before",
};

/// Stop when few pages are left; give up on convergence after a number of rounds, a multiple of memory, or a round that had to
/// send more than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clark {
    /// Converged when fewer pages than this are dirty.
    pub min_pages: u64,
    /// Capped after so many rounds.
    pub max_rounds: u32,
    /// Capped when more than this multiple of memory has been sent.
    pub max_factor: f64,
    /// Capped when a round sent more than the one before.
    pub stop_when_growing: bool,
    previous: Option<u64>,
}

impl Clark {
    /// The rule with its parameters.
    #[must_use]
    pub fn new(min_pages: u64, max_rounds: u32, max_factor: f64, stop_when_growing: bool) -> Clark {
        Clark { min_pages, max_rounds, max_factor, stop_when_growing, previous: None }
    }

    pub(super) fn round_ended(&mut self, round: &Round, totals: Totals) -> Verdict {
        let grew = self.stop_when_growing && self.previous.is_some_and(|p| round.wire.0 > p);
        self.previous = Some(round.wire.0);
        if round.dirty.pages() < self.min_pages {
            Verdict::Converged
        } else if round.index + 1 >= self.max_rounds || totals.sent.0 as f64 > self.max_factor * totals.size.0 as f64 || grew {
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

impl Default for Clark {
    /// Xen's constants: 50 pages, 29 rounds, 3 times the memory.
    fn default() -> Clark {
        Clark::new(50, 29, 3.0, true)
    }
}
