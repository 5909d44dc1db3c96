//! Throttling: slowing the vCPUs down so that pre-copy converges.
//!
//! A policy sees every round of live copy at its end and may set the share of the time that the vCPUs run from then on. It has
//! set every share itself and remembers the last one; the conductor gives the guest its full speed back after the switch, or
//! when the migration is given up.

mod auto_converge;
mod cpu_scheduling;
mod dirty_limit;
mod strikes;

pub use auto_converge::AutoConverge;
pub use cpu_scheduling::{CpuScheduling, Start};
pub use dirty_limit::DirtyLimit;

use super::PolicyEntry;
use crate::policy::stop::{Round, StopRule};
use crate::strategy::SpecError;
use crate::units::{Bytes, Share};
use serde::{Deserialize, Serialize};

/// Every throttling policy, as listed.
pub const THROTTLE_POLICIES: [PolicyEntry; 3] = [cpu_scheduling::ENTRY, auto_converge::ENTRY, dirty_limit::ENTRY];

/// A throttling policy with its parameters and what it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ThrottlePolicy {
    /// From the sending rate, the dirty rate and the desired rest.
    CpuScheduling(CpuScheduling),
    /// QEMU's, in steps.
    AutoConverge(AutoConverge),
    /// QEMU's, towards a dirty rate.
    DirtyLimit(DirtyLimit),
}

/// What a throttling policy sees at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The round.
    pub round: Round,
    /// Bytes of pages that are not yet sent, beside the dirty ones: none under rules that let a round be sent to its end.
    pub pending: Bytes,
    /// Size of the guest's memory, and of its disk if that moves with it.
    pub size: Bytes,
    /// How little may be left when the stop rule lets the guest be stopped; `None` when it does not look at that.
    pub goal: Option<Bytes>,
}

impl Progress {
    /// All that is left to be sent.
    #[must_use]
    pub fn left(&self) -> Bytes {
        self.pending + self.round.dirty
    }
}

impl ThrottlePolicy {
    /// The share of the time that the vCPUs may run from now on, when a round has ended; `None` leaves it as it is.
    pub fn round_ended(&mut self, progress: &Progress) -> Option<Share> {
        match self {
            ThrottlePolicy::CpuScheduling(p) => p.round_ended(progress),
            ThrottlePolicy::AutoConverge(p) => p.round_ended(&progress.round),
            ThrottlePolicy::DirtyLimit(p) => p.round_ended(&progress.round),
        }
    }

    /// Checks the ranges of the parameters, and that the policy can work beside this stop rule.
    ///
    /// # Errors
    /// The first parameter that is out of range.
    pub fn check(&self, stop: &StopRule) -> Result<(), SpecError> {
        match self {
            ThrottlePolicy::CpuScheduling(p) => p.check(stop),
            ThrottlePolicy::AutoConverge(p) => p.check(),
            ThrottlePolicy::DirtyLimit(p) => p.check(),
        }
    }
}
