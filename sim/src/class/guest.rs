//! A guest at class fidelity: per region of its memory, how much is dirty and how much is missing.
//!
//! Nothing happens between events; [`Guest::advance`] brings the guest from its last event to the present in closed form while
//! it runs on complete memory, and in a few steps while memory is missing ([`residency`](super::residency)).

use super::places::Places;
use super::residency::{Inflow, Residency};
use crate::dedup::Contents;
use crate::fidelity::{FaultPath, GuestModel, Run};
use livemig_core::ledger::Observation;
use livemig_core::pages::{CLASSES, Counted, PageSet};
use livemig_core::units::{Bytes, PAGE_SIZE, Share, Time};
use livemig_models::dirtying::{dirty_after, dirtying_rate};
use livemig_models::world::{Pattern, Region, Workload};
use rand_pcg::Pcg64Mcg;

/// A part of memory that is accessed alike.
#[derive(Clone, Debug)]
pub(super) struct RegionState {
    pub(super) size: f64,
    pub(super) writes: f64,
    pub(super) reads: f64,
    pub(super) pattern: Pattern,
    dirty: f64,
    /// Bytes not at the host where the guest runs, once it runs without all of its memory.
    pub(super) missing: f64,
    /// Bytes that intermediaries have in their newest version and the destination has not.
    pub(super) staged: f64,
    /// Before the switch, where pages are staged: bytes that nobody but the source has, because they have not gone yet, go out in a newer
    /// version, or are lost with an intermediary.
    unplaced: f64,
    /// Bytes not accessed since the guest runs on incomplete memory.
    pub(super) untouched: f64,
    /// Of a region that is swept: bytes that have arrived and that the sweep meets before it comes to a missing page.
    pub(super) lead: f64,
    /// The part of the pages that a sweep without a lead has to ask for.
    pub(super) behind: f64,
    /// The sweep has asked for pages.
    pub(super) has_pivot: bool,
}

/// What only a guest needs whose memory is arriving is in boxes: most guests of a data centre never move.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(super) regions: Box<[RegionState]>,
    since: Time,
    run: Run,
    /// vCPU share by throttling.
    pub(super) share: f64,
    /// vCPU share by the host's cores.
    pub(super) cores_share: f64,
    /// Its value at the beginning: what the guest's rate is measured against.
    pub(super) baseline: f64,
    pub(super) vcpus: f64,
    /// Seconds that a first write to a clean page costs, where writes are tracked.
    tracking: Option<f64>,
    pub(super) residency: Option<Box<Residency>>,
    /// Where what is staged is.
    pub(super) places: Places,
    /// Bytes of pages that have come from there.
    pub(super) fetched: f64,
    /// What it has in common with others, once intermediaries are asked for it.
    contents: Option<Box<Contents>>,
}

impl Guest {
    /// Whether it has been brought to `now`.
    pub(super) fn is_at(&self, now: Time) -> bool {
        self.since >= now
    }

    /// Brings the guest to `now`; reports how fast it has worked since it was last looked at. Since then its missing pages have moved at
    /// these rates.
    pub(super) fn advance(&mut self, now: Time, inflow: Inflow, observe: &mut impl FnMut(Observation)) {
        let elapsed = now.since(self.since).as_secs_f64();
        let from = self.since;
        self.since = self.since.max(now);
        if elapsed <= 0.0 {
            return;
        }
        let speed = self.share * self.cores_share;
        if self.run != Run::Running {
            observe(Observation::Work { until: now, rate: 0.0 });
        } else if self.residency.is_some() {
            self.run_incomplete(from, elapsed, inflow, observe);
        } else if let Some(cost) = self.tracking {
            let work = self.tracked_work(speed * elapsed, cost / self.vcpus);
            self.dirty_for(work);
            observe(Observation::Work { until: now, rate: work / elapsed / self.baseline });
        } else {
            observe(Observation::Work { until: now, rate: speed / self.baseline });
        }
    }

