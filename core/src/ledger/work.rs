//! The application's progress: work lost, and the perceived downtime.
//!
//! The driver reports average rates over successive intervals; within an interval work grows linearly. The *windowed rate* at
//! a moment is the work of the second before it. It is piecewise linear in time, with corners only where an interval ends or
//! leaves the window, so that the moment at which it comes back to 90 % is computed, not sampled. Only the intervals of the
//! last second are kept.

use crate::units::{Span, Time};
use std::collections::VecDeque;

/// Length of the sliding window.
const WINDOW: Span = Span::from_secs(1);
/// The share of its baseline at which an application counts as recovered.
const RECOVERED: f64 = 0.9;
/// Observation must go on for this long after completion, or nothing is said of recovery.
const AFTERWARDS: Span = Span::from_secs(10);
/// The windowed rate is a running sum of floats; an application at exactly 90 % must not fall below by their rounding.
const TOLERANCE: f64 = 1e-9;
/// The window in nanoseconds of work at the baseline rate.
const FULL_NS: f64 = WINDOW.0 as f64;
/// What the windowed work must reach, in the same unit.
const ENOUGH_NS: f64 = RECOVERED * FULL_NS;
/// Below this it is too low.
const LOW_NS: f64 = (RECOVERED - TOLERANCE) * FULL_NS;
/// The rounding of a sum as large as the window, in nanoseconds, and then some.
const ROUNDING_NS: f64 = 1e-3;
/// From so many intervals in the window on, short ones are averaged, to bound memory; no work is lost.
const MANY_PIECES: usize = 1024;
/// What is averaged is no longer than this. Two neighbours are then longer together, so that there are at most 3072 in all.
const SHORT: Span = Span(WINDOW.0 / 1024);

/// The progress of one application.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    begun: Option<Time>,
    until: Time,
    lost_ns: f64,
    /// The last second, oldest first: how long, at which rate. The lengths add up to [`WINDOW`].
    window: VecDeque<(Span, f64)>,
    /// Work done in the window.
    done_ns: f64,
    /// The last moment up to which the windowed rate was too low.
    low_until: Time,
    /// Whether it is.
    low: bool,
}

impl Work {
    /// The application is observed from now on. Before, it worked at its baseline.
    pub(super) fn begin(&mut self, at: Time) {
        if self.begun.is_none() {
            self.begun = Some(at);
            self.until = at;
            self.window.push_back((WINDOW, 1.0));
            self.done_ns = FULL_NS;
        }
    }

    /// The interval since the last one ends at `until`. Returns when it began, unless it is empty.
    ///
    /// # Panics
    /// When nothing was begun, or the rate is negative or not finite: defects of the driver.
    pub(super) fn interval(&mut self, until: Time, rate: f64) -> Option<Time> {
        assert!(self.begun.is_some(), "work is reported before its observation begins");
        assert!(rate.is_finite() && rate >= 0.0, "the application's rate is {rate}");
        let from = self.until;
        let span = until.since(from);
        if span == Span::ZERO {
            return None;
        }
        self.lost_ns += span.0 as f64 * (1.0 - rate);
        self.slide(span, rate);
        self.until = until;
        Some(from)
    }

    /// The integral of (1 - rate). Work above the baseline makes up for work below it, but what is reported is not negative.
    pub(super) fn lost(&self) -> Span {
        Span(self.lost_ns.round() as u64)
    }

    /// How long the application was observed.
    pub(super) fn observed(&self) -> Span {
        self.begun.map_or(Span::ZERO, |from| self.until.since(from))
    }

    /// From `paused` until the windowed rate is, and stays, high enough; `None` when it was not when the observation ended, or
    /// that was too soon after `completed`.
    pub(super) fn perceived_downtime(&self, paused: Time, completed: Time) -> Option<Span> {
        self.begun?;
        let long_enough = self.until >= completed + AFTERWARDS;
        (long_enough && !self.low).then(|| self.low_until.since(paused))
    }

