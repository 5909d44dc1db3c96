//! A guest whose memory is still arriving.
//!
//! Any access to a missing page stalls its vCPU for round trip + service + transfer. The guest then works at
//! 1 / (1 + faults per unit of work x stall / vCPUs) of its speed; what it asks for comes out of the migration's own bandwidth,
//! the push gets the rest. The equations are integrated in steps in which the fault rate moves by at most 4 %, as long as it slows the
//! guest down.
//!
//! A sweep meets pages in their order: it faults when it has caught up with the push, and then as often as the push falls behind it.
//!
//! Of what is missing a part is staged at intermediaries. A fault is answered by whoever has the page; what is asked for comes first in
//! what reaches the destination, whether the source or an intermediary sends it, and push and gathering share the rest as their rates are.
//! What the source sends in all does not depend on the faults: what does not go to the destination goes to intermediaries.

use super::guest::{Guest, RegionState};
use crate::fidelity::FaultPath;
use livemig_core::ledger::Observation;
use livemig_core::pages::{CLASSES, Counted};
use livemig_core::units::{PAGE_SIZE, Span, Time};
use livemig_core::vocabulary::Prepaging;
use livemig_models::world::Pattern;

const PAGE: f64 = PAGE_SIZE as f64;
/// So many steps are not needed between two events: each ends a region or moves the fault rate by its share.
const MAX_STEPS: u32 = 4000;
/// By how much of itself the fault rate may move in a step, and by how much of a slowdown it may if that is more.
const FAULT_RATE_CHANGE: f64 = 0.04;
const SLOWDOWN_CHANGE: f64 = 0.002;
/// Fewer bytes are nothing.
const NOTHING: f64 = 0.5 * PAGE;

/// Bytes of pages per second while memory is missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inflow {
    /// From the source to the destination.
    pub(super) direct: f64,
    /// From the source to intermediaries.
    pub(super) scatter: f64,
    /// From intermediaries to the destination.
    pub(super) gather: f64,
}

impl Inflow {
    /// What is there for faults: everything that reaches the destination. A source that sends nothing there straight interrupts what it
    /// scatters; intermediaries that are not fetched from serve faults as fast as they come.
    fn for_faults(&self) -> f64 {
        let arriving = self.direct + self.gather;
        if arriving > 0.0 { arriving } else { self.scatter }
    }
}

/// Bytes of pages that have moved between source, intermediaries and destination.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) scattered: f64,
    pub(super) fetched: f64,
}

#[derive(Clone, Debug)]
pub(super) struct Residency {
    /// Round trip and service of a fault, in seconds.
    stall: f64,
    /// The order of the push.
    order: Prepaging,
    /// How fast pages move.
    inflow: Inflow,
    /// Bytes of pages that have moved and were not yet entered in the books of the intermediaries.
    moved: Moved,
    /// Bytes of pages that the guest has asked for.
    demanded: f64,
    /// Faults and first touches not yet reported, below one.
    carried: (f64, f64),
}

impl Residency {
    pub(super) fn new(path: FaultPath) -> Residency {
        let stall = (path.latency.times(2) + path.service).as_secs_f64();
        let (inflow, moved) = (Inflow::default(), Moved::default());
        Residency { stall, order: path.order, inflow, moved, demanded: 0.0, carried: (0.0, 0.0) }
    }

    /// How long a fault lasts where `rate` pages arrive per second: round trip, service, its page, and half of the one that is on the wire.
    fn stall(&self, rate: f64) -> f64 {
        self.stall + if rate > 0.0 { 1.5 / rate } else { f64::INFINITY }
    }

    /// Faults and first touches as whole numbers; the remainder is kept for the next time.
    fn whole(&mut self, faults: f64, touches: f64) -> (u64, u64) {
        let (f, t) = (self.carried.0 + faults, self.carried.1 + touches);
        let whole = (f as u64, t as u64);
        self.carried = (f - whole.0 as f64, t - whole.1 as f64);
        whole
    }
}

