//! Proactive snapshots: how often is memory sent before anybody has asked for a migration, and how much of it?

mod adaptive;
mod fixed;

pub use adaptive::Adaptive;
pub use fixed::Fixed;

use super::PolicyEntry;
use crate::strategy::SpecError;
use crate::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

/// Every snapshot policy, as listed.
pub const SNAPSHOT_POLICIES: [PolicyEntry; 2] = [fixed::ENTRY, adaptive::ENTRY];

/// A snapshot policy with its parameters and what it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SnapshotPolicy {
    /// A fixed checking interval.
    Fixed(Fixed),
    /// An interval that holds a stated impact.
    Adaptive(Adaptive),
}

impl SnapshotPolicy {
    /// How long to wait until dirty pages are counted again, after a snapshot that took `sending`, or after a count that asked for no
    /// snapshot (`sending` is zero).
    pub fn sleep(&mut self, sending: Span) -> Span {
        match self {
            SnapshotPolicy::Fixed(p) => p.interval,
            SnapshotPolicy::Adaptive(p) => p.sleep(sending),
        }
    }

    /// Whether `dirty` bytes are worth a snapshot, `since` after the last one, and if so how many of them are sent; the rest waits for the
    /// next snapshot.
    #[must_use]
    pub fn take(&self, dirty: Bytes, since: Span) -> Option<Bytes> {
        let fixed = match self {
            SnapshotPolicy::Fixed(p) => p,
            SnapshotPolicy::Adaptive(p) => &p.snapshots,
        };
        fixed.take(dirty, since)
    }

    /// Checks the ranges of the parameters.
    ///
    /// # Errors
    /// The first parameter that is out of range.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            SnapshotPolicy::Fixed(p) => p.check(),
            SnapshotPolicy::Adaptive(p) => p.check(),
        }
    }
}
