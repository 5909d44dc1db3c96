//! What guests do with their memory.

use super::zipf;
use livemig_core::pages::CLASSES;
use livemig_core::units::{Bytes, PAGE_SIZE, Span};
use std::sync::Arc;

/// A guest's accesses to its memory. Rates are offered rates in pages per second over all vCPUs, at full speed.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// No accesses.
    Idle,
    /// Accesses at random, each page of the working set alike.
    Uniform {
        /// How much memory is accessed.
        working_set: Bytes,
        /// Writes.
        writes: f64,
        /// Reads.
        reads: f64,
    },
    /// Accesses in address order, again and again.
    Sequential {
        /// How much memory is accessed.
        working_set: Bytes,
        /// Writes.
        writes: f64,
        /// Reads.
        reads: f64,
    },
    /// Random accesses, many to a hot part and few to the rest of memory.
    HotCold {
        /// Size of the hot part.
        hot: Bytes,
        /// Writes to the hot part.
        hot_writes: f64,
        /// Reads of the hot part.
        hot_reads: f64,
        /// Writes to the rest.
        cold_writes: f64,
        /// Reads of the rest.
        cold_reads: f64,
    },
    /// Random accesses; the page of rank k is accessed in proportion to k^-exponent.
    Zipf {
        /// How much memory is accessed.
        working_set: Bytes,
        /// The exponent; above 0.
        exponent: f64,
        /// Writes.
        writes: f64,
        /// Reads.
        reads: f64,
    },
    /// One workload after the other; the last one stays. Never empty, and no phase has phases itself.
    Phases(Arc<[Phase]>),
    /// Dirtying as measured: distinct pages dirtied against time since collection.
    Curve {
        /// The measurement.
        curve: Arc<DirtyCurve>,
        /// Reads, over the memory that the curve reaches at most.
        reads: f64,
    },
}

/// A workload for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// When it ends, counted from the beginning of the first phase; growing from phase to phase. The last phase stays.
    pub until: Span,
    /// What the guest does.
    pub workload: Workload,
}

/// Distinct bytes dirtied as a function of the time since collection: increasing, concave or not, constant after its last point.
#[derive(Clone, Debug, PartialEq)]
pub struct DirtyCurve {
    /// Points (seconds, distinct bytes), both increasing, the first at (0, 0).
    pub points: Vec<(f64, f64)>,
}

/// A part of memory that a workload treats alike. Regions lie one behind the other in address order, from address 0; what they
/// leave of memory is not accessed.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Its size.
    pub bytes: Bytes,
    /// Pages written per second, offered.
    pub writes: f64,
    /// Pages read per second, offered.
    pub reads: f64,
    /// How accesses fall.
    pub pattern: Pattern,
}

/// How accesses fall on the pages of a region.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// At random, each page alike.
    Random,
    /// In address order, again and again.
    Sweep,
    /// So that the distinct pages written follow a measured curve.
    Curve(Arc<DirtyCurve>),
}

/// Most regions of a workload: one page class is left for memory that is not accessed.
const MAX_REGIONS: usize = CLASSES - 1;

impl Workload {
    /// What the guest does `elapsed` after the workload began, and how long until that changes; `None` when it stays.
    #[must_use]
    pub fn phase_at(&self, elapsed: Span) -> (&Workload, Option<Span>) {
        match self {
            Workload::Phases(phases) => {
                let last = phases.len() - 1;
                let at = phases.partition_point(|p| p.until <= elapsed).min(last);
                let change = (at < last).then(|| Span(phases[at].until.0 - elapsed.0));
                (&phases[at].workload, change)
            }
            _ => (self, None),
        }
    }

