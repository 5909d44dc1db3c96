//! Snapshots at a fixed checking interval (Fernando et al., UCC 2016).

use super::PolicyEntry;
use crate::strategy::SpecError;
use crate::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "fixed",
    origin: "Fernando et al., UCC 2016 (quick eviction)",
    summary: "every `interval`: when at least `threshold` pages are dirty, send up to `max_pages` of them, `min_spacing` apart",
};

/// Count dirty pages at a fixed interval; send when there are enough of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// Between two counts.
    pub interval: Span,
    /// Fewer dirty pages than this make no snapshot.
    pub threshold: u64,
    /// At most so many pages in one snapshot.
    pub max_pages: u64,
    /// Least time between the end of one snapshot and the beginning of the next.
    pub min_spacing: Span,
}

impl Fixed {
    pub(super) fn take(&self, dirty: Bytes, since: Span) -> Option<Bytes> {
        let enough = !dirty.is_zero() && dirty.pages() >= self.threshold && since >= self.min_spacing;
        enough.then(|| dirty.min(Bytes::from_pages(self.max_pages)))
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.interval == Span::ZERO {
            return Err(SpecError::OutOfRange { key: "interval", allowed: "above zero" });
        }
        // 2^40 pages are 4 PiB, more than any guest has.
        if self.max_pages == 0 || self.max_pages > 1 << 40 {
            return Err(SpecError::OutOfRange { key: "max_pages", allowed: "from 1 to 2^40" });
        }
        Ok(())
    }
}

impl Default for Fixed {
    /// One second, 2000 pages, any number, no spacing. The interval and the smallest published threshold; the rest is ours.
    fn default() -> Fixed {
        Fixed { interval: Span::from_secs(1), threshold: 2000, max_pages: 1 << 40, min_spacing: Span::ZERO }
    }
}