    /// The work time that fits into `busy` seconds when every newly dirtied page costs `cost` seconds.
    ///
    /// Solves work + cost x pages(work) = busy. The left side is concave, so that Newton's steps from zero approach the solution
    /// from below.
    fn tracked_work(&self, busy: f64, cost: f64) -> f64 {
        let writing = self.regions.iter().filter(|r| r.writes > 0.0 || matches!(r.pattern, Pattern::Curve(_)));
        if cost <= 0.0 || writing.clone().next().is_none() {
            return busy;
        }
        let per_byte = cost / PAGE_SIZE as f64;
        let mut work = 0.0;
        for _ in 0..64 {
            let (mut value, mut slope) = (work, 1.0);
            for r in writing.clone() {
                let dirty = dirty_after(&r.pattern, r.size, r.writes, r.dirty, work);
                value += per_byte * (dirty - r.dirty);
                slope += per_byte * dirtying_rate(&r.pattern, r.size, r.writes, dirty);
            }
            let step = (busy - value) / slope;
            work += step;
            if step <= busy * 1e-14 {
                break;
            }
        }
        work.clamp(0.0, busy)
    }

    fn dirty_for(&mut self, work: f64) {
        for r in &mut self.regions {
            r.dirty = dirty_after(&r.pattern, r.size, r.writes, r.dirty, work);
        }
    }

    /// The dirty fraction of a region `ahead` seconds from now, if the guest goes on as it does.
    pub(super) fn dirty_fraction_ahead(&self, class: usize, ahead: f64) -> f64 {
        let Some(r) = self.regions.get(class) else { return 0.0 };
        let busy = self.speed() * ahead;
        let work = self.tracking.map_or(busy, |cost| self.tracked_work(busy, cost / self.vcpus));
        dirty_after(&r.pattern, r.size, r.writes, r.dirty, work) / r.size
    }

    /// Of the pages of `set`, those that are not also in `other`, if both are spread at random over their regions.
    pub(super) fn without_overlap(&self, set: &Counted, other: &Counted) -> Counted {
        let mut bytes = [0; CLASSES];
        for (i, r) in self.regions.iter().enumerate() {
            let (mine, theirs) = (set.classes()[i] as f64, other.classes()[i] as f64);
            bytes[i] = (mine * (1.0 - theirs / r.size)) as u64;
        }
        Counted::new(bytes)
    }

    /// Pages of a send that is no push have gone: so many bytes of each region, this share of them to intermediaries.
    pub(super) fn place(&mut self, bytes: &[f64], staged: f64) {
        for (r, &more) in self.regions.iter_mut().zip(bytes) {
            r.staged = (r.staged + more * staged).min(r.size);
            r.unplaced = (r.unplaced - more).max(0.0);
        }
    }

    /// Of pages that are spread over the regions in these proportions, the share that others may have too.
    pub(super) fn shared_of(&self, parts: &[f64; CLASSES]) -> f64 {
        let Some(contents) = &self.contents else { return 0.0 };
        let (mut start, mut shared) = (0.0, 0.0);
        for (r, part) in self.regions.iter().zip(parts) {
            shared += part * contents.within(start, r.size) / r.size;
            start += r.size;
        }
        shared
    }

    /// Sizes of the regions, as a set of all pages.
    pub(super) fn memory(&self) -> Counted {
        self.count(|r| r.size)
    }

    pub(super) fn count(&self, of: impl Fn(&RegionState) -> f64) -> Counted {
        let mut bytes = [0; CLASSES];
        for (r, b) in self.regions.iter().zip(&mut bytes) {
            *b = of(r) as u64;
        }
        Counted::new(bytes)
    }
}

impl GuestModel for Guest {
    type Set = Counted;
    type Remap = Remap;

    fn new(size: Bytes, vcpus: u32, workload: &Workload, _seed: u64) -> Guest {
        let mut regions = layout(workload.regions(size), size);
        regions.iter_mut().for_each(|r| r.unplaced = r.size);
        Guest {
            regions,
            since: Time::ZERO,
            run: Run::Running,
            share: 1.0,
            cores_share: 1.0,
            baseline: 1.0,
            vcpus: f64::from(vcpus),
            tracking: None,
            residency: None,
            places: Places::default(),
            fetched: 0.0,
            contents: None,
        }
    }

