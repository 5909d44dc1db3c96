//! QEMU's dirty limit: hold a guest that dirties too much to a dirty rate.
//!
//! QEMU gives every vCPU the same limit and lets a controller lengthen its sleeps each time the vCPU's dirty ring is full, until
//! its rate is the limit; once on, it stays on. Here the guest's share is set to where that controller settles: the limit over
//! the dirty rate at full speed, which is measured again in every period. \[ours\]

use super::strikes::Strikes;
use super::{PolicyEntry, Round};
use crate::strategy::SpecError;
use crate::units::{Rate, Share};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "dirty-limit",
    origin: "QEMU system/dirtylimit.c, migration/ram.c (migration_dirty_limit_guest)",
    summary: "when more than `trigger` of what was sent is dirty again for the second time: hold the guest to a dirty rate of `limit` from then on, throttling it by at most `max`",
};

/// Throttling towards a dirty rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirtyLimit {
    /// The dirty rate that the whole guest is held to: QEMU's `vcpu-dirty-limit` times the number of vCPUs.
    pub limit: Rate,
    /// Share of what a round sent that must be dirty at its end to count against the guest.
    pub trigger: f64,
    /// The highest throttle.
    pub max: f64,
    strikes: Strikes,
    /// The share in force, once the limit is.
    share: Option<f64>,
}

impl DirtyLimit {
    /// The policy with its parameters; the last two are shares from 0 to 1.
    #[must_use]
    pub fn new(limit: Rate, trigger: f64, max: f64) -> DirtyLimit {
        DirtyLimit { limit, trigger, max, strikes: Strikes::default(), share: None }
    }

    pub(super) fn round_ended(&mut self, round: &Round) -> Option<Share> {
        let (period, step) = self.strikes.round_ended(round, self.trigger)?;
        if !step && self.share.is_none() {
            return None;
        }
        let full_speed = period.dirty as f64 / (period.length.as_secs_f64() * self.share.unwrap_or(1.0));
        let share = if full_speed > self.limit.0 { (self.limit.0 / full_speed).max(1.0 - self.max) } else { 1.0 };
        self.share = Some(share);
        Some(Share::new(share))
    }

    pub(super) fn check(self) -> Result<(), SpecError> {
        if self.limit.0 <= 0.0 {
            return Err(SpecError::OutOfRange { key: "limit", allowed: "above zero" });
        }
        for (key, value) in [("trigger", self.trigger), ("max", self.max)] {
            if !(0.0..1.0).contains(&value) {
                return Err(SpecError::OutOfRange { key, allowed: "at least 0 and below 1" });
            }
        }
        Ok(())
    }
}

impl Default for DirtyLimit {
    /// QEMU's defaults for one vCPU: 1 MB/s (2^20 B/s), from 50 % on, 99 % at most.
    fn default() -> DirtyLimit {
        DirtyLimit::new(Rate(1_048_576.0), 0.5, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, Span, Time};

    fn round(seconds: u64, wire: u64, dirty: u64) -> Round {
        let started = Time::ZERO;
        let (wire, dirty) = (Bytes(wire), Bytes(dirty));
        Round { index: 0, started, ended: started + Span::from_secs(seconds), wire, skipped: Bytes::ZERO, dirty }
    }

    #[test]
    fn a_guest_that_dirties_too_much_twice_is_held_to_the_limit_from_then_on() {
        let mut policy = DirtyLimit::new(Rate(10e6), 0.5, 0.99);
        assert_eq!(policy.round_ended(&round(10, 1_000_000_000, 600_000_000)), None);
        assert_eq!(policy.round_ended(&round(5, 500_000_000, 200_000_000)), None, "that was not too much");
        // 80 MB/s at full speed.
        assert_eq!(policy.round_ended(&round(10, 1_000_000_000, 800_000_000)), Some(Share::new(0.125)));
        // It is at the limit now, and stays there.
        assert_eq!(policy.round_ended(&round(8, 800_000_000, 80_000_000)), Some(Share::new(0.125)));
        // At a quarter of the limit under an eighth of the time it would do 20 MB/s at full speed.
        assert_eq!(policy.round_ended(&round(8, 800_000_000, 20_000_000)), Some(Share::new(0.5)));
        assert_eq!(policy.round_ended(&round(8, 800_000_000, 0)), Some(Share::FULL));
    }

    #[test]
    fn the_throttle_has_a_limit() {
        let mut policy = DirtyLimit::new(Rate(1.0), 0.5, 0.75);
        policy.round_ended(&round(1, 100, 100));
        assert_eq!(policy.round_ended(&round(1, 100, 100)), Some(Share::new(0.25)));
    }
}
