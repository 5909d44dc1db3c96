//! QEMU's rule: a downtime limit, the bandwidth of a short window, and an exact count before it stops.

use super::{PolicyEntry, Verdict, Watching, within};
use crate::strategy::SpecError;
use crate::units::{Bytes, Rate, Span};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "qemu",
    origin: "QEMU migration.c",
    summary: "every 100 ms: stop when what remains, counted exactly, takes at most `downtime_limit` at the current bandwidth; no cap",
};

/// QEMU measures its bandwidth over windows of this length (`BUFFER_DELAY`).
const WINDOW: Span = Span::from_millis(100);

/// Stop when remaining <= bandwidth x downtime limit. Pages written during a pass are counted only when the estimate, which
/// ignores them, has come below the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// How long the guest may stand still for the rest of its memory.
    pub downtime_limit: Span,
}

impl Qemu {
    pub(super) fn judge(self, remaining: Bytes, rate: Rate) -> Verdict {
        if remaining <= within(rate, self.downtime_limit) { Verdict::Converged } else { Verdict::Continue }
    }

    pub(super) fn watching(self) -> Watching {
        Watching { every: WINDOW, below: Some(self.downtime_limit), stall: None }
    }

    pub(super) fn check(self) -> Result<(), SpecError> {
        if self.downtime_limit == Span::ZERO {
            return Err(SpecError::OutOfRange { key: "downtime_limit", allowed: "above zero" });
        }
        Ok(())
    }
}

impl Default for Qemu {
    /// QEMU's default downtime limit, 300 ms.
    fn default() -> Qemu {
        Qemu { downtime_limit: Span::from_millis(300) }
    }
}
