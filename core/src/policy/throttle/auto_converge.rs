//! QEMU's auto-converge: throttle in steps while the guest dirties more than half of what is sent.

use super::strikes::Strikes;
use super::{PolicyEntry, Round};
use crate::strategy::SpecError;
use crate::units::Share;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "auto-converge",
    origin: "QEMU migration/ram.c (mig_throttle_guest_down)",
    summary: "when more than `trigger` of what was sent is dirty again, twice in a row: throttle by `initial`, then `increment` more, up to `max`",
};

/// Throttling in steps. A throttle of p leaves the guest a share of 1 - p of the time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoConverge {
    /// Share of what a round sent that must be dirty at its end to count against the guest.
    pub trigger: f64,
    /// The first throttle.
    pub initial: f64,
    /// What each further step adds.
    pub increment: f64,
    /// The highest throttle.
    pub max: f64,
    strikes: Strikes,
    throttle: f64,
}

impl AutoConverge {
    /// The policy with its parameters, each a share from 0 to 1.
    #[must_use]
    pub fn new(trigger: f64, initial: f64, increment: f64, max: f64) -> AutoConverge {
        AutoConverge { trigger, initial, increment, max, strikes: Strikes::default(), throttle: 0.0 }
    }

    pub(super) fn round_ended(&mut self, round: &Round) -> Option<Share> {
        let (_, step) = self.strikes.round_ended(round, self.trigger)?;
        if !step {
            return None;
        }
        let throttle = if self.throttle == 0.0 { self.initial } else { self.throttle + self.increment };
        self.throttle = throttle.min(self.max);
        Some(Share::new(1.0 - self.throttle))
    }

    pub(super) fn check(self) -> Result<(), SpecError> {
        for (key, value) in [("trigger", self.trigger), ("initial", self.initial), ("increment", self.increment), ("max", self.max)]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(SpecError::OutOfRange { key, allowed: "at least 0 and below 1" });
            }
        }
        Ok(())
    }
}

impl Default for AutoConverge {
    /// QEMU's defaults: 50 %, then 20 %, 10 % more each time, 99 % at most.
    fn default() -> AutoConverge {
        AutoConverge::new(0.5, 0.2, 0.1, 0.99)
    }
}
