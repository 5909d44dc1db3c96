//! Throttling: slowing the vCPUs down so that pre-copy converges.

mod auto_converge;

pub use auto_converge::AutoConverge;

use super::PolicyEntry;
use crate::policy::stop::Round;
use crate::strategy::SpecError;
use crate::units::Share;

/// Every throttling policy, as listed.
pub const THROTTLE_POLICIES: [PolicyEntry; 1] = [auto_converge::ENTRY];

/// A throttling policy with its parameters and what it remembers.
#[derive(Clone, Debug, PartialEq)]
pub enum ThrottlePolicy {
    /// QEMU's.
    AutoConverge(AutoConverge),
}

impl ThrottlePolicy {
    /// The share of the time that the vCPUs may run from now on, when a round has ended; `None` leaves it as it is.
    pub fn round_ended(&mut self, round: &Round) -> Option<Share> {
        match self {
            ThrottlePolicy::AutoConverge(p) => p.round_ended(round),
        }
    }

    /// Checks the ranges of the parameters.
    ///
    /// # Errors
    /// The first parameter that is out of range.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            ThrottlePolicy::AutoConverge(p) => p.check(),
        }
    }
}
