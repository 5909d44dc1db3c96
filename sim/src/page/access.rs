//! Where new pages come from: accesses at random, sweeps, and measured curves.
//!
//! *New* is a page that has not been seen: not dirty while writes are tracked, not touched while memory is missing.

use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex};
use livemig_models::world::{DirtyCurve, Pattern, Workload, power_sum};
use rand::{Rng, RngExt};
use std::sync::Arc;

/// Pages that are accessed at random, each by itself at a rate of its own.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    first: u64,
    pages: u64,
    /// Writes and reads per second of the first page; the others' are less under Zipf's law and equal otherwise.
    writes: f64,
    reads: f64,
    zipf: Option<Zipf>,
    /// What counts now: writes, or all accesses.
    rate: f64,
    /// Pages that may be new.
    fresh: Vec<u32>,
}

/// Rates that fall with the rank of a page: rank^-exponent.
#[derive(Clone, Copy, Debug)]
struct Zipf {
    exponent: f64,
    /// Rank of the pool's first page, from 1; ranks grow with addresses.
    rank: u64,
}

impl Pool {
    fn uniform(first: u64, pages: u64, writes: f64, reads: f64) -> Pool {
        let each = 1.0 / pages as f64;
        Pool { first, pages, writes: writes * each, reads: reads * each, zipf: None, rate: 0.0, fresh: Vec::new() }
    }

    /// One pool per doubling of the rank, so that within a pool rates differ by no more than 2^exponent.
    fn zipf(first: u64, pages: u64, exponent: f64, writes: f64, reads: f64) -> impl Iterator<Item = Pool> {
        let total = power_sum(0, pages, exponent);
        std::iter::successors(Some(1_u64), |rank| rank.checked_mul(2)).take_while(move |&rank| rank <= pages).map(move |rank| {
            let each = libm::pow(rank as f64, -exponent) / total;
            Pool {
                first: first + rank - 1,
                pages: rank.min(pages + 1 - rank),
                writes: writes * each,
                reads: reads * each,
                zipf: Some(Zipf { exponent, rank }),
                rate: 0.0,
                fresh: Vec::new(),
            }
        })
    }

    fn renew(&mut self, seen: &Bitmap, writes_only: bool) {
        self.rate = if writes_only { self.writes } else { self.writes + self.reads };
        self.fresh.clear();
        if self.rate > 0.0 {
            list_unseen(seen, self.first, self.pages, &mut self.fresh);
        }
    }

    /// Candidates per second.
    pub(super) fn hazard(&self) -> f64 {
        self.rate * self.fresh.len() as f64
    }

    /// Draws a candidate; `None` when the access falls on no new page.
    pub(super) fn draw(&mut self, seen: &Bitmap, rng: &mut impl Rng) -> Option<PageIndex> {
        let at = rng.random_range(0..self.fresh.len());
        let page = PageIndex(u64::from(self.fresh[at]));
        let share = self.share_of(page);
        if share < 1.0 && rng.random::<f64>() >= share {
            return None;
        }
        self.fresh.swap_remove(at);
        (!seen.contains(page)).then_some(page)
    }

    /// The rate of a page as a share of that of the pool's first.
    fn share_of(&self, page: PageIndex) -> f64 {
        self.zipf.map_or(1.0, |z| {
            let rank = z.rank + page.0 - self.first;
            libm::pow(rank as f64 / z.rank as f64, -z.exponent)
        })
    }

    /// Accesses per second of one page; zero outside of the pool.
    pub(super) fn rate_of(&self, page: PageIndex) -> f64 {
        if (self.first..self.first + self.pages).contains(&page.0) { self.rate * self.share_of(page) } else { 0.0 }
    }
}

/// Accesses in address order, again and again.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    first: u64,
    pages: u64,
    /// Pages per second.
    rate: f64,
    writes: bool,
    /// The page that is accessed next.
    next: u64,
    /// Seconds of work until then.
    phase: f64,
    target: Target,
}

/// The next new page of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Unknown,
    /// There is none, or it does not count.
    None,
    Page(u64),
}

impl Sweep {
    fn new(first: u64, pages: u64, rate: f64, writes: bool) -> Option<Sweep> {
        (rate > 0.0).then(|| Sweep { first, pages, rate, writes, next: first, phase: 1.0 / rate, target: Target::None })
    }

    fn renew(&mut self, writes_only: bool) {
        self.target = if self.writes || !writes_only { Target::Unknown } else { Target::None };
    }

    /// Seconds of work until it meets the next new page.
    pub(super) fn ahead(&mut self, seen: &Bitmap) -> f64 {
        if self.target == Target::Unknown {
            self.target = self.find(seen).map_or(Target::None, Target::Page);
        }
        match self.target {
            Target::Page(page) => self.phase + self.distance(page) as f64 / self.rate,
            Target::Unknown | Target::None => f64::INFINITY,
        }
    }

    fn find(&self, seen: &Bitmap) -> Option<u64> {
        let end = self.first + self.pages;
        let up = self.next + seen.run_from(PageIndex(self.next), end - self.next);
        if up < end {
            return Some(up);
        }
        let round = self.first + seen.run_from(PageIndex(self.first), self.next - self.first);
        (round < self.next).then_some(round)
    }

    /// How many accesses come before that of `page`.
    fn distance(&self, page: u64) -> u64 {
        if page >= self.next { page - self.next } else { page + self.pages - self.next }
    }