    /// Moves the window over an interval of constant rate, one piece of what it leaves behind after the other.
    fn slide(&mut self, span: Span, rate: f64) {
        let (mut at, end) = (self.until, self.until + span);
        while at < end {
            let &(length, old) = self.window.front().expect("the window is never empty");
            if self.window.len() == 1 && old == rate {
                self.done_ns = rate * FULL_NS;
                self.judge(at, end, self.done_ns, 0.0);
                return;
            }
            let piece = length.min(end - at);
            let before = self.done_ns;
            self.done_ns += piece.0 as f64 * (rate - old);
            self.judge(at, at + piece, before, rate - old);
            self.leave_behind(piece);
            self.append(piece, rate);
            at = at + piece;
        }
    }

    /// Between `from` and `to` the work in the window grows from `before` by `slope` per nanosecond to what it is now.
    fn judge(&mut self, from: Time, to: Time, before: f64, slope: f64) {
        let was_low = self.low || before < LOW_NS;
        self.low = self.done_ns < LOW_NS;
        if self.low {
            self.low_until = to;
        } else if was_low {
            let crossing = ((ENOUGH_NS - before) / slope - ROUNDING_NS).ceil() as u64;
            self.low_until = (from + Span(crossing)).min(to);
        }
    }

    fn leave_behind(&mut self, piece: Span) {
        let front = self.window.front_mut().expect("the window is never empty");
        front.0 = Span(front.0.0 - piece.0);
        if front.0 == Span::ZERO {
            self.window.pop_front();
        }
    }