    fn run(&self) -> Run {
        self.run
    }

    fn set_run(&mut self, run: Run) {
        self.run = run;
    }

    fn baseline(&self) -> f64 {
        self.baseline
    }

    fn speed(&self) -> f64 {
        if self.run == Run::Running { self.share * self.cores_share } else { 0.0 }
    }

    fn set_share(&mut self, share: Share) {
        self.share = share.get();
    }

    fn cores_share(&self) -> f64 {
        self.cores_share
    }

    fn set_cores_share(&mut self, share: f64, is_baseline: bool) {
        self.cores_share = share;
        if is_baseline {
            self.baseline = share;
        }
    }

    fn start_tracking(&mut self, cost: f64) {
        for r in &mut self.regions {
            r.dirty = r.size;
        }
        self.tracking = Some(cost);
    }

    fn stop_tracking(&mut self) {
        self.tracking = None;
    }

    fn dirty(&self) -> Bytes {
        self.count(|r| r.dirty).len()
    }

    fn collect(&mut self, limit: Option<Bytes>, mut draw: Option<&mut Pcg64Mcg>) -> Counted {
        let mut taken = [0; CLASSES];
        let mut left = limit.map_or(f64::INFINITY, |l| l.0 as f64);
        for (r, t) in self.regions.iter_mut().zip(&mut taken) {
            let dirty = draw
                .as_deref_mut()
                .map_or(r.dirty, |rng| crate::sample::dirty(r.dirty, r.size, &r.pattern, rng))
                .clamp(0.0, r.size);
            let take = dirty.min(left);
            left -= take;
            *t = take as u64;
            r.dirty = dirty - take;
        }
        Counted::new(taken)
    }

    /// Where pages of the same region are dirty already, some of them are the same.
    fn return_dirty(&mut self, set: &Counted) {
        for (r, &bytes) in self.regions.iter_mut().zip(set.classes()) {
            let bytes = bytes as f64;
            if bytes > 0.0 {
                r.dirty = (r.dirty + bytes * (1.0 - r.dirty / r.size)).min(r.size);
            }
        }
    }

    fn become_incomplete(&mut self, missing: &Counted, path: FaultPath) {
        for (r, &bytes) in self.regions.iter_mut().zip(missing.classes()) {
            r.missing = (bytes as f64 + r.staged).min(r.size);
            r.untouched = r.size;
            // What a sweep has dirtied lies behind it: it comes to it last.
            (r.lead, r.behind, r.has_pivot) = (r.size - r.missing, 1.0, false);
        }
        self.residency = Some(Box::new(Residency::new(path)));
    }

    fn source_sent(&mut self) {
        for r in &mut self.regions {
            r.missing = r.staged;
        }
        if self.places.is_empty() {
            self.residency = None;
        }
    }

    fn stage_fetched(&mut self) {
        self.places = Places::default();
        for r in &mut self.regions {
            self.fetched += r.staged;
            r.missing = r.at_source();
            r.staged = 0.0;
        }
        if self.regions.iter().all(|r| r.missing <= 0.0) {
            self.residency = None;
        }
    }

    fn staged(&self) -> f64 {
        self.regions.iter().map(|r| r.staged).sum()
    }

    fn at_source(&self) -> f64 {
        self.regions.iter().map(RegionState::at_source).sum()
    }

    fn fetched(&self) -> f64 {
        self.fetched
    }

    fn backlog(&self, via: u16) -> f64 {
        self.places.backlog(via)
    }

    fn stored(&self, via: u16) -> f64 {
        self.places.stored(via)
    }

    fn deduplicate(&mut self, contents: Contents) {
        self.contents = Some(Box::new(contents));
    }

    fn contents(&self) -> Option<&Contents> {
        self.contents.as_deref()
    }

    fn shared_part(&self) -> f64 {
        let all = self.staged();
        let mut parts = [0.0; CLASSES];
        for (part, r) in parts.iter_mut().zip(&self.regions) {
            *part = if all > 0.0 { r.staged / all } else { 0.0 };
        }
        self.shared_of(&parts)
    }