impl RegionState {
    fn accesses(&self) -> f64 {
        self.writes + self.reads
    }

    /// Pages first touched per second of work, of the untouched and of those among them that are missing.
    fn touches(&self) -> (f64, f64) {
        if self.untouched <= 0.0 {
            return (0.0, 0.0);
        }
        match self.pattern {
            // A sweep meets a new page at every step until it has been round.
            Pattern::Sweep => (self.accesses(), self.accesses() * if self.lead > 0.0 { 0.0 } else { self.behind }),
            Pattern::Random | Pattern::Curve(_) => {
                let first = self.accesses() * self.untouched / self.size;
                (first, first * (self.missing / self.untouched).min(1.0))
            }
        }
    }

    fn is_sweep(&self) -> bool {
        matches!(self.pattern, Pattern::Sweep) && self.accesses() > 0.0
    }

    /// Of the pages pushed into a region that is swept, those that come to lie ahead of the sweep: all, but of a bubble one of its two
    /// edges.
    fn ahead(&self, order: Prepaging) -> f64 {
        match order {
            Prepaging::Bubbling { .. } if self.has_pivot => 0.5,
            Prepaging::Bubbling { .. } | Prepaging::AddressOrder => 1.0,
        }
    }

    /// Missing, and at the source.
    pub(super) fn at_source(&self) -> f64 {
        (self.missing - self.staged).max(0.0)
    }

    fn accessed_missing(&self) -> bool {
        self.missing > 0.0 && self.accesses() > 0.0
    }
}

/// The speeds that hold during one step.
struct Step {
    length: f64,
    speed: f64,
    stall: f64,
    faults: f64,
}

impl Guest {
    /// Bytes of pages that the guest has asked for so far.
    pub(super) fn demanded(&self) -> f64 {
        self.residency.as_ref().map_or(0.0, |r| r.demanded)
    }

    /// Missing pages that the source has, in whole bytes per region.
    pub(super) fn unsent(&self) -> Counted {
        self.count(RegionState::at_source)
    }

    /// What has moved since this was last asked.
    pub(super) fn take_moved(&mut self) -> Moved {
        self.residency.as_mut().map_or_else(Moved::default, |r| std::mem::take(&mut r.moved))
    }

    pub(super) fn run_incomplete(&mut self, from: Time, elapsed: f64, inflow: Inflow, observe: &mut impl FnMut(Observation)) {
        let Some(mut residency) = self.residency.take() else { return };
        residency.inflow = inflow;
        let mut done = 0.0;
        for i in 1..=MAX_STEPS {
            let left = elapsed - done;
            if left <= 0.0 {
                break;
            }
            self.meet_the_push(&residency);
            let step = self.plan_step(&residency, if i == MAX_STEPS { f64::INFINITY } else { left }, left);
            self.take_step(&mut residency, &step, observe);
            done += step.length;
            observe(Observation::Work { until: from + Span::from_secs_f64(done), rate: step.speed / self.baseline });
        }
        self.residency = Some(residency);
    }

    /// How many of the pages that a sweep meets it has to ask for where it has caught up with the push: of the v pages that it passes per
    /// second the part m, so that v (1 - m) is what the push brings with what faults leave it.
    fn meet_the_push(&mut self, residency: &Residency) {
        let (full, vcpus, order) = (self.share * self.cores_share, self.vcpus, residency.order);
        let rate = residency.inflow.for_faults() / PAGE;
        let stall = residency.stall(rate);
        for r in self.regions.iter_mut().filter(|r| r.is_sweep() && r.missing > 0.0 && r.lead <= 0.0) {
            let passed = |m: f64| full * r.accesses() / (1.0 + full * r.accesses() * m * stall / vcpus);
            let short = |m: f64| passed(m) * (1.0 - m) - r.ahead(order) * (rate - m * passed(m));
            r.behind = if rate <= 0.0 {
                1.0
            } else if short(0.0) <= 0.0 {
                0.0
            } else {
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..40 {
                    let middle = 0.5 * (low + high);
                    if short(middle) > 0.0 { low = middle } else { high = middle }
                }
                high
            };
            r.has_pivot |= r.behind > 0.0;
        }
    }

