//! Zipf's law as a table for the guest: first ranks one by one, then groups that grow by a few percent.

/// Ranks that have a group of their own.
const SINGLE: u64 = 32;
/// Growth of the groups after them. Within a group all ranks are accessed alike, so no rank's rate is wrong by more than half
/// of this times the exponent.
const GROWTH: f64 = 1.06;

/// Neighbouring ranks and their share of all accesses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) pages: u64,
    pub(super) share: f64,
}

/// The groups of `pages` ranks, hottest first.
pub(super) fn groups(pages: u64, exponent: f64) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut from = 0;
    while from < pages {
        let to = if from < SINGLE { from + 1 } else { ((from as f64 * GROWTH).ceil() as u64).min(pages) };
        groups.push(Group { pages: to - from, share: weight(from, to, exponent) });
        from = to;
    }
    let total: f64 = groups.iter().map(|g| g.share).sum();
    for group in &mut groups {
        group.share /= total;
    }
    groups
}

/// The sum of k^-s over from < k <= to by the midpoint: exact for one rank, and within s (s + 1) / 24 x 0.06^2 for a group.
fn weight(from: u64, to: u64, s: f64) -> f64 {
    let middle = (from + to + 1) as f64 / 2.0;
    (to - from) as f64 * libm::pow(middle, -s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_is_accessed_as_the_law_says() {
        for s in [0.5, 1.0, 1.5] {
            let total: f64 = (1..=20_000u64).map(|k| (k as f64).powf(-s)).sum();
            let mut rank = 0;
            for group in groups(20_000, s) {
                let exact: f64 = (rank + 1..=rank + group.pages).map(|k| (k as f64).powf(-s)).sum::<f64>() / total;
                assert!((group.share / exact - 1.0).abs() < 1e-3, "{s} {rank}: {} {exact}", group.share);
                rank += group.pages;
            }
            assert_eq!(rank, 20_000);
        }
    }

    #[test]
    fn the_table_stays_small() {
        assert!(groups(1 << 26, 1.0).len() < 300, "{}", groups(1 << 26, 1.0).len());
        assert_eq!(groups(0, 1.0), []);
    }
}