    /// The parts of `memory` that the workload treats alike, at most [`CLASSES`] - 1, none of them empty, clipped to memory
    /// with their rates unchanged. Of a workload in phases: those of its first phase.
    ///
    /// Zipf's law is approximated by groups of neighbouring ranks with the mean rate of each group. That overestimates the
    /// distinct pages dirtied, by at most 10 % of them for 512 MiB and an exponent of 1, and by at most 16 % for an exponent of
    /// 2; the error vanishes for short and for long times and grows with the logarithm of the size.
    #[must_use]
    pub fn regions(&self, memory: Bytes) -> Vec<Region> {
        let part = |bytes: Bytes, writes: f64, reads: f64, pattern: Pattern| Region { bytes, writes, reads, pattern };
        let mut regions = match self {
            Workload::Idle => Vec::new(),
            Workload::Uniform { working_set, writes, reads } => {
                vec![part((*working_set).min(memory), *writes, *reads, Pattern::Random)]
            }
            Workload::Sequential { working_set, writes, reads } => {
                vec![part((*working_set).min(memory), *writes, *reads, Pattern::Sweep)]
            }
            Workload::HotCold { hot, hot_writes, hot_reads, cold_writes, cold_reads } => {
                let hot = (*hot).min(memory);
                vec![
                    part(hot, *hot_writes, *hot_reads, Pattern::Random),
                    part(memory.saturating_sub(hot), *cold_writes, *cold_reads, Pattern::Random),
                ]
            }
            Workload::Zipf { working_set, exponent, writes, reads } => {
                let groups = zipf::groups((*working_set).min(memory), *exponent, MAX_REGIONS);
                groups.into_iter().map(|g| part(g.bytes, g.share * writes, g.share * reads, Pattern::Random)).collect()
            }
            Workload::Phases(phases) => return phases[0].workload.regions(memory),
            Workload::Curve { curve, reads } => {
                let reach = curve.reach().min(memory);
                vec![part(reach, curve.initial_pages_per_second(), *reads, Pattern::Curve(curve.clone()))]
            }
        };
        regions.retain(|r| !r.bytes.is_zero());
        regions
    }

    /// Whether anything is read.
    #[must_use]
    pub fn reads(&self) -> bool {
        match self {
            Workload::Idle => false,
            Workload::Uniform { reads, .. }
            | Workload::Sequential { reads, .. }
            | Workload::Zipf { reads, .. }
            | Workload::Curve { reads, .. } => *reads > 0.0,
            Workload::HotCold { hot_reads, cold_reads, .. } => hot_reads + cold_reads > 0.0,
            Workload::Phases(phases) => phases.iter().any(|p| p.workload.reads()),
        }
    }

    /// Up to where in `memory` it writes, at any time.
    #[must_use]
    pub fn written(&self, memory: Bytes) -> Bytes {
        match self {
            Workload::Phases(phases) => phases.iter().map(|p| p.workload.written(memory)).max().unwrap_or(Bytes::ZERO),
            Workload::Idle
            | Workload::Uniform { .. }
            | Workload::Sequential { .. }
            | Workload::HotCold { .. }
            | Workload::Zipf { .. }
            | Workload::Curve { .. } => {
                let regions = self.regions(memory);
                let last = regions.iter().rposition(|r| r.writes > 0.0);
                last.map_or(Bytes::ZERO, |last| regions[..=last].iter().map(|r| r.bytes).sum())
            }
        }
    }

    /// The most memory that the workload accesses at any time; all of it for a workload with a cold part.
    #[must_use]
    pub fn reach(&self) -> Bytes {
        match self {
            Workload::Idle => Bytes::ZERO,
            Workload::Uniform { working_set, .. }
            | Workload::Sequential { working_set, .. }
            | Workload::Zipf { working_set, .. } => *working_set,
            Workload::HotCold { hot, .. } => *hot,
            Workload::Phases(phases) => phases.iter().map(|p| p.workload.reach()).max().unwrap_or(Bytes::ZERO),
            Workload::Curve { curve, .. } => curve.reach(),
        }
    }
}

impl DirtyCurve {
    /// The memory that it reaches at most, in whole pages.
    #[must_use]
    pub fn reach(&self) -> Bytes {
        let most = self.points.last().map_or(0.0, |p| p.1);
        Bytes::from_pages((most / PAGE_SIZE as f64).ceil() as u64)
    }

