//! The application's progress: samples of its step counter turned into a share of what it would do without the migration.
//!
//! That is what it did before. Where its load has changed since, a guest that had kept up with its load is expected to keep up with the
//! new one, and a guest that had not, to do what it did, or the new load if that is less.

use livemig_core::ledger::Observation;
use livemig_core::units::{Span, Time};

/// The baseline is what was done in at most this long before the observation began.
const BASELINE: Span = Span::from_secs(10);

/// A guest that does this share of its load keeps up with it.
const KEEPS_UP: f64 = 0.9;

/// Progress of one guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Samples before the observation began, all of one load; the first of them is not older than the baseline is long.
    before: std::collections::VecDeque<(Time, u64)>,
    /// Steps per second offered by the load of the last sample.
    offered: f64,
    baseline: Option<Baseline>,
    last: (Time, u64),
}

/// What was done before, and what was to be done, in steps per second.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    done: f64,
    offered: f64,
}

impl Baseline {
    /// Steps per second that are to be expected of a load.
    fn of(self, offered: f64) -> f64 {
        if offered == self.offered {
            self.done
        } else if self.done >= KEEPS_UP * self.offered {
            offered * (self.done / self.offered)
        } else {
            offered.min(self.done)
        }
    }
}

impl Work {
    /// The observation begins: what has been seen so far is the baseline.
    pub(super) fn begin(&mut self, at: Time) -> Option<Observation> {
        let (first, last) = (*self.before.front()?, *self.before.back()?);
        let (span, steps) = (last.0.since(first.0), last.1.saturating_sub(first.1));
        if span == Span::ZERO || steps == 0 {
            return None;
        }
        let done = steps as f64 / span.as_secs_f64();
        self.baseline = Some(Baseline { done, offered: self.offered });
        // What was done since the last sample is part of the first interval.
        self.last = (at, last.1 + (done * at.since(last.0).as_secs_f64()) as u64);
        Some(Observation::WorkBegins(at))
    }

    /// The guest had made so many steps, wherever it runs, and its load offers so many per second. Samples of two hosts may overtake each
    /// other: an older one says nothing new.
    pub(super) fn sampled(&mut self, at: Time, (steps, offered): (u64, f64)) -> Option<Observation> {
        let Some(baseline) = self.baseline else {
            if self.before.back().is_some_and(|last| at <= last.0) {
                return None;
            }
            if std::mem::replace(&mut self.offered, offered) != offered {
                self.before.clear();
            }
            self.before.push_back((at, steps));
            while self.before.front().is_some_and(|first| at.since(first.0) > BASELINE) {
                self.before.pop_front();
            }
            return None;
        };
        if at <= self.last.0 {
            return None;
        }
        let done = steps.saturating_sub(self.last.1) as f64;
        let rate = done / at.since(self.last.0).as_secs_f64() / baseline.of(offered);
        self.last = (at, self.last.1.max(steps));
        Some(Observation::Work { until: at, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn rates_are_shares_of_what_was_done_before() {
        let mut work = Work::default();
        assert!(work.begin(Time(0)).is_none(), "nothing has been seen");
        // 2000 steps a second for 20 s, but idle for the first 10, which the baseline has forgotten.
        for ms in 0..=20_000u64 {
            assert!(work.sampled(Time(ms * MS), (if ms < 10_000 { 0 } else { (ms - 10_000) * 2 }, 2000.0)).is_none());
        }
        assert_eq!(work.begin(Time(20_000 * MS)), Some(Observation::WorkBegins(Time(20_000 * MS))));
        let Some(Observation::Work { until, rate }) = work.sampled(Time(20_100 * MS), (20_100, 2000.0)) else {
            panic!("an interval")
        };
        assert!(until == Time(20_100 * MS) && (rate - 0.5).abs() < 1e-3, "{rate}");
        assert!(work.sampled(Time(20_050 * MS), (20_050, 2000.0)).is_none(), "an older sample");
        let Some(Observation::Work { rate, .. }) = work.sampled(Time(20_200 * MS), (20_050, 2000.0)) else { panic!("an interval") };
        assert_eq!(rate, 0.0, "a counter that seems to go back stands still");
    }

    /// The rate seen when a guest that did `done` of `offered` steps per second does `then` of `now`.
    fn rate_after(done: u64, offered: f64, then: u64, now: f64) -> f64 {
        let mut work = Work::default();
        // Before its load was this it was another, of which nothing counts.
        work.sampled(Time(0), (0, 5.0));
        for s in 1..=10 {
            work.sampled(Time(s * 1000 * MS), (s * done, offered));
        }
        work.begin(Time(10_000 * MS)).expect("it was seen");
        let Some(Observation::Work { rate, .. }) = work.sampled(Time(11_000 * MS), (10 * done + then, now)) else {
            panic!("a rate")
        };
        rate
    }

    #[test]
    fn a_change_of_load_is_no_work_lost() {
        let near = |rate: f64, expected: f64| assert!((rate - expected).abs() < 1e-9, "{rate} where {expected} is due");
        near(rate_after(2000, 2000.0, 2000, 2000.0), 1.0);
        near(rate_after(2000, 2000.0, 8000, 8000.0), 1.0);
        near(rate_after(1900, 2000.0, 3800, 8000.0), 0.5);
        // One that did what it could does no more of a greater load, and all of a smaller one.
        near(rate_after(5000, 1e9, 5000, 1e12), 1.0);
        near(rate_after(5000, 1e9, 1000, 1000.0), 1.0);
    }
}
