//! Replicates of a strategy taken together, and strategies held against each other.

use crate::record::{Record, work_lost};
use livemig_core::machine::Outcome;
use livemig_core::units::Span;
use std::ops::RangeInclusive;

/// Where the values of several replicates lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The median; of an even number of values the mean of the two in the middle.
    pub(crate) median: f64,
    /// Lower end of the interval.
    pub(crate) low: f64,
    /// Upper end of the interval.
    pub(crate) high: f64,
}

impl Spread {
    /// The spread of these values: their median with its distribution-free 95 % confidence interval, which is made of two of the
    /// values (David and Nagaraja, Order Statistics, 7.1). With fewer than six values no such interval is narrower than all of
    /// them, and the interval is their range. `None` without values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let interval = interval_of_median(n)?;
        let median = if n % 2 == 1 { values[n / 2] } else { f64::midpoint(values[n / 2 - 1], values[n / 2]) };
        Some(Spread { median, low: values[*interval.start()], high: values[*interval.end()] })
    }

    /// Whether the intervals have a point in common; intervals that are single values must differ to be apart.
    fn overlaps(&self, other: &Spread) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// Ranks (from 0) of the values that bound the median of the distribution with 95 % confidence; `None` for no values.
fn interval_of_median(n: usize) -> Option<RangeInclusive<usize>> {
    // Beyond this 2^-n is no longer a number; the normal approximation is exact enough there.
    const EXACT: usize = 1000;
    let last = n.checked_sub(1)?;
    let below = if n > EXACT {
        let rank = n as f64 / 2.0 - 0.98 * (n as f64).sqrt();
        rank as usize
    } else {
        // The largest k for which at most k of n fair coins show heads with a probability of at most 2.5 %.
        let mut probability = (0..n).fold(1.0, |p, _| p / 2.0);
        let (mut cumulated, mut k) = (probability, 0);
        while cumulated <= 0.025 {
            k += 1;
            probability *= (n + 1 - k) as f64 / k as f64;
            cumulated += probability;
        }
        k
    };
    let low = below.saturating_sub(1);
    Some(low..=last - low)
}

/// What is compared, in the order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Eviction,
    Total,
    Downtime,
    Perceived,
    Sent,
    Faults,
    WorkLost,
}

impl Measure {
    /// Every measure.
    pub(crate) const ALL: [Measure; 7] = [
        Measure::Eviction,
        Measure::Total,
        Measure::Downtime,
        Measure::Perceived,
        Measure::Sent,
        Measure::Faults,
        Measure::WorkLost,
    ];
    /// Those for which ratios are shown.
    pub(crate) const TIMES: [Measure; 3] = [Measure::Eviction, Measure::Total, Measure::Downtime];

    /// The column that it has in `metrics.csv`.
    pub(crate) const fn column(self) -> &'static str {
        match self {
            Measure::Eviction => "eviction_time_s",
            Measure::Total => "total_migration_time_s",
            Measure::Downtime => "downtime_s",
            Measure::Perceived => "perceived_downtime_s",
            Measure::Sent => "bytes_total",
            Measure::Faults => "remote_faults",
            Measure::WorkLost => "work_lost_s",
        }
    }

    fn read(self, record: &Record<'_>) -> Option<f64> {
        let m = &record.metrics;
        match self {
            Measure::Eviction => m.eviction_time.map(Span::as_secs_f64),
            Measure::Total => m.total_migration_time.map(Span::as_secs_f64),
            Measure::Downtime => m.downtime.map(|d| d.total.as_secs_f64()),
            Measure::Perceived => m.perceived_downtime.map(Span::as_secs_f64),
            Measure::Sent => Some(m.bytes.total().0 as f64),
            Measure::Faults => Some(m.remote_faults as f64),
            Measure::WorkLost => work_lost(m).map(Span::as_secs_f64),
        }
    }
}

/// A strategy over its replicates.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// Name of the strategy.
    pub(crate) strategy: String,
    /// How many replicates ran.
    pub(crate) runs: usize,
    /// How many of them completed.
    pub(crate) completed: usize,
    /// How many of them met their stop rule.
    pub(crate) converged: usize,
    /// The outcome of the first run that did not complete.
    pub(crate) failure: Option<Outcome>,
    spreads: [Option<Spread>; Measure::ALL.len()],
    reached: [usize; Measure::ALL.len()],
}

