//! How many distinct pages a guest dirties.
//!
//! The argument is *work time*: the time that the guest would have needed at full speed. What slows a guest down (throttling,
//! tracking faults, missing pages) is for the caller to turn into work time.
//!
//! - Random writes at rate r over W pages, of which d are dirty: d + (W - d)(1 - exp(-r t / W)), the expectation of the
//!   number of distinct pages (each page is missed by each write with probability 1 - 1/W).
//! - A sweep at rate r: min(d + r t, W).
//! - A measured curve D: D(D^-1(d) + t).

use crate::world::{DirtyCurve, Pattern};
use livemig_core::units::PAGE_SIZE;

/// Bytes dirty after `work_time` seconds of writes at `writes` pages per second over `size` bytes, of which `dirty` bytes were dirty.
#[must_use]
pub fn dirty_after(pattern: &Pattern, size: f64, writes: f64, dirty: f64, work_time: f64) -> f64 {
    let written = writes * PAGE_SIZE as f64 * work_time;
    if size <= 0.0 || work_time <= 0.0 {
        return dirty;
    }
    match pattern {
        Pattern::Random if written > 0.0 => dirty - (size - dirty) * libm::expm1(-written / size),
        Pattern::Sweep => (dirty + written).min(size),
        Pattern::Curve(curve) => curve.at(curve.time_of(dirty) + work_time).min(size),
        Pattern::Random => dirty,
    }
}

/// The rate of [`dirty_after`] in bytes per second of work time, at `dirty`.
#[must_use]
pub fn dirtying_rate(pattern: &Pattern, size: f64, writes: f64, dirty: f64) -> f64 {
    let offered = writes * PAGE_SIZE as f64;
    match pattern {
        _ if dirty >= size => 0.0,
        Pattern::Random => offered * (1.0 - dirty / size),
        Pattern::Sweep => offered,
        Pattern::Curve(curve) => curve.slope_at(curve.time_of(dirty)),
    }
}

impl DirtyCurve {
    /// Distinct bytes after `t` seconds, linear between the points.
    #[must_use]
    pub fn at(&self, t: f64) -> f64 {
        let after = self.points.partition_point(|p| p.0 <= t);
        match (after.checked_sub(1).map(|i| self.points[i]), self.points.get(after)) {
            (Some((t0, d0)), Some(&(t1, d1))) => d0 + (d1 - d0) * (t - t0) / (t1 - t0),
            (Some((_, last)), None) => last,
            (None, _) => 0.0,
        }
    }

    /// The first time at which the curve reaches `bytes`; its last time when it never does.
    #[must_use]
    pub fn time_of(&self, bytes: f64) -> f64 {
        let after = self.points.partition_point(|p| p.1 < bytes);
        match (after.checked_sub(1).map(|i| self.points[i]), self.points.get(after)) {
            (Some((t0, d0)), Some(&(t1, d1))) => t0 + (t1 - t0) * (bytes - d0) / (d1 - d0),
            (Some((last, _)), None) => last,
            (None, _) => 0.0,
        }
    }

    /// Bytes per second at time `t`.
    #[must_use]
    pub fn slope_at(&self, t: f64) -> f64 {
        let after = self.points.partition_point(|p| p.0 <= t);
        match (after.checked_sub(1).map(|i| self.points[i]), self.points.get(after)) {
            (Some((t0, d0)), Some(&(t1, d1))) => (d1 - d0) / (t1 - t0),
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn random_writes_follow_the_expectation_of_distinct_pages() {
        let size = 1000.0 * PAGE_SIZE as f64;
        let d = dirty_after(&Pattern::Random, size, 100.0, 0.0, 10.0);
        // (1 - 1/W)^n tends to exp(-n/W); here n = W.
        assert!((d / size - (1.0 - libm::exp(-1.0))).abs() < 1e-12);
        let twice = dirty_after(&Pattern::Random, size, 100.0, dirty_after(&Pattern::Random, size, 100.0, 0.0, 5.0), 5.0);
        assert!((d - twice).abs() < 1e-6 * d);
    }

    #[test]
    fn a_sweep_is_linear_up_to_its_working_set() {
        let page = PAGE_SIZE as f64;
        assert_eq!(dirty_after(&Pattern::Sweep, 100.0 * page, 10.0, 0.0, 3.0), 30.0 * page);
        assert_eq!(dirty_after(&Pattern::Sweep, 100.0 * page, 10.0, 0.0, 30.0), 100.0 * page);
    }

    #[test]
    fn a_curve_goes_on_where_it_was() {
        let curve = Arc::new(DirtyCurve { points: vec![(0.0, 0.0), (1.0, 1000.0), (3.0, 2000.0)] });
        let p = Pattern::Curve(curve);
        assert_eq!(dirty_after(&p, 1e9, 0.0, 0.0, 2.0), 1500.0);
        assert_eq!(dirty_after(&p, 1e9, 0.0, 500.0, 1.5), 1500.0);
        assert_eq!(dirty_after(&p, 1e9, 0.0, 1500.0, 100.0), 2000.0);
        assert_eq!(dirtying_rate(&p, 1e9, 0.0, 1500.0), 500.0);
    }
}