    /// The slope at its beginning: pages first written per second.
    fn initial_pages_per_second(&self) -> f64 {
        match self.points.as_slice() {
            [(t0, d0), (t1, d1), ..] => (d1 - d0) / (t1 - t0) / PAGE_SIZE as f64,
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(mib: u64) -> Workload {
        Workload::Uniform { working_set: Bytes::from_mib(mib), writes: 10.0, reads: 20.0 }
    }

    #[test]
    fn phases_follow_each_other_and_the_last_one_stays() {
        let phase = |s, mib| Phase { until: Span::from_secs(s), workload: uniform(mib) };
        let phases = Workload::Phases(vec![phase(10, 1), phase(30, 2), phase(40, 3)].into());
        let at = |s| phases.phase_at(Span::from_secs(s));
        assert_eq!(at(0), (&uniform(1), Some(Span::from_secs(10))));
        assert_eq!(at(9), (&uniform(1), Some(Span::from_secs(1))));
        assert_eq!(at(10), (&uniform(2), Some(Span::from_secs(20))));
        assert_eq!(at(30), (&uniform(3), None));
        assert_eq!(at(4000), (&uniform(3), None));
        assert_eq!(uniform(4).phase_at(Span::MAX), (&uniform(4), None));
        assert_eq!(phases.reach(), Bytes::from_mib(3));
    }

    #[test]
    fn regions_are_clipped_to_memory_and_never_empty() {
        let memory = Bytes::from_mib(64);
        assert_eq!(Workload::Idle.regions(memory), []);
        assert_eq!(uniform(100).regions(memory)[0].bytes, memory);
        let hot_cold = |hot| Workload::HotCold { hot, hot_writes: 5.0, hot_reads: 6.0, cold_writes: 1.0, cold_reads: 2.0 };
        let regions = hot_cold(Bytes::from_mib(16)).regions(memory);
        assert_eq!(
            regions.iter().map(|r| (r.bytes.0 >> 20, r.writes, r.reads)).collect::<Vec<_>>(),
            [(16, 5.0, 6.0), (48, 1.0, 2.0)]
        );
        assert_eq!(hot_cold(memory).regions(memory).len(), 1);
        assert_eq!(hot_cold(Bytes::from_mib(16)).written(memory), memory);
        assert_eq!((Workload::Idle.written(memory), uniform(8).written(memory)), (Bytes::ZERO, Bytes::from_mib(8)));
        let curve = Arc::new(DirtyCurve { points: vec![(0.0, 0.0), (2.0, 81920.0), (4.0, 100_000.0)] });
        let regions = Workload::Curve { curve, reads: 3.0 }.regions(memory);
        assert_eq!((regions[0].bytes, regions[0].writes, regions[0].reads), (Bytes(25 * 4096), 10.0, 3.0));
    }

    #[test]
    fn zipf_keeps_its_rates_and_its_memory() {
        let memory = Bytes(1_000_000_000);
        for (exponent, mib) in [(0.01, 512), (1.0, 512), (1.0, 2000), (2.5, 512), (1.0, 0), (60.0, 512)] {
            let zipf = Workload::Zipf { working_set: Bytes::from_mib(mib), exponent, writes: 1000.0, reads: 10.0 };
            let regions = zipf.regions(memory);
            assert!(regions.len() <= MAX_REGIONS);
            assert_eq!(regions.iter().map(|r| r.bytes).sum::<Bytes>(), Bytes::from_mib(mib).min(memory));
            if mib > 0 {
                assert!((regions.iter().map(|r| r.writes).sum::<f64>() - 1000.0).abs() < 1e-9);
            }
            let rates: Vec<f64> = regions.iter().map(|r| r.writes / r.bytes.0 as f64).collect();
            assert!(rates.windows(2).all(|w| w[0] >= w[1] * (1.0 - 1e-9)), "{rates:?}");
        }
    }
}