impl Summary {
    /// The summary of the replicates of one strategy; each record stands for a run. `None` without records.
    pub(crate) fn of(records: &[Record<'_>]) -> Option<Summary> {
        let values = Measure::ALL.map(|m| records.iter().filter_map(|r| m.read(r)).collect::<Vec<f64>>());
        Some(Summary {
            strategy: records.first()?.strategy.to_owned(),
            runs: records.len(),
            completed: records.iter().filter(|r| r.metrics.outcome == Outcome::Completed).count(),
            converged: records.iter().filter(|r| r.metrics.converged).count(),
            failure: records.iter().map(|r| r.metrics.outcome).find(|o| *o != Outcome::Completed),
            reached: values.each_ref().map(Vec::len),
            spreads: values.map(Spread::of),
        })
    }

    /// Where a measure lies, over the replicates that reached it.
    pub(crate) fn spread(&self, measure: Measure) -> Option<Spread> {
        self.spreads[measure as usize]
    }

    /// Whether every replicate reached it.
    fn always_reached(&self, measure: Measure) -> bool {
        self.reached[measure as usize] == self.runs
    }
}

/// How a strategy stands to the one it is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    /// Median divided by the other's median.
    pub(crate) factor: f64,
    /// Whether the intervals are apart; a strategy is the same as itself.
    pub(crate) distinguishable: bool,
}

/// The ratios of every strategy to the one called `baseline`, or to the best of those that reached the measure in every run.
/// `None` where there is nothing to divide or to divide by.
pub(crate) fn ratios(summaries: &[Summary], measure: Measure, baseline: Option<&str>) -> Vec<Option<Ratio>> {
    let reference = match baseline {
        Some(name) => summaries.iter().position(|s| s.strategy == name).filter(|i| summaries[*i].spread(measure).is_some()),
        None => {
            let medians = summaries.iter().enumerate().filter(|(_, s)| s.always_reached(measure));
            let medians = medians.filter_map(|(i, s)| Some((i, s.spread(measure)?.median)));
            medians.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
        }
    };
    let reference = reference.and_then(|i| summaries[i].spread(measure).map(|s| (i, s)));
    let ratio = |(index, summary): (usize, &Summary)| {
        let (at, reference) = reference?;
        let own = summary.spread(measure)?;
        let factor = if own.median == reference.median { 1.0 } else { own.median / reference.median };
        factor.is_finite().then(|| Ratio { factor, distinguishable: index != at && !own.overlaps(&reference) })
    };
    summaries.iter().enumerate().map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{metrics, record};

    #[test]
    fn the_interval_is_made_of_order_statistics() {
        // The classic table: n -> rank of the lower bound, counted from 1.
        for (n, rank) in [(1, 1), (2, 1), (5, 1), (6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (25, 8), (50, 18), (100, 40)] {
            assert_eq!(interval_of_median(n), Some(rank - 1..=n - rank), "{n} values");
        }
        assert_eq!(interval_of_median(0), None);
        let exact = interval_of_median(1000).unwrap();
        let approximate = interval_of_median(1001).unwrap();
        assert!(exact.start().abs_diff(*approximate.start()) <= 1);
    }

    #[test]
    fn medians_of_odd_and_even_numbers_of_values() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    fn summary(name: &'static str, downtimes: &[u64]) -> Summary {
        let records: Vec<_> = downtimes.iter().map(|d| Record { strategy: name, ..record(metrics(20, *d)) }).collect();
        Summary::of(&records).unwrap()
    }

    #[test]
    fn overlapping_intervals_are_not_distinguished() {
        let all = [summary("a", &[100, 110, 120]), summary("b", &[118, 130, 140]), summary("c", &[121, 220, 230])];
        let found = ratios(&all, Measure::Downtime, None);
        assert_eq!(found[0], Some(Ratio { factor: 1.0, distinguishable: false }));
        assert_eq!(found[1].map(|r| r.distinguishable), Some(false));
        assert_eq!(found[2], Some(Ratio { factor: 2.0, distinguishable: true }));
        let to_c = ratios(&all, Measure::Downtime, Some("c"));
        assert_eq!(to_c[0], Some(Ratio { factor: 0.5, distinguishable: true }));
        assert_eq!(to_c[2].map(|r| r.factor), Some(1.0));
        assert_eq!(ratios(&all, Measure::Downtime, Some("nobody")), [None, None, None]);
    }

    #[test]
    fn who_does_not_always_arrive_is_not_the_best() {
        let mut half = vec![record(metrics(1, 300)), record(metrics(1, 300))];
        half[1].metrics.eviction_time = None;
        half[1].metrics.outcome = Outcome::Unfinished;
        let all = [Summary::of(&half).unwrap(), summary("steady", &[300, 300])];
        let found = ratios(&all, Measure::Eviction, None);
        assert_eq!(found[1].map(|r| r.factor), Some(1.0));
        assert_eq!(found[0].map(|r| r.factor), Some(0.05));
        assert_eq!((all[0].completed, all[0].failure), (1, Some(Outcome::Unfinished)));
    }

    #[test]
    fn nothing_to_compare_gives_no_ratio() {
        let mut never = record(metrics(20, 300));
        never.metrics.perceived_downtime = None;
        let all = [Summary::of(&[never]).unwrap()];
        assert_eq!(ratios(&all, Measure::Perceived, None), [None]);
        assert_eq!(ratios(&all, Measure::Faults, None), [Some(Ratio { factor: 1.0, distinguishable: false })]);
    }
}
