//! How long the guest waited for pages: a histogram with logarithmic buckets.
//!
//! Each octave has 64 buckets, so that a bucket's middle is within 1/128 of every value in it; values below 64 ns are exact.
//! Only buckets that hold something take memory, nothing is allocated before the first wait, and histograms of several VMs
//! merge without loss.

use crate::units::Span;

/// Buckets per octave, as a power of two.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;

/// A distribution of waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    count: u64,
    sum_ns: u128,
    least: Span,
    longest: Span,
    /// Bucket and how many waits fell into it, in ascending order.
    buckets: Vec<(u16, u64)>,
}

impl Stalls {
    /// Adds `count` waits of this length.
    pub fn record(&mut self, stall: Span, count: u64) {
        if count == 0 {
            return;
        }
        self.widen(stall, stall, count);
        self.sum_ns = self.sum_ns.saturating_add(u128::from(stall.0) * u128::from(count));
        self.add(bucket_of(stall), count);
    }

    /// Adds every wait of `other`.
    pub fn merge(&mut self, other: &Stalls) {
        if other.count == 0 {
            return;
        }
        self.widen(other.least, other.longest, other.count);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        for &(bucket, count) in &other.buckets {
            self.add(bucket, count);
        }
    }

    /// How many waits there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean, exact but for rounding to a nanosecond.
    #[must_use]
    pub fn mean(&self) -> Option<Span> {
        let count = u128::from(self.count);
        let mean = self.sum_ns.saturating_add(count / 2).checked_div(count)?;
        Some(Span(u64::try_from(mean).unwrap_or(u64::MAX).min(self.longest.0)))
    }

    /// The least length that at least `percent` of the waits do not exceed, to 1/128 of its value.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<Span> {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        for &(bucket, count) in &self.buckets {
            seen += u128::from(count);
            if seen >= rank {
                return Some(middle_of(bucket).clamp(self.least, self.longest));
            }
        }
        None
    }

    fn widen(&mut self, least: Span, longest: Span, count: u64) {
        self.least = if self.count == 0 { least } else { self.least.min(least) };
        self.longest = self.longest.max(longest);
        self.count = self.count.saturating_add(count);
    }

    fn add(&mut self, bucket: u16, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |b| b.0) {
            Ok(i) => self.buckets[i].1 = self.buckets[i].1.saturating_add(count),
            Err(i) => self.buckets.insert(i, (bucket, count)),
        }
    }
}

fn bucket_of(stall: Span) -> u16 {
    let ns = stall.0;
    let index = if ns < SUB {
        ns
    } else {
        let above = u64::from(ns.ilog2() - SUB_BITS);
        SUB + above * SUB + ((ns >> above) - SUB)
    };
    u16::try_from(index).expect("at most 59 octaves of 64 buckets")
}

fn middle_of(bucket: u16) -> Span {
    let index = u64::from(bucket);
    if index < SUB {
        return Span(index);
    }
    let above = (index - SUB) / SUB;
    let low = (SUB + (index - SUB) % SUB) << above;
    Span(low + ((1 << above) >> 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(sorted: &[u64], percent: usize) -> u64 {
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
    }

    #[test]
    fn nothing_was_waited_for() {
        let stalls = Stalls::default();
        assert_eq!((stalls.mean(), stalls.percentile(50)), (None, None));
        assert_eq!(stalls.buckets.capacity(), 0);
    }

    #[test]
    fn equal_waits_are_reported_exactly() {
        let mut stalls = Stalls::default();
        stalls.record(Span(123_456_789), 1_000);
        assert_eq!(stalls.mean(), Some(Span(123_456_789)));
        assert_eq!(stalls.percentile(50), Some(Span(123_456_789)));
        assert_eq!(stalls.percentile(99), Some(Span(123_456_789)));
    }

    #[test]
    fn every_length_has_a_bucket_and_buckets_ascend() {
        assert_eq!(bucket_of(Span(0)), 0);
        assert_eq!(bucket_of(Span(63)), 63);
        assert_eq!(bucket_of(Span(64)), 64);
        assert_eq!(bucket_of(Span(127)), 127);
        assert_eq!(bucket_of(Span(128)), 128);
        assert_eq!(bucket_of(Span(129)), 128);
        assert_eq!(bucket_of(Span::MAX), 59 * 64 - 1);
        let mut stalls = Stalls::default();
        stalls.record(Span::MAX, u64::MAX);
        stalls.record(Span::MAX, u64::MAX);
        assert_eq!(stalls.percentile(99), Some(Span::MAX));
    }

    proptest! {
        #[test]
        fn percentiles_are_within_a_bucket_of_the_exact_ones(mut waits in proptest::collection::vec(0u64..20_000_000_000, 1..200), cut in 0usize..200) {
            let cut = cut.min(waits.len());
            let (mut stalls, mut rest) = (Stalls::default(), Stalls::default());
            for &w in &waits[..cut] {
                stalls.record(Span(w), 1);
            }
            for &w in &waits[cut..] {
                rest.record(Span(w), 1);
            }
            stalls.merge(&rest);
            let mut whole = Stalls::default();
            waits.iter().rev().for_each(|&w| whole.record(Span(w), 1));
            prop_assert_eq!(&stalls, &whole);
            waits.sort_unstable();
            for percent in [50, 99] {
                let (got, want) = (stalls.percentile(percent).unwrap().0, exact(&waits, usize::from(percent)));
                prop_assert!(got.abs_diff(want) * 128 <= want, "p{percent}: {got} against {want}");
            }
            let mean = waits.iter().sum::<u64>() as f64 / waits.len() as f64;
            prop_assert!((stalls.mean().unwrap().0 as f64 - mean).abs() <= 1.0);
        }
    }
}
