//! The application's progress: samples of its step counter turned into a share of what it did before the migration.

use livemig_core::ledger::Observation;
use livemig_core::units::{Span, Time};

/// The baseline is what was done in at most this long before the observation began.
const BASELINE: Span = Span::from_secs(10);

/// Progress of one guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Samples before the observation began; the first of them is not older than the baseline is long.
    before: std::collections::VecDeque<(Time, u64)>,
    /// Steps per second before.
    baseline: Option<f64>,
    last: (Time, u64),
}

impl Work {
    /// The observation begins: what has been seen so far is the baseline.
    pub(super) fn begin(&mut self, at: Time) -> Option<Observation> {
        let (first, last) = (*self.before.front()?, *self.before.back()?);
        let (span, steps) = (last.0.since(first.0), last.1.saturating_sub(first.1));
        if span == Span::ZERO || steps == 0 {
            return None;
        }
        self.baseline = Some(steps as f64 / span.as_secs_f64());
        // What was done since the last sample is part of the first interval.
        self.last = (at, last.1 + (self.baseline? * at.since(last.0).as_secs_f64()) as u64);
        Some(Observation::WorkBegins(at))
    }

    /// The guest had made so many steps, wherever it runs.
    pub(super) fn sampled(&mut self, at: Time, steps: u64) -> Option<Observation> {
        let Some(baseline) = self.baseline else {
            self.before.push_back((at, steps));
            while self.before.front().is_some_and(|first| at.since(first.0) > BASELINE) {
                self.before.pop_front();
            }
            return None;
        };
        // Samples of two hosts may overtake each other: an older one says nothing new.
        if at <= self.last.0 {
            return None;
        }
        let done = steps.saturating_sub(self.last.1) as f64;
        let rate = done / at.since(self.last.0).as_secs_f64() / baseline;
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
            assert!(work.sampled(Time(ms * MS), if ms < 10_000 { 0 } else { (ms - 10_000) * 2 }).is_none());
        }
        assert_eq!(work.begin(Time(20_000 * MS)), Some(Observation::WorkBegins(Time(20_000 * MS))));
        let Some(Observation::Work { until, rate }) = work.sampled(Time(20_100 * MS), 20_100) else { panic!("an interval") };
        assert!(until == Time(20_100 * MS) && (rate - 0.5).abs() < 1e-3, "{rate}");
        assert!(work.sampled(Time(20_050 * MS), 20_050).is_none(), "an older sample");
        let Some(Observation::Work { rate, .. }) = work.sampled(Time(20_200 * MS), 20_050) else { panic!("an interval") };
        assert_eq!(rate, 0.0, "a counter that seems to go back stands still");
    }
}
