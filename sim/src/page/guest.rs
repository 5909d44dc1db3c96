//! A guest whose pages have an identity, and its dirty tracker: a bitmap.
//!
//! The guest works on its own, event by event, up to whatever moment it is asked to ([`Guest::run_to`]); a sender that wants to
//! know whether a page is dirty when its turn comes asks for that moment.

use super::places::Places;
use super::residency::Residency;
use super::sampler::{Hit, Sampler};
use super::transfer::Transfer;
use crate::dedup::Contents;
use crate::fidelity::{FaultPath, GuestModel, Lanes, Run};
use livemig_core::ledger::Observation;
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::units::{Bytes, PageIndex, Share, Time};
use livemig_models::world::Workload;
use rand_pcg::Pcg64Mcg;

/// A moment in seconds: exact to well below a nanosecond for days.
pub(super) fn seconds(t: Time) -> f64 {
    t.0 as f64 / 1e9
}

/// The application's rate is reported as the mean over at least this long, in seconds, while it changes with every page.
const GRAIN: f64 = 1e-3;

#[derive(Debug)]
pub(crate) struct Guest {
    pages: u64,
    pub(super) sampler: Sampler,
    pub(super) dirty: Bitmap,
    /// Seconds that a first write to a clean page costs, where writes are tracked.
    tracking: Option<f64>,
    pub(super) residency: Option<Residency>,
    /// What intermediaries have.
    pub(super) places: Places,
    /// Where a limited collection goes on.
    collected_to: PageIndex,
    since: Time,
    /// The moment that it has come to, in seconds.
    pub(super) at: f64,
    run: Run,
    share: f64,
    cores_share: f64,
    baseline: f64,
    pub(super) vcpus: u32,
    /// Seconds of vCPU time that tracking faults have cost and that have not passed yet.
    debt: f64,
    /// Work done, in seconds, that has not been reported, and since when.
    work: f64,
    reported: f64,
}

impl Guest {
    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Brings the guest, and the push that it waits for, to the moment `to`.
    pub(super) fn run_to(
        &mut self,
        to: f64,
        push: Option<&mut Transfer>,
        lanes: &Lanes<'_>,
        observe: &mut impl FnMut(Observation),
    ) {
        if self.residency.is_some() {
            self.run_incomplete(to, push, lanes, observe);
        }
        if self.at < to && self.tracking.is_some() && self.speed() > 0.0 {
            self.run_tracked(to, observe);
        }
        if self.at < to {
            let work = self.speed() * (to - self.at);
            self.sampler.drift(work);
            self.worked(to, work, observe);
        }
    }

    /// Every first write costs its vCPU a fault; several vCPUs are taken together.
    fn run_tracked(&mut self, to: f64, observe: &mut impl FnMut(Observation)) {
        let cost = self.tracking.unwrap_or(0.0) / f64::from(self.vcpus);
        let speed = self.speed();
        while self.at < to {
            let paid = self.debt.min((to - self.at) * speed);
            self.debt -= paid;
            if paid > 0.0 {
                let at = if self.debt > 0.0 { to } else { (self.at + paid / speed).min(to) };
                self.worked(at, 0.0, observe);
                continue;
            }
            let ahead = self.sampler.ahead(&self.dirty);
            let left = (to - self.at) * speed;
            self.sampler.pass(ahead.min(left));
            if ahead > left {
                self.worked(to, left, observe);
                return;
            }
            self.worked((self.at + ahead / speed).min(to), ahead, observe);
            if let Hit::New(page) = self.sampler.hit(&self.dirty) {
                self.dirty.insert(page);
                self.debt += cost;
            }
        }
    }

    /// The guest has done so many seconds of work until the moment `at`.
    pub(super) fn worked(&mut self, at: f64, work: f64, observe: &mut impl FnMut(Observation)) {
        self.at = at;
        self.work += work;
        if at - self.reported >= GRAIN {
            self.report(Time((at * 1e9) as u64), observe);
        }
    }

    fn report(&mut self, until: Time, observe: &mut impl FnMut(Observation)) {
        let elapsed = self.at - self.reported;
        if elapsed > 0.0 {
            let rate = self.work / elapsed / self.baseline;
            observe(Observation::Work { until, rate });
        }
        (self.work, self.reported) = (0.0, self.at);
    }

