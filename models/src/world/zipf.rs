//! Zipf's law in a few groups of ranks.
//!
//! The page of rank k is accessed in proportion to k^-s. Groups end at ranks that grow by a constant factor, so that the rates
//! within a group differ by the same factor everywhere; the first group takes the first few ranks, which together are too
//! little memory to matter.

use livemig_core::units::{Bytes, PAGE_SIZE};

/// Neighbouring ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    /// Their memory.
    pub(super) bytes: Bytes,
    /// Their share of all accesses.
    pub(super) share: f64,
}

/// Ranks of the first group: 32 KiB.
const FIRST: u64 = 8;

/// At most `groups` groups that make up `working_set`, hottest first; none for an empty working set.
pub(super) fn groups(working_set: Bytes, exponent: f64, groups: usize) -> Vec<Group> {
    let pages = working_set.pages();
    let mut ends = vec![FIRST.min(pages)];
    let ratio = pages as f64 / FIRST as f64;
    for g in 1..groups {
        let end = FIRST as f64 * libm::pow(ratio, g as f64 / (groups - 1) as f64);
        let end = if g == groups - 1 { pages } else { (end.round() as u64).min(pages) };
        if ends[ends.len() - 1] < end {
            ends.push(end);
        }
    }
    let weights: Vec<f64> = ends.iter().scan(0, |from, &to| Some(power_sum(std::mem::replace(from, to), to, exponent))).collect();
    let total: f64 = weights.iter().sum();
    let mut before = 0;
    ends.iter()
        .zip(weights)
        .filter(|(end, _)| **end > 0)
        .map(|(&end, weight)| {
            // The last page may be a part of a page.
            let upto = (end * PAGE_SIZE).min(working_set.0);
            let bytes = Bytes(upto - before);
            before = upto;
            Group { bytes, share: weight / total }
        })
        .collect()
}

/// Ranks that are summed one by one; beyond, the Euler-Maclaurin formula is exact to 1e-12 of the sum.
const ONE_BY_ONE: u64 = 1000;

/// The sum of k^-s over from < k <= to: what Zipf's law divides by, to 1e-11 relative.
#[must_use]
pub fn power_sum(from: u64, to: u64, s: f64) -> f64 {
    let middle = to.min(ONE_BY_ONE).max(from);
    let head: f64 = (from + 1..=middle).map(|k| libm::pow(k as f64, -s)).sum();
    if to <= middle {
        return head;
    }
    let (a, b) = (middle as f64, to as f64);
    let (fa, fb) = (libm::pow(a, -s), libm::pow(b, -s));
    // The integral of x^-s, written so that s = 1 is no special case: log(b/a) x (e^u - 1) / u with u = (1 - s) log(b/a).
    let log = libm::log(b / a);
    let u = (1.0 - s) * log;
    let integral = a * fa * log * if u.abs() < 1e-9 { 1.0 + u / 2.0 } else { libm::expm1(u) / u };
    let slopes = s * (fa / a - fb / b) / 12.0;
    head + integral + (fb - fa) / 2.0 + slopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_powers_is_the_sum_of_powers() {
        for s in [0.0, 0.3, 1.0, 1.000_000_000_1, 1.7, 3.0] {
            for (from, to) in [(0, 5), (0, 100_000), (3, 2_000), (5_000, 90_000), (7, 7)] {
                let exact: f64 = (from + 1..=to).rev().map(|k| (k as f64).powf(-s)).sum();
                let sum = power_sum(from, to, s);
                assert!((sum - exact).abs() <= 1e-11 * exact, "{s} {from} {to}: {sum} {exact}");
            }
        }
    }

    #[test]
    fn distinct_pages_are_overestimated_by_what_is_documented() {
        let pages = 131_072_u64; // 512 MiB
        for (s, limit) in [(0.5, 0.02), (1.0, 0.10), (1.3, 0.10), (2.0, 0.16)] {
            let total = power_sum(0, pages, s);
            let groups = groups(Bytes::from_pages(pages), s, 7);
            let mut worst = 0.0_f64;
            for step in 0..14 {
                let accesses = 30.0 * (pages as f64 * 100.0 / 30.0).powf(f64::from(step) / 13.0);
                let exact: f64 = (1..=pages).map(|k| -libm::expm1(-accesses * libm::pow(k as f64, -s) / total)).sum();
                let grouped: f64 = groups
                    .iter()
                    .map(|g| {
                        let n = g.bytes.pages() as f64;
                        -n * libm::expm1(-accesses * g.share / n)
                    })
                    .sum();
                // Below 64 pages, 256 KiB, nothing depends on it.
                if exact >= 64.0 {
                    worst = worst.max(grouped / exact - 1.0);
                }
                assert!(grouped >= exact * (1.0 - 1e-9), "never an underestimate");
            }
            assert!(worst <= limit && worst > limit / 5.0, "{s}: {worst}");
        }
    }
}
