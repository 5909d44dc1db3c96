//! A measured dirtying curve as accesses: sweeps that together dirty as many distinct pages in any time as the curve says.
//!
//! A sweep over W pages at r pages per second dirties min(r t, W) of them in every time t, whenever that begins. What a guest dirties
//! cannot depend on when it is looked at, so a curve that it can follow is concave; and a concave curve that is linear between its points
//! is a sum of sweeps, exactly: where the slope falls by r, at time t, a sweep of r t pages ends that takes t.
//!
//! The simulator takes the curve for what is dirtied after every collection, and that is what the sweeps do. Which page is next is drawn
//! there; here the pages that are written most often come first in memory.

use super::spec::Region;
use crate::error::ExecError;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use livemig_models::world::DirtyCurve;

/// Most sweeps of a curve.
const MOST: usize = 128;
/// How far the sweeps may stay below the curve at first, as a share of it; doubled until they are few enough.
const TOLERANCE: f64 = 0.005;
/// A curve whose growth gets faster is followed where its least concave majorant lies above it by no more than this share of it, and
/// this share of all that it reaches.
const SLACK: (f64, f64) = (0.05, 0.01);

/// The sweeps of a curve over `pages` pages, in address order, and the reads of as many pages at random.
pub(super) fn regions(curve: &DirtyCurve, pages: u64, reads: f64) -> Result<Vec<Region>, ExecError> {
    let points: Vec<(f64, f64)> =
        curve.points.iter().map(|&(t, bytes)| (t, (bytes / PAGE_SIZE as f64).min(pages as f64))).collect();
    let hull = concave(&points);
    if let Some(&(t, distinct)) = points.iter().find(|&&(t, d)| at(&hull, t) > d * (1.0 + SLACK.0) + SLACK.1 * pages as f64) {
        return Err(ExecError::Spec(format!(
            "a measured curve grows faster after {t} s ({distinct:.0} pages) than before: no guest dirties memory so that this holds \
             whenever it is looked at"
        )));
    }
    let mut tolerance = TOLERANCE;
    let mut few = thinned(&hull, tolerance);
    while few.len() > MOST {
        tolerance *= 2.0;
        few = thinned(&hull, tolerance);
    }
    let mut regions = sweeps(&few, pages);
    if reads > 0.0 && pages > 0 {
        regions.push(Region { first: PageIndex(0), pages, writes: 0.0, reads, sweep: false });
    }
    Ok(regions)
}

/// A sweep for each bend.
fn sweeps(points: &[(f64, f64)], pages: u64) -> Vec<Region> {
    let slope = |i: usize| match (points.get(i), points.get(i + 1)) {
        (Some(&(t0, d0)), Some(&(t1, d1))) => (d1 - d0) / (t1 - t0),
        _ => 0.0,
    };
    let (mut all, mut first, mut regions) = (0.0, 0, Vec::new());
    for (i, &(t, _)) in points.iter().enumerate().skip(1) {
        all += (slope(i - 1) - slope(i)) * t;
        let end = (all.round() as u64).min(pages);
        if end > first {
            let pages = end - first;
            regions.push(Region { first: PageIndex(first), pages, writes: pages as f64 / t, reads: 0.0, sweep: true });
            first = end;
        }
    }
    regions
}

/// The least concave curve that is nowhere below these points; they are in the order of time.
fn concave(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for &(t, d) in points {
        while let [.., (t0, d0), (t1, d1)] = hull[..]
            && (d1 - d0) * (t - t0) <= (d - d0) * (t1 - t0)
        {
            hull.pop();
        }
        hull.push((t, d));
    }
    hull
}

/// Some of the points of a concave curve, so that the others lie above the lines between them by at most this share.
fn thinned(hull: &[(f64, f64)], tolerance: f64) -> Vec<(f64, f64)> {
    let mut few = Vec::from_iter(hull.first().copied());
    let mut from = 0;
    while from + 1 < hull.len() {
        let near = |to: usize| hull[from + 1..to].iter().all(|&(t, d)| at(&[hull[from], hull[to]], t) >= d * (1.0 - tolerance));
        // The further the line goes, the further below the curve it is.
        let (mut good, mut bad) = (from + 1, hull.len());
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if near(middle) { good = middle } else { bad = middle }
        }
        few.push(hull[good]);
        from = good;
    }
    few
}

