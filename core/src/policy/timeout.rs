//! Completion timeouts: a migration that takes too long for its size is ended (`KubeVirt`, OpenStack nova).

use super::PolicyEntry;
use crate::strategy::SpecError;
use crate::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

/// The policy, as listed.
pub const ENTRY: PolicyEntry = PolicyEntry {
    name: "completion-timeout",
    origin: "KubeVirt completionTimeoutPerGiB; OpenStack nova live_migration_completion_timeout",
    summary: "after `per_gib` x memory before the switch: abort, post-copy, or pause and finish",
};

/// What is done when the time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnTimeout {
    /// Give the migration up.
    Abort,
    /// Switch to post-copy.
    PostCopy,
    /// Stop the guest and send the rest.
    Pause,
}

/// A time limit for everything before the switch, in proportion to the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionTimeout {
    /// Time per GiB of memory.
    pub per_gib: Span,
    /// What is done when it is up.
    pub then: OnTimeout,
}

impl CompletionTimeout {
    /// The time limit for a guest with `memory`.
    #[must_use]
    pub fn limit(&self, memory: Bytes) -> Span {
        Span::from_secs_f64(self.per_gib.as_secs_f64() * memory.0 as f64 / Bytes::from_gib(1).0 as f64)
    }

    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if self.per_gib == Span::ZERO { Err(SpecError::OutOfRange { key: "per_gib", allowed: "above zero" }) } else { Ok(()) }
    }
}
