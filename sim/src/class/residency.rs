//! A guest whose memory is still arriving.
//!
//! Any access to a missing page stalls its vCPU for round trip + service + transfer. The guest then works at
//! 1 / (1 + faults per unit of work x stall / vCPUs) of its speed; what it asks for comes out of the migration's own bandwidth,
//! the push gets the rest. The equations are integrated in steps in which the fault rate moves by at most 5 %, and in at most
//! 64 steps between two events.

use super::guest::{Guest, RegionState};
use crate::fidelity::FaultPath;
use livemig_core::ledger::Observation;
use livemig_core::pages::Counted;
use livemig_core::units::{PAGE_SIZE, Span, Time};
use livemig_core::vocabulary::Prepaging;
use livemig_models::world::Pattern;

const PAGE: f64 = PAGE_SIZE as f64;
const MAX_STEPS: u32 = 64;
const FAULT_RATE_CHANGE: f64 = 0.05;

#[derive(Clone, Debug)]
pub(super) struct Residency {
    /// Round trip and service of a fault, in seconds.
    stall: f64,
    /// The order of the push.
    order: Prepaging,
    /// Bytes of pages that arrive per second, asked for or not.
    rate: f64,
    /// Bytes of pages that the guest has asked for.
    demanded: f64,
    /// Faults and first touches not yet reported, below one.
    carried: (f64, f64),
}

impl Residency {
    pub(super) fn new(path: FaultPath) -> Residency {
        let stall = (path.latency.times(2) + path.service).as_secs_f64();
        Residency { stall, order: path.order, rate: 0.0, demanded: 0.0, carried: (0.0, 0.0) }
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
        let missing = (self.missing / self.untouched).min(1.0);
        let first = match self.pattern {
            // A sweep meets a new page at every step until it has been round.
            Pattern::Sweep => self.accesses(),
            Pattern::Random | Pattern::Curve(_) => self.accesses() * self.untouched / self.size,
        };
        (first, first * missing)
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

    /// Missing pages, in whole bytes per region.
    pub(super) fn missing(&self) -> Counted {
        self.count(|r| r.missing)
    }

    pub(super) fn run_incomplete(&mut self, from: Time, elapsed: f64, arriving: f64, observe: &mut impl FnMut(Observation)) {
        let Some(mut residency) = self.residency.take() else { return };
        residency.rate = arriving;
        let mut done = 0.0;
        for i in 1..=MAX_STEPS {
            let left = elapsed - done;
            if left <= 0.0 {
                break;
            }
            let step = self.plan_step(&residency, if i == MAX_STEPS { f64::INFINITY } else { left }, left);
            self.take_step(&mut residency, &step, observe);
            done += step.length;
            observe(Observation::Work { until: from + Span::from_secs_f64(done), rate: step.speed / self.baseline });
        }
        self.residency = Some(residency);
    }

    /// How fast the guest works on what it has, and how long that may be taken as constant.
    fn plan_step(&self, residency: &Residency, limit: f64, left: f64) -> Step {
        let full = self.share * self.cores_share;
        let per_work: f64 = self.regions.iter().map(|r| r.touches().1).sum();
        let rate = residency.rate;
        let stall = residency.stall + if rate > 0.0 { PAGE / rate } else { f64::INFINITY };
        let mut speed = if per_work > 0.0 { full / (1.0 + full * per_work * stall / self.vcpus) } else { full };
        if per_work * speed * PAGE > rate {
            speed = rate / (PAGE * per_work);
        }
        let faults = per_work * speed;
        let mut length = left;
        if limit.is_finite() {
            // Every class loses at most 5 % of what can fault, by faults and by the push together.
            let push = (rate - faults * PAGE).max(0.0);
            for (r, share) in self.regions.iter().zip(self.push_shares(residency.order)) {
                let loss = r.touches().1 * speed * PAGE + push * share;
                if r.missing > 0.0 && loss > 0.0 {
                    let change = if r.accesses() > 0.0 { FAULT_RATE_CHANGE } else { 1.0 };
                    let floor = PAGE.max(r.size * 1e-3);
                    length = length.min((r.missing * change).max(floor.min(r.missing)) / loss);
                }
            }
        }
        Step { length: length.max(1e-9).min(left), speed, stall, faults }
    }

    fn take_step(&mut self, residency: &mut Residency, step: &Step, observe: &mut impl FnMut(Observation)) {
        let push = (residency.rate - step.faults * PAGE).max(0.0) * step.length;
        let shares = self.push_shares(residency.order);
        let (mut faults, mut touches) = (0.0, 0.0);
        for (r, share) in self.regions.iter_mut().zip(shares) {
            let (first, missed) = r.touches();
            let work = step.speed * step.length;
            let asked = (missed * work * PAGE).min(r.missing);
            faults += asked / PAGE;
            touches += (first - missed) * work;
            r.missing = (r.missing - asked - push * share).max(0.0);
            r.untouched = (r.untouched - first * work * PAGE).max(r.missing);
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

    /// Which share of the push goes to each region.
    fn push_shares(&self, order: Prepaging) -> [f64; livemig_core::pages::CLASSES] {
        let mut shares = [0.0; livemig_core::pages::CLASSES];
        let faults: f64 = self.regions.iter().map(|r| r.touches().1).sum();
        match order {
            // Bubbles grow where the faults are.
            Prepaging::Bubbling { .. } if faults > 0.0 => {
                for (r, s) in self.regions.iter().zip(&mut shares) {
                    *s = r.touches().1 / faults;
                }
            }
            Prepaging::Bubbling { .. } | Prepaging::AddressOrder => {
                if let Some(first) = self.regions.iter().position(|r| r.missing > 0.0) {
                    shares[first] = 1.0;
                }
            }
        }
        shares
    }
}
