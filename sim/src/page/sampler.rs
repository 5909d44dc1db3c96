//! When, and on which page, the next access falls that changes something.
//!
//! Accesses at random form a Poisson process in *work time*, the time that the guest would have needed at full speed. Of it only the
//! accesses to new pages matter. They are a Poisson process too, whose rate is the sum of the rates of the pages that are new,
//! and the page is one of these in proportion to its rate; under Zipf's law by thinning (Lewis and Shedler, Naval Research Logistics
//! 1979): a candidate of a pool is taken with its rate divided by the largest of the pool. Sweeps and curves come at set times.

use super::access::Sources;
use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, PageIndex};
use livemig_models::world::Workload;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

#[derive(Debug)]
pub(super) struct Sampler {
    sources: Sources,
    rng: Pcg64Mcg,
    /// What the integral of the rate of random accesses must still grow by until the next one.
    due: f64,
    /// Pages that are waited for, each with its rate: whoever accesses one waits too.
    waited: Vec<(PageIndex, f64)>,
    hazard: f64,
    next: Next,
}

/// Where the next candidate comes from.
#[derive(Clone, Copy, Debug)]
enum Next {
    Nowhere,
    Random,
    Sweep(usize),
    Measured(usize),
}

/// A time between events of which one is expected per unit.
fn exponential(rng: &mut Pcg64Mcg) -> f64 {
    -libm::log1p(-rng.random::<f64>())
}

/// What an access falls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    Nothing,
    New(PageIndex),
    Waited(PageIndex),
}

impl Sampler {
    pub(super) fn new(workload: &Workload, memory: Bytes, seed: u64) -> Sampler {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let due = exponential(&mut rng);
        let sources = Sources::new(workload, memory);
        Sampler { sources, rng, due, waited: Vec::new(), hazard: 0.0, next: Next::Nowhere }
    }

    /// The workload is another from now on; what is new has to be said anew.
    pub(super) fn change(&mut self, workload: &Workload, memory: Bytes) {
        self.sources = Sources::new(workload, memory);
        self.next = Next::Nowhere;
    }

    /// What has been seen has changed, or what counts as seeing.
    pub(super) fn renew(&mut self, seen: &Bitmap, writes_only: bool) {
        self.sources.renew(seen, writes_only);
        self.next = Next::Nowhere;
    }

    /// Seconds of work until the next candidate.
    pub(super) fn ahead(&mut self, seen: &Bitmap) -> f64 {
        let pools: f64 = self.sources.pools.iter().map(super::access::Pool::hazard).sum();
        self.hazard = pools + self.waited.iter().map(|w| w.1).sum::<f64>();
        let mut ahead = if self.hazard > 0.0 { self.due / self.hazard } else { f64::INFINITY };
        self.next = if self.hazard > 0.0 { Next::Random } else { Next::Nowhere };
        for (i, sweep) in self.sources.sweeps.iter_mut().enumerate() {
            let its = sweep.ahead(seen);
            if its < ahead {
                (ahead, self.next) = (its, Next::Sweep(i));
            }
        }
        for (i, measured) in self.sources.measured.iter().enumerate() {
            let its = measured.ahead();
            if its < ahead {
                (ahead, self.next) = (its, Next::Measured(i));
            }
        }
        ahead
    }

    /// Goes on for `work` seconds, at most to the next candidate; to be called after [`Sampler::ahead`].
    pub(super) fn pass(&mut self, work: f64) {
        self.due = (self.due - self.hazard * work).max(0.0);
        self.sources.sweeps.iter_mut().for_each(|s| s.pass(work));
        self.sources.measured.iter_mut().for_each(|m| m.pass(work));
    }

    /// Goes on for `work` seconds in which nothing is of interest.
    pub(super) fn drift(&mut self, work: f64) {
        self.sources.sweeps.iter_mut().for_each(|s| s.drift(work));
    }

    /// The candidate that is due; to be called when the work that [`Sampler::ahead`] has said is done.
    pub(super) fn hit(&mut self, seen: &Bitmap) -> Hit {
        let page = match self.next {
            Next::Nowhere => None,
            Next::Sweep(i) => self.sources.sweeps[i].meet(seen),
            Next::Measured(i) => self.sources.measured[i].draw(seen, &mut self.rng),
            Next::Random => return self.random_hit(seen),
        };
        page.map_or(Hit::Nothing, Hit::New)
    }

    fn random_hit(&mut self, seen: &Bitmap) -> Hit {
        self.due = exponential(&mut self.rng);
        let mut at = self.rng.random::<f64>() * self.hazard;
        for &(page, rate) in &self.waited {
            if at < rate {
                return Hit::Waited(page);
            }
            at -= rate;
        }
        let mut last = None;
        for (i, pool) in self.sources.pools.iter().enumerate().filter(|(_, p)| p.hazard() > 0.0) {
            last = Some(i);
            if at < pool.hazard() {
                break;
            }
            at -= pool.hazard();
        }
        // Rounding may lead past the last.
        let page = last.and_then(|i| self.sources.pools[i].draw(seen, &mut self.rng));
        page.map_or(Hit::Nothing, Hit::New)
    }

    /// The most new pages per second of work that can be expected from now on until what is seen changes otherwise.
    pub(super) fn most(&self) -> f64 {
        self.sources.most()
    }

    pub(super) fn wait_for(&mut self, page: PageIndex) {
        let rate = self.sources.pools.iter().map(|p| p.rate_of(page)).sum();
        if rate > 0.0 {
            self.waited.push((page, rate));
        }
    }

    pub(super) fn has_come(&mut self, page: PageIndex) {
        self.waited.retain(|w| w.0 != page);
    }
}