    /// Goes on for `work` seconds, but not past what [`Sweep::ahead`] has found.
    pub(super) fn pass(&mut self, work: f64) {
        self.phase -= work;
        if self.phase > 0.0 {
            return;
        }
        let mut steps = 1 + (-self.phase * self.rate) as u64;
        if let Target::Page(page) = self.target {
            steps = steps.min(self.distance(page));
        }
        self.phase = (self.phase + steps as f64 / self.rate).max(0.0);
        self.next = self.first + (self.next - self.first + steps) % self.pages;
    }

    /// Goes on for `work` seconds, over whatever is there.
    pub(super) fn drift(&mut self, work: f64) {
        self.target = Target::None;
        self.pass(work);
    }

    /// Accesses the page that was found.
    pub(super) fn meet(&mut self, seen: &Bitmap) -> Option<PageIndex> {
        let Target::Page(page) = std::mem::replace(&mut self.target, Target::Unknown) else { return None };
        self.next = if page + 1 == self.first + self.pages { self.first } else { page + 1 };
        self.phase = 1.0 / self.rate;
        (!seen.contains(PageIndex(page))).then_some(PageIndex(page))
    }
}

/// Writes of which only the number of distinct pages is known.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    first: u64,
    pages: u64,
    curve: Arc<DirtyCurve>,
    /// Seconds of work since its beginning.
    clock: f64,
    written: u64,
    fresh: Vec<u32>,
}

impl Measured {
    fn renew(&mut self, seen: &Bitmap) {
        self.fresh.clear();
        list_unseen(seen, self.first, self.pages, &mut self.fresh);
        self.written = self.pages - self.fresh.len() as u64;
        self.clock = self.curve.time_of((self.written * PAGE_SIZE) as f64);
    }

    pub(super) fn ahead(&self) -> f64 {
        let next = ((self.written + 1) * PAGE_SIZE) as f64;
        let most = self.curve.points.last().map_or(0.0, |p| p.1);
        if self.fresh.is_empty() || next > most {
            return f64::INFINITY;
        }
        (self.curve.time_of(next) - self.clock).max(0.0)
    }

    pub(super) fn pass(&mut self, work: f64) {
        self.clock += work;
    }

    pub(super) fn draw(&mut self, seen: &Bitmap, rng: &mut impl Rng) -> Option<PageIndex> {
        let page = PageIndex(u64::from(self.fresh.swap_remove(rng.random_range(0..self.fresh.len()))));
        self.written += 1;
        (!seen.contains(page)).then_some(page)
    }
}

fn list_unseen(seen: &Bitmap, first: u64, pages: u64, list: &mut Vec<u32>) {
    let mut page = first;
    while page < first + pages {
        if seen.contains(PageIndex(page)) {
            page += seen.run_from(PageIndex(page), first + pages - page);
        } else {
            list.push(u32::try_from(page).expect("a guest of less than 16 TiB"));
            page += 1;
        }
    }
}

/// All sources of a workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    pub(super) pools: Vec<Pool>,
    pub(super) sweeps: Vec<Sweep>,
    pub(super) measured: Vec<Measured>,
}

impl Sources {
    /// A sweep that writes and reads is two sweeps, each with a pointer of its own.
    pub(super) fn new(workload: &Workload, memory: Bytes) -> Sources {
        let mut sources = Sources::default();
        if let Workload::Zipf { working_set, exponent, writes, reads } = workload {
            let pages = (*working_set).min(memory).pages();
            sources.pools.extend(Pool::zipf(0, pages, *exponent, *writes, *reads));
            return sources;
        }
        let mut bytes = Bytes::ZERO;
        for region in workload.regions(memory) {
            let first = bytes.pages();
            bytes += region.bytes;
            let pages = bytes.pages() - first;
            if pages == 0 {
                continue;
            }
            match region.pattern {
                Pattern::Random => sources.pools.push(Pool::uniform(first, pages, region.writes, region.reads)),
                Pattern::Sweep => {
                    sources.sweeps.extend(Sweep::new(first, pages, region.writes, true));
                    sources.sweeps.extend(Sweep::new(first, pages, region.reads, false));
                }
                Pattern::Curve(curve) => {
                    sources.pools.push(Pool::uniform(first, pages, 0.0, region.reads));
                    sources.measured.push(Measured { first, pages, curve, clock: 0.0, written: 0, fresh: Vec::new() });
                }
            }
        }
        sources
    }

    pub(super) fn renew(&mut self, seen: &Bitmap, writes_only: bool) {
        self.pools.iter_mut().for_each(|p| p.renew(seen, writes_only));
        self.sweeps.iter_mut().for_each(|s| s.renew(writes_only));
        self.measured.iter_mut().for_each(|m| m.renew(seen));
    }
}

impl Sources {
    /// The most new pages per second of work, from now on until [`Sources::renew`].
    pub(super) fn most(&self) -> f64 {
        let pools: f64 = self.pools.iter().map(Pool::hazard).sum();
        let sweeps: f64 = self.sweeps.iter().filter(|s| s.target != Target::None).map(|s| s.rate).sum();
        let steepest = |m: &Measured| {
            m.curve.points.windows(2).map(|p| (p[1].1 - p[0].1) / (p[1].0 - p[0].0)).fold(0.0, f64::max) / PAGE_SIZE as f64
        };
        pools + sweeps + self.measured.iter().map(steepest).sum::<f64>()
    }
}