    /// How fast the guest works on what it has, and how long that may be taken as constant.
    fn plan_step(&self, residency: &Residency, limit: f64, left: f64) -> Step {
        let full = self.share * self.cores_share;
        let per_work: f64 = self.regions.iter().map(|r| r.touches().1).sum();
        let rate = self.rate_for_faults(&residency.inflow);
        let stall = residency.stall(rate / PAGE);
        let mut speed = if per_work > 0.0 { full / (1.0 + full * per_work * stall / self.vcpus) } else { full };
        if per_work * speed * PAGE > rate {
            speed = rate / (PAGE * per_work);
        }
        let faults = per_work * speed;
        let mut length = left;
        if limit.is_finite() {
            let bulk = self.bulk(residency, faults);
            let (push, gather) = self.bulk_shares(residency.order);
            let mut fall = 0.0;
            for (i, r) in self.regions.iter().enumerate() {
                let (first, missed) = r.touches();
                let loss = missed * speed * PAGE + bulk.direct * push[i] + bulk.gather * gather[i];
                if r.missing <= 0.0 || loss <= 0.0 {
                    continue;
                }
                length = length.min(r.missing.max(NOTHING) / loss);
                if r.is_sweep() {
                    let closing = first * speed * PAGE - r.ahead(residency.order) * (loss - missed * speed * PAGE);
                    if r.lead > 0.0 && closing > 0.0 {
                        length = length.min(r.lead.max(NOTHING) / closing);
                    }
                } else {
                    fall += missed * loss / r.missing;
                }
            }
            if fall > 0.0 {
                let change = (FAULT_RATE_CHANGE * per_work).max(SLOWDOWN_CHANGE * self.vcpus / (full * stall));
                length = length.min(change / fall);
            }
        }
        Step { length: length.max(1e-9).min(left), speed, stall, faults }
    }

    /// Of the pages that the guest asks for, the share that is staged.
    fn asked_of_stage(&self) -> f64 {
        let asked = || self.regions.iter().filter(|r| r.accessed_missing());
        let all: f64 = asked().map(|r| r.touches().1).sum();
        let staged: f64 = asked().map(|r| r.touches().1 * r.staged / r.missing).sum();
        if all > 0.0 { (staged / all).min(1.0) } else { 0.0 }
    }

    /// How many bytes the guest can ask for: where both source and intermediaries send, no more of either than comes from there.
    fn rate_for_faults(&self, inflow: &Inflow) -> f64 {
        if inflow.scatter > 0.0 || inflow.direct <= 0.0 || inflow.gather <= 0.0 {
            return inflow.for_faults();
        }
        let staged = self.asked_of_stage();
        (inflow.direct / (1.0 - staged)).min(inflow.gather / staged)
    }

    /// What is left of the rates for pages that nobody has asked for, at so many faults per second.
    fn bulk(&self, residency: &Residency, faults: f64) -> Inflow {
        let Inflow { direct, scatter, gather } = residency.inflow;
        let asked = faults * PAGE;
        if scatter <= 0.0 && gather <= 0.0 {
            let left = if direct > 0.0 { (1.0 - asked / direct).max(0.0) } else { 0.0 };
            return Inflow { direct: direct * left, scatter: 0.0, gather: 0.0 };
        }
        // Who has the page answers; what its way does not carry is at the expense of the other.
        let of_stage = asked * self.asked_of_stage();
        let of_source = asked - of_stage;
        let left = Inflow {
            direct: (direct - of_source - (of_stage - gather).max(0.0)).max(0.0),
            scatter: 0.0,
            gather: (gather - of_stage - (of_source - direct).max(0.0)).max(0.0),
        };
        let scatter = if scatter > 0.0 { (direct + scatter - left.direct - of_source).max(0.0) } else { 0.0 };
        Inflow { scatter, ..left }
    }

