//! An interval that holds the impact of snapshots on the application at a stated share of the time.
//!
//! The quick-eviction paper names this as its key challenge and leaves the controller open; this one is ours. While a snapshot is
//! sent, it competes with the guest for the network and its pages are tracked anew; the rest of the time it costs nothing. The
//! share of the time in which snapshots are sent is therefore taken as the impact, and after a snapshot that took s the next
//! count waits s (1 - impact) / impact, within bounds. When nothing was worth a snapshot the interval grows by half.

use super::{Fixed, PolicyEntry};
use crate::strategy::SpecError;
use crate::units::Span;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "adaptive",
    origin: "ours; the open question of Fernando et al., UCC 2016",
    summary: "an interval between `interval` and `max_interval` such that snapshots are being sent for the share `impact` of the time",
};

/// A controller of the checking interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adaptive {
    /// What makes a snapshot; its interval is the least one.
    pub snapshots: Fixed,
    /// The largest interval.
    pub max_interval: Span,
    /// The share of the time in which snapshots may be sent.
    pub impact: f64,
    current: Span,
}

impl Default for Adaptive {
    /// At most 5 % of the time, at least once a minute; ours.
    fn default() -> Adaptive {
        Adaptive::new(Fixed::default(), Span::from_secs(60), 0.05)
    }
}

/// How much longer the next interval is when there was nothing to send.
const GROWTH: f64 = 1.5;

impl Adaptive {
    /// The controller with its bounds and its target.
    #[must_use]
    pub fn new(snapshots: Fixed, max_interval: Span, impact: f64) -> Adaptive {
        Adaptive { snapshots, max_interval, impact, current: snapshots.interval }
    }

    pub(super) fn sleep(&mut self, sending: Span) -> Span {
        let wanted = if sending == Span::ZERO {
            Span::from_secs_f64(self.current.as_secs_f64() * GROWTH)
        } else {
            Span::from_secs_f64(sending.as_secs_f64() * (1.0 - self.impact) / self.impact)
        };
        self.current = wanted.clamp(self.snapshots.interval, self.max_interval);
        self.current
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        if !(self.impact > 0.0 && self.impact < 1.0) {
            return Err(SpecError::OutOfRange { key: "impact", allowed: "above 0 and below 1" });
        }
        if self.max_interval < self.snapshots.interval {
            return Err(SpecError::OutOfRange { key: "max_interval", allowed: "at least `interval`" });
        }
        self.snapshots.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_sending_is_the_target_within_bounds() {
        let mut p = Adaptive::new(Fixed::default(), Span::from_secs(60), 0.1);
        assert_eq!(p.sleep(Span::from_secs(2)), Span::from_secs(18));
        assert_eq!(p.sleep(Span::from_millis(1)), Span::from_secs(1));
        assert_eq!(p.sleep(Span::from_secs(100)), Span::from_secs(60));
        assert_eq!(p.sleep(Span::from_secs(2)), Span::from_secs(18));
        assert_eq!(p.sleep(Span::ZERO), Span::from_secs(27));
    }
}