    fn distinct(&self, _via: u16) -> Option<f64> {
        None
    }

    /// Pages that nobody has are among those that go out; which of the others are staged is not known: as many as of all that somebody has.
    fn supersede(&mut self, set: &Counted) {
        if self.places.is_empty() {
            return;
        }
        for (r, &bytes) in self.regions.iter_mut().zip(set.classes()) {
            let newer = (bytes as f64 - r.unplaced).max(0.0);
            if newer > 0.0 {
                r.staged *= 1.0 - (newer / (r.size - r.unplaced)).min(1.0);
                r.unplaced = (r.unplaced + newer).min(r.size);
            }
        }
        self.places.set_total(self.staged());
    }

    fn lose_stage(&mut self, via: u16) -> Counted {
        let share = self.places.lose(via);
        let lost = self.count(|r| r.staged * share);
        for r in &mut self.regions {
            r.unplaced = (r.unplaced + r.staged * share).min(r.size);
            r.staged *= 1.0 - share;
        }
        lost
    }

    fn change_workload(&mut self, workload: &Workload, memory: Bytes) -> Remap {
        let mut next = layout(workload.regions(memory), memory);
        let remap = Remap::new(&self.regions, &next);
        for (j, to) in next.iter_mut().enumerate() {
            for (i, from) in self.regions.iter().enumerate() {
                to.dirty += from.dirty * remap.share[i][j];
                to.missing += from.missing * remap.share[i][j];
                to.staged += from.staged * remap.share[i][j];
                to.unplaced += from.unplaced * remap.share[i][j];
                to.untouched += from.untouched * remap.share[i][j];
            }
            if self.residency.is_some() {
                to.lead = to.size - to.missing;
            }
        }
        self.regions = next;
        remap
    }

    fn remap(remap: &Remap, set: &Counted) -> Counted {
        remap.apply(set)
    }
}

/// How much of each old region lies in each new one.
pub(crate) struct Remap {
    share: [[f64; CLASSES]; CLASSES],
}

impl Remap {
    fn new(old: &[RegionState], new: &[RegionState]) -> Remap {
        let mut share = [[0.0; CLASSES]; CLASSES];
        let mut start = 0.0;
        for (i, from) in old.iter().enumerate() {
            let mut at = 0.0;
            for (j, to) in new.iter().enumerate() {
                let overlap = f64::min(start + from.size, at + to.size) - f64::max(start, at);
                share[i][j] = overlap.max(0.0) / from.size;
                at += to.size;
            }
            start += from.size;
        }
        Remap { share }
    }

    /// The same pages, by the new regions.
    fn apply(&self, set: &Counted) -> Counted {
        let mut bytes = [0u64; CLASSES];
        for (i, &old) in set.classes().iter().enumerate() {
            let mut left = old;
            let last = self.share[i].iter().rposition(|&s| s > 0.0);
            for (j, to) in bytes.iter_mut().enumerate() {
                let part = if Some(j) == last { left } else { ((old as f64 * self.share[i][j]) as u64).min(left) };
                *to += part;
                left -= part;
            }
        }
        Counted::new(bytes)
    }
}

/// The regions of a workload, and behind them the memory that it does not access.
fn layout(regions: Vec<Region>, memory: Bytes) -> Box<[RegionState]> {
    let accessed: Bytes = regions.iter().map(|r| r.bytes).sum();
    let rest = memory.saturating_sub(accessed);
    let rest = Region { bytes: rest, writes: 0.0, reads: 0.0, pattern: Pattern::Random };
    let states: Box<[RegionState]> = regions
        .into_iter()
        .chain([rest])
        .filter(|r| !r.bytes.is_zero())
        .map(|r| RegionState {
            size: r.bytes.0 as f64,
            writes: r.writes,
            reads: r.reads,
            pattern: r.pattern,
            dirty: 0.0,
            missing: 0.0,
            staged: 0.0,
            unplaced: 0.0,
            untouched: 0.0,
            lead: 0.0,
            behind: 1.0,
            has_pivot: false,
        })
        .collect();
    assert!(states.len() <= CLASSES, "a workload has fewer regions than there are classes");
    states
}