    fn append(&mut self, piece: Span, rate: f64) {
        let many = self.window.len() >= MANY_PIECES;
        match self.window.back_mut() {
            Some(back) if back.1 == rate => back.0 += piece,
            Some(back) if many && back.0 + piece <= SHORT => {
                let length = back.0 + piece;
                back.1 = (back.0.0 as f64 * back.1 + piece.0 as f64 * rate) / length.0 as f64;
                back.0 = length;
            }
            _ => self.window.push_back((piece, rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn observed(intervals: &[(u64, f64)]) -> Work {
        let mut work = Work::default();
        work.begin(Time::ZERO);
        let mut until = 0;
        for &(ms, rate) in intervals {
            until += ms * MS;
            work.interval(Time(until), rate);
        }
        work
    }

    #[test]
    fn a_standstill_is_perceived_until_the_window_has_passed_nine_tenths_of_it() {
        // Standing still from 5 s to 7 s; at 7.9 s the window holds 0.9 s of work.
        let work = observed(&[(5_000, 1.0), (2_000, 0.0), (20_000, 1.0)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(7_000 * MS)), Some(Span(2_900 * MS)));
        assert_eq!(work.lost(), Span::from_secs(2));
        assert_eq!(work.observed(), Span::from_secs(27));
    }

    #[test]
    fn a_short_standstill_is_not_perceived() {
        let work = observed(&[(5_000, 1.0), (99, 0.0), (20_000, 1.0)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(5_099 * MS)), Some(Span::ZERO));
        // Exactly a tenth of a second leaves exactly 90 %.
        let work = observed(&[(5_000, 1.0), (100, 0.0), (20_000, 1.0)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(5_100 * MS)), Some(Span::ZERO));
        let work = observed(&[(5_000, 1.0), (101, 0.0), (20_000, 1.0)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(5_101 * MS)), Some(Span(1_001 * MS)));
    }

    #[test]
    fn nine_tenths_are_enough_and_less_is_not() {
        let work = observed(&[(5_000, 1.0), (1_000, 0.0), (3_000, 0.45), (30_000, 0.9)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(6_000 * MS)), Some(Span(5_000 * MS)));
        let work = observed(&[(5_000, 1.0), (1_000, 0.0), (30_000, 0.89)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(6_000 * MS)), None);
    }

    #[test]
    fn what_was_slow_before_the_pause_does_not_count() {
        let work = observed(&[(2_000, 0.5), (3_000, 1.0), (50, 0.0), (20_000, 1.0)]);
        assert_eq!(work.perceived_downtime(Time(5_000 * MS), Time(5_050 * MS)), Some(Span::ZERO));
    }

    #[test]
    fn ten_seconds_after_completion_must_have_been_seen() {
        let (paused, completed) = (Time(5_000 * MS), Time(8_000 * MS));
        assert_eq!(observed(&[(5_000, 1.0), (1_000, 0.0), (11_999, 1.0)]).perceived_downtime(paused, completed), None);
        let enough = observed(&[(5_000, 1.0), (1_000, 0.0), (12_000, 1.0)]);
        assert_eq!(enough.perceived_downtime(paused, completed), Some(Span(1_900 * MS)));
        assert_eq!(Work::default().perceived_downtime(Time::ZERO, Time::ZERO), None);
    }

    #[test]
    fn work_above_the_baseline_makes_up_for_work_below() {
        assert_eq!(observed(&[(1_000, 0.5), (1_000, 1.25)]).lost(), Span::from_millis(250));
        assert_eq!(observed(&[(1_000, 1.25)]).lost(), Span::ZERO);
    }

    #[test]
    fn many_small_intervals_take_bounded_memory_and_lose_no_work() {
        let mut work = Work::default();
        work.begin(Time::ZERO);
        for i in 1..=20_000u64 {
            work.interval(Time(i * 100_000), if i % 2 == 0 { 0.25 } else { 0.75 });
        }
        assert!(work.window.len() <= 3 * MANY_PIECES);
        assert_eq!(work.window.iter().map(|p| p.0.0).sum::<u64>(), WINDOW.0);
        assert!((work.done_ns - 0.5 * FULL_NS).abs() < 1e6, "{}", work.done_ns);
        assert_eq!(work.lost(), Span::from_secs(1));
    }

    /// The windowed rate at each millisecond, from the definition, in exact integers (rates in hundredths), and the last
    /// millisecond at which it is below 90 %.
    fn oracle(intervals: &[(u64, u64)]) -> Option<u64> {
        let per_ms: Vec<u64> = intervals.iter().flat_map(|&(ms, rate)| (0..ms).map(move |_| rate)).collect();
        let last_low = (1..=per_ms.len()).rev().find(|&t| {
            let seen: u64 = per_ms[t.saturating_sub(1_000)..t].iter().sum();
            let before = 1_000 - (t.min(1_000) as u64);
            seen + before * 100 < 90_000
        });
        last_low.map(|t| t as u64)
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            intervals in proptest::collection::vec((1u64..1_500, prop_oneof![1 => Just(0u64), 3 => Just(100), 1 => Just(90), 2 => 0u64..130]), 1..40),
            paused in 0u64..20_000,
        ) {
            let total: u64 = intervals.iter().map(|i| i.0).sum();
            let work = observed(&intervals.iter().map(|&(ms, rate)| (ms, rate as f64 / 100.0)).collect::<Vec<_>>());
            // Completion is so early that the end of observation alone decides.
            let got = (total >= 10_000).then(|| work.perceived_downtime(Time(paused * MS), Time::ZERO));
            let last_low = oracle(&intervals);
            let still_low = last_low == Some(total);
            match got {
                None => prop_assert_eq!(work.perceived_downtime(Time(paused * MS), Time::ZERO), None),
                Some(None) => prop_assert!(still_low),
                Some(Some(perceived)) => {
                    prop_assert!(!still_low);
                    let want = last_low.map_or(0, |t| t.saturating_sub(paused));
                    // The oracle looks once a millisecond: recovery comes within the millisecond after its last low one.
                    let got = perceived.0;
                    prop_assert!(got <= (want + 1) * MS && got + 1 >= want * MS, "{got} ns against {want} ms");
                }
            }
            let lost: i64 = intervals.iter().map(|&(ms, rate)| ms as i64 * (100 - rate as i64)).sum();
            prop_assert!((work.lost().0 as f64 - (lost.max(0) as f64) * 1e4).abs() < 10.0);
        }
    }
}