/// The value at `t` of a line through points, constant behind the last.
fn at(points: &[(f64, f64)], t: f64) -> f64 {
    let after = points.partition_point(|p| p.0 <= t);
    match (after.checked_sub(1).map(|i| points[i]), points.get(after)) {
        (Some((t0, d0)), Some(&(t1, d1))) => d0 + (d1 - d0) * (t - t0) / (t1 - t0),
        (Some((_, last)), None) => last,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Phase;
    use crate::guest::program::{Access, Cursors, Table};
    use crate::mix::at_step;
    use std::collections::BTreeSet;

    fn curve(points: &[(f64, f64)]) -> DirtyCurve {
        DirtyCurve { points: points.iter().map(|&(t, pages)| (t, pages * PAGE_SIZE as f64)).collect() }
    }

    /// Distinct pages written in `t` seconds from `start` on, by so many vCPUs at full speed.
    fn distinct(phase: &Phase, vcpus: u32, start: f64, t: f64) -> f64 {
        let mut pages = BTreeSet::new();
        for vcpu in 0..vcpus {
            let table = Table::new(phase, vcpu, vcpus);
            let steps = (start * table.rate) as u64..((start + t) * table.rate) as u64;
            let mut cursors = Cursors::default();
            for step in steps {
                if let Access::Write(page) = table.access(step, at_step(3, step), &mut cursors) {
                    pages.insert(page);
                }
            }
        }
        pages.len() as f64
    }

    #[test]
    fn as_many_distinct_pages_are_written_as_the_curve_says_whenever_one_looks() {
        let bent = curve(&[(0.0, 0.0), (0.1, 1000.0), (0.5, 2500.0), (2.0, 4000.0), (6.0, 5000.0)]);
        let root = curve(&(0..=400).map(|i| (f64::from(i) * 0.02, (f64::from(i) * 0.02).sqrt() * 2000.0)).collect::<Vec<_>>());
        let linear = curve(&[(0.0, 0.0), (1.0, 3000.0)]);
        for (name, curve) in [("bent", &bent), ("root", &root), ("linear", &linear)] {
            let regions = regions(curve, curve.reach().pages(), 0.0).unwrap();
            assert_eq!(regions.iter().map(|r| r.pages).sum::<u64>(), curve.reach().pages());
            let phase = Phase { until: None, regions };
            for vcpus in [1, 3] {
                for (start, t) in [(0.0, 0.05), (3.3, 0.05), (1.7, 0.3), (12.1, 1.0), (0.9, 3.0), (40.0, 7.0), (5.0, 20.0)] {
                    let (found, expected) = (distinct(&phase, vcpus, start, t), curve.at(t) / PAGE_SIZE as f64);
                    let most = 0.01 * expected + 2.0 * f64::from(vcpus) * phase.regions.len() as f64;
                    assert!(
                        (found - expected).abs() <= most,
                        "{name}, {vcpus} vCPUs, {t} s from {start} s: {found} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_bends_upwards_is_followed_if_it_is_little_and_refused_otherwise() {
        let noisy = curve(&[(0.0, 0.0), (1.0, 980.0), (2.0, 2000.0), (3.0, 2500.0)]);
        let regions = regions(&noisy, 2500, 40.0).unwrap();
        assert_eq!(
            regions.last().map(|r| (r.first, r.pages, r.writes, r.reads, r.sweep)),
            Some((PageIndex(0), 2500, 0.0, 40.0, false))
        );
        assert!((regions[..2].iter().map(|r| r.writes).sum::<f64>() - 1000.0).abs() < 1.0, "{regions:?}");
        let late = curve(&[(0.0, 0.0), (1.0, 10.0), (2.0, 2000.0)]);
        let why = super::regions(&late, 2000, 0.0).unwrap_err().to_string();
        assert!(why.contains("after 1 s (10 pages)"), "{why}");
    }

    #[test]
    fn a_long_curve_has_few_sweeps() {
        let points: Vec<(f64, f64)> = (0..200_000).map(|i| (f64::from(i) * 1e-4, (f64::from(i) * 1e-4).powf(0.3) * 1e5)).collect();
        let long = curve(&points);
        let hull = concave(&long.points);
        let few = thinned(&hull, TOLERANCE);
        assert!(few.len() < MOST, "{} sweeps", few.len());
        assert!(hull.iter().all(|&(t, d)| at(&few, t) >= d * 0.995 && at(&few, t) <= d * (1.0 + 1e-9)));
    }
}
