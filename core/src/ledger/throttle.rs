//! Throttling: the integral of (1 - vCPU share) while the guest runs at the source.
//!
//! A guest that stands still is not throttled: that time is downtime. At the destination it runs unthrottled.

use crate::units::{Share, Span, Time};

#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    share: Share,
    since: Time,
    at_source: bool,
    lost_ns: f64,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle { share: Share::FULL, since: Time::ZERO, at_source: true, lost_ns: 0.0 }
    }
}

impl Throttle {
    /// The vCPU share is `share` from `at` on.
    pub(super) fn set(&mut self, at: Time, share: Share) {
        self.advance(at);
        self.share = share;
    }

    /// The guest runs at the source from `at` on, or no longer does.
    pub(super) fn runs_at_source(&mut self, at: Time, runs: bool) {
        self.advance(at);
        self.at_source = runs;
    }

    pub(super) fn advance(&mut self, to: Time) {
        if self.at_source {
            self.lost_ns += to.since(self.since).0 as f64 * (1.0 - self.share.get());
        }
        self.since = self.since.max(to);
    }

    pub(super) fn lost(&self) -> Span {
        Span(self.lost_ns.round() as u64)
    }
}