    fn take_step(&mut self, residency: &mut Residency, step: &Step, observe: &mut impl FnMut(Observation)) {
        let bulk = self.bulk(residency, step.faults);
        let (push_shares, _) = self.bulk_shares(residency.order);
        let scattering = bulk.scatter * step.length;
        // What is scattered within the step may be fetched within it too.
        let gather_shares = self.shares(residency.order, |i, r| r.staged + (scattering * push_shares[i]).min(r.at_source()));
        let (mut faults, mut touches) = (0.0, 0.0);
        for (i, r) in self.regions.iter_mut().enumerate() {
            let (first, missed) = r.touches();
            let work = step.speed * step.length;
            let asked = (missed * work * PAGE).min(r.missing);
            let asked_staged = if r.missing > 0.0 { asked * r.staged / r.missing } else { 0.0 };
            faults += asked / PAGE;
            touches += (first - missed) * work;
            let before = r.missing;
            let pushed = bulk.direct * step.length * push_shares[i];
            let at_source = (r.at_source() - (asked - asked_staged) - pushed).max(0.0);
            let scattered = (scattering * push_shares[i]).min(at_source);
            let fetched = (bulk.gather * step.length * gather_shares[i]).min(r.staged - asked_staged + scattered);
            r.staged = (r.staged - asked_staged + scattered - fetched).max(0.0);
            r.missing = at_source - scattered + r.staged;
            if r.missing < NOTHING {
                (r.missing, r.staged) = (0.0, 0.0);
            }
            if r.is_sweep() {
                let met = (first - missed) * work * PAGE;
                r.lead += r.ahead(residency.order) * (pushed + fetched).min(before) - met;
                if r.lead < NOTHING {
                    r.lead = 0.0;
                }
            }
            r.untouched = (r.untouched - first * work * PAGE).max(r.missing);
            residency.moved.scattered += scattered;
            residency.moved.fetched += fetched;
            self.fetched += fetched + asked_staged;
        }
        residency.demanded += faults * PAGE;
        let (count, present) = residency.whole(faults, touches);
        if count > 0 {
            observe(Observation::Faults { count, stall: Span::from_secs_f64(step.stall) });
        }
        if present > 0 {
            observe(Observation::FirstTouches(present));
        }
    }

    /// Which share of what the source sends, and of what is fetched, is of each region.
    fn bulk_shares(&self, order: Prepaging) -> (Shares, Shares) {
        (self.shares(order, |_, r| r.at_source()), self.shares(order, |_, r| r.staged))
    }

    /// Of what the source pushes next, the share of each region.
    pub(super) fn pushed_next(&self) -> Shares {
        self.residency.as_ref().map_or([0.0; CLASSES], |r| self.bulk_shares(r.order).0)
    }

    /// Which share of a stream is of each region, of those of which there is something `left`.
    fn shares(&self, order: Prepaging, left: impl Fn(usize, &RegionState) -> f64) -> Shares {
        let mut shares = [0.0; CLASSES];
        let some = |i: usize, r: &RegionState| left(i, r) > 0.0;
        let regions = || self.regions.iter().enumerate();
        let faults: f64 = regions().filter(|&(i, r)| some(i, r)).map(|(_, r)| r.touches().1).sum();
        match order {
            // Bubbles grow where the faults are.
            Prepaging::Bubbling { .. } if faults > 0.0 => {
                for (i, r) in regions() {
                    shares[i] = if some(i, r) { r.touches().1 / faults } else { 0.0 };
                }
            }
            Prepaging::Bubbling { .. } | Prepaging::AddressOrder => {
                if let Some((first, _)) = regions().find(|&(i, r)| some(i, r)) {
                    shares[first] = 1.0;
                }
            }
        }
        shares
    }
}

type Shares = [f64; CLASSES];