    /// Everything up to `now` has happened.
    pub(super) fn arrive_at(&mut self, now: Time, observe: &mut impl FnMut(Observation)) {
        self.at = seconds(now);
        self.report(now, observe);
        self.since = now;
    }

    fn renew(&mut self) {
        match &self.residency {
            Some(residency) => self.sampler.renew(residency.touched(), false),
            None => self.sampler.renew(&self.dirty, true),
        }
    }
}

impl GuestModel for Guest {
    type Set = Bitmap;
    type Remap = ();

    fn new(size: Bytes, vcpus: u32, workload: &Workload, seed: u64) -> Guest {
        Guest {
            pages: size.pages(),
            sampler: Sampler::new(workload, size, seed),
            dirty: Bitmap::default(),
            tracking: None,
            residency: None,
            places: Places::default(),
            collected_to: PageIndex(0),
            since: Time::ZERO,
            at: 0.0,
            run: Run::Running,
            share: 1.0,
            cores_share: 1.0,
            baseline: 1.0,
            vcpus,
            debt: 0.0,
            work: 0.0,
            reported: 0.0,
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
        self.dirty = Bitmap::full(self.pages);
        self.tracking = Some(cost);
        self.renew();
    }

    fn stop_tracking(&mut self) {
        self.tracking = None;
        self.debt = 0.0;
    }

    fn dirty(&self) -> Bytes {
        self.dirty.len()
    }

    /// Pages are drawn anyway; with a limit it goes on round where the last limited collection ended.
    fn collect(&mut self, limit: Option<Bytes>, _draw: Option<&mut Pcg64Mcg>) -> Bitmap {
        let taken = match limit {
            None => std::mem::take(&mut self.dirty),
            Some(limit) => self.collect_some(limit.pages()),
        };
        self.renew();
        taken
    }

    fn return_dirty(&mut self, set: &Bitmap) {
        self.dirty.insert_all(set);
        self.renew();
    }

    fn become_incomplete(&mut self, missing: &Bitmap, path: FaultPath) {
        let mut all = missing.clone();
        all.insert_all(self.places.staged());
        self.residency = Some(Residency::new(all, path));
        self.renew();
    }

    fn source_sent(&mut self) {
        let at = self.at;
        if let Some(residency) = &mut self.residency {
            residency.all_sent(at, self.places.staged());
        }
    }

    fn stage_fetched(&mut self) {
        let at = self.at;
        if let Some(residency) = &mut self.residency {
            residency.all_sent(at, &Bitmap::default());
        }
    }

    fn staged(&self) -> f64 {
        self.places.staged().len().0 as f64
    }

    fn at_source(&self) -> f64 {
        self.residency.as_ref().map_or(0.0, |r| r.at_source(self.places.staged()).len().0 as f64)
    }

    fn fetched(&self) -> f64 {
        self.places.fetched
    }

    fn backlog(&self, via: u16) -> f64 {
        self.places.backlog(via)
    }

    fn stored(&self, via: u16) -> f64 {
        self.places.stored(via)
    }

    fn deduplicate(&mut self, contents: Contents) {
        self.places.deduplicate(contents);
    }

    fn contents(&self) -> Option<&Contents> {
        self.places.contents()
    }

    fn shared_part(&self) -> f64 {
        self.places.shared_part()
    }

    fn distinct(&self, via: u16) -> Option<f64> {
        self.places.contents().map(|c| c.distinct(via))
    }

    fn supersede(&mut self, set: &Bitmap) {
        self.places.forget(set);
    }

    fn lose_stage(&mut self, via: u16) -> Bitmap {
        self.places.lose(via)
    }

    fn change_workload(&mut self, workload: &Workload, memory: Bytes) {
        self.sampler.change(workload, memory);
        self.renew();
    }

    fn remap((): &(), set: &Bitmap) -> Bitmap {
        set.clone()
    }
}

impl Guest {
    fn collect_some(&mut self, limit: u64) -> Bitmap {
        let mut taken = Bitmap::default();
        let mut from = self.collected_to;
        while taken.count() < limit {
            let Some(first) = self.dirty.next_at(from) else {
                if self.dirty.count() == 0 {
                    break;
                }
                from = PageIndex(0);
                continue;
            };
            let pages = self.dirty.run_from(first, limit - taken.count());
            self.dirty.remove_run(first, pages);
            taken.insert_run(first, pages);
            from = PageIndex(first.0 + pages);
        }
        self.collected_to = from;
        taken
    }
}
