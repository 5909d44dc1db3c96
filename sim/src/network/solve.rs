//! Making every link's equation hold again after changes.
//!
//! Two orders are used. Both end with every equation true, and the solution is unique, so they end with the same levels.
//!
//! **Relaxed.** Links are taken in order of the level they had (or, when that is infinite, of the level asked for), and set at once to
//! the level that their equation asks for now. Since only lower levels act on higher ones, a link is mostly set once. But the level of a
//! link that rises is derived while links between its old and its new level are not settled, and may have to be set again.
//!
//! **Strict.** The order of lifelong planning (Ramalingam & Reps, J. Algorithms 21, 1996; Koenig, Likhachev & Furcy, AI 155, 2004),
//! with links in place of vertices. The key of a link is the lesser of the level it has and the level asked for. The link with the least
//! key goes first: one that must fall is set, and is final; one that must rise is first set to infinity, and queued again with the level
//! asked for. So each link is set at most twice, from whatever state this starts. (Of a link that must rise only that is remembered
//! right, not how far: it is asked again once its level is infinite.)
//!
//! The proof needs, for a key `k`: (a) a level asked for below `k` does not depend on bounds of `k` or more; (b) one of `k` or more stays
//! so when bounds of `k` or more change among themselves. [`Network::share`] has both *in floating point*: its iterates never fall, and
//! each depends only on bounds below the one before it. Hence ties and rounding cannot make it cycle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{FlowId, Network};

/// How often the relaxed order may set one link in one solve before the strict order takes over.
const PATIENCE: u32 = 8;

/// What solving uses and keeps, so that it need not be allocated again.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    /// [`PATIENCE`], but for tests.
    pub(super) patience: u32,
    /// See [`Network::looks`].
    pub(super) looks: u64,
    /// Links that changes have disturbed and that are not yet queued.
    pub(super) touched: Vec<u32>,
    /// Flows whose rate may differ from what was last reported.
    pub(super) listed: Vec<u32>,
    /// Links by level; the bits of floats that are not negative order like the floats.
    queue: BinaryHeap<Reverse<(u64, u32)>>,
    /// Links with `Link::sets` not zero.
    set: Vec<u32>,
    /// Weight and bound of the flows of one link that may share what is left of it.
    sharing: Vec<(f64, f64)>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            patience: PATIENCE,
            looks: 0,
            touched: Vec::new(),
            listed: Vec::new(),
            queue: BinaryHeap::new(),
            set: Vec::new(),
            sharing: Vec::new(),
        }
    }
}

impl Network {
    /// Makes all rates max-min fair again and tells `changed` of each flow whose rate is no longer what was last reported: the flow, the
    /// old and the new rate in bytes per second. A new flow's old rate is 0; a removed flow is not reported.
    pub fn solve(&mut self, mut changed: impl FnMut(FlowId, f64, f64)) {
        self.queue_touched();
        self.settle_relaxed();
        self.forget_sets();
        for k in 0..self.scratch.listed.len() {
            let slot = self.scratch.listed[k];
            let flow = &mut self.flows[slot as usize];
            flow.listed = false;
            let (old, new) = (flow.rate, flow.fair_rate());
            if flow.alive && old != new {
                flow.rate = new;
                changed(FlowId(slot), old, new);
            }
        }
        self.scratch.listed.clear();
    }

    /// Sets links until all equations hold.
    fn settle_relaxed(&mut self) {
        while let Some((key, link)) = self.pop() {
            let (level, asked) = (self.levels[link as usize], self.asked(link));
            if asked == level {
                self.links[link as usize].queued = false;
                continue;
            }
            let now = level.min(asked);
            if now > key && self.peek() < now {
                self.push(now, link);
                continue;
            }
            if self.count_set(link) > self.scratch.patience {
                self.push(key, link);
                return self.settle_strict();
            }
            self.links[link as usize].queued = false;
            self.set_level(link, asked);
            while let Some(link) = self.scratch.touched.pop() {
                self.links[link as usize].touched = false;
                if !self.links[link as usize].queued {
                    // Infinite levels say nothing about the place in the order; asking at once does.
                    let level = self.levels[link as usize];
                    self.push(if level < f64::INFINITY { level } else { now }, link);
                }
            }
        }
    }

    /// Sets links in the order that ends from every state.
    pub(super) fn settle_strict(&mut self) {
        self.forget_sets();
        // The relaxed order leaves every queued link in the queue exactly once.
        while let Some((_, link)) = self.pop() {
            self.touch(link);
        }
        self.queue_touched();
        while let Some((key, link)) = self.pop() {
            let (level, asked) = (self.levels[link as usize], self.links[link as usize].target);
            if !self.links[link as usize].queued || level.min(asked) != key {
                continue; // queued again since, or settled
            }
            self.links[link as usize].queued = false;
            let sets = self.count_set(link);
            debug_assert!(sets <= 2, "what the strict order has set is final");
            if asked < level {
                self.set_level(link, asked);
            } else {
                self.set_level(link, f64::INFINITY);
                self.touch(link);
            }
            self.queue_touched();
        }
    }

    /// Looks at all touched links and queues those whose equation does not hold.
    fn queue_touched(&mut self) {
        while let Some(link) = self.scratch.touched.pop() {
            let (level, asked) = (self.levels[link as usize], self.asked(link));
            let l = &mut self.links[link as usize];
            l.touched = false;
            l.queued = false;
            l.target = asked;
            if asked != level {
                self.push(level.min(asked), link);
            }
        }
    }

    /// The level that the link's equation asks for.
    fn asked(&mut self, link: u32) -> f64 {
        self.scratch.looks += 1;
        let level = self.levels[link as usize];
        if level == f64::INFINITY {
            let l = &self.links[link as usize];
            return if l.capacity == f64::INFINITY || self.fits(link) { level } else { self.share(link) };
        }
        let asked = self.share(link);
        if asked <= level {
            return asked;
        }
        // Up to the present level the stored bounds are enough; above it they must be exact.
        let mut same = true;
        for k in self.links[link as usize].quiet.first_from(level)..self.links[link as usize].members.len() {
            let member = self.links[link as usize].members[k];
            if member.bound >= level {
                let exact = self.bound(member.flow, link);
                let l = &mut self.links[link as usize];
                l.members[k].bound = exact;
                l.quiet.summed &= k >= l.quiet.count;
                same &= exact == member.bound || exact.min(member.bound) >= asked;
            }
        }
        if same { asked } else { self.share(link) }
    }

    /// The level that the link's equation has for a solution with the bounds that stand at the link.
    ///
    /// Newton's iteration on a concave function from the left: flows whose bound is below the level reached stop there, the others share
    /// the rest, which never lowers the level. Every pass goes over those that still share, so the sums are fresh each time.
    fn share(&mut self, link: u32) -> f64 {
        let l = &mut self.links[link as usize];
        if l.capacity == f64::INFINITY || l.members.is_empty() {
            (l.load, l.load_updates) = (0.0, 0);
            return f64::INFINITY;
        }
        self.sort_out(link);
        let l = &mut self.links[link as usize];
        let sharing = &mut self.scratch.sharing;
        sharing.clear();
        sharing.extend(l.members[l.quiet.count..].iter().map(|member| (member.weight, member.bound)));
        let (mut held, mut level) = (0.0, 0.0f64);
        let mut weight = l.quiet.weight + sum(sharing);
        // The quiet ones stop below the first level.
        let (mut before, mut quiet) = (l.members.len(), l.quiet.load);
        loop {
            level = level.max((l.capacity - held) / weight);
            let stopped;
            (weight, stopped) = keep_sharing(sharing, level);
            held += stopped + std::mem::take(&mut quiet);
            if sharing.is_empty() {
                (l.load, l.load_updates) = (held, 0);
                return f64::INFINITY;
            }
            if sharing.len() == before {
                (l.load, l.load_updates) = (l.capacity, 0);
                return level;
            }
            before = sharing.len();
        }
    }

    /// Sets the level of `link` and follows the flows that it holds, or has held, to the links that see a difference.
    fn set_level(&mut self, link: u32, new: f64) {
        let old = std::mem::replace(&mut self.levels[link as usize], new);
        if old == f64::INFINITY || new == f64::INFINITY {
            self.change_kind(link, new < f64::INFINITY);
        }
        let least = old.min(new);
        for k in self.links[link as usize].quiet.first_from(least)..self.links[link as usize].members.len() {
            let member = self.links[link as usize].members[k];
            if member.bound >= least {
                self.rebound(member.flow, Some(link));
            }
        }
    }

    /// Counts that `link` is set once more in this solve.
    fn count_set(&mut self, link: u32) -> u32 {
        let sets = &mut self.links[link as usize].sets;
        if *sets == 0 {
            self.scratch.set.push(link);
        }
        *sets += 1;
        *sets
    }

    fn forget_sets(&mut self) {
        while let Some(link) = self.scratch.set.pop() {
            self.links[link as usize].sets = 0;
        }
    }

    fn push(&mut self, key: f64, link: u32) {
        self.links[link as usize].queued = true;
        self.scratch.queue.push(Reverse((key.to_bits(), link)));
    }

    fn pop(&mut self) -> Option<(f64, u32)> {
        self.scratch.queue.pop().map(|Reverse((key, link))| (f64::from_bits(key), link))
    }

    /// The least key in the queue.
    fn peek(&self) -> f64 {
        self.scratch.queue.peek().map_or(f64::INFINITY, |&Reverse((key, _))| f64::from_bits(key))
    }
}

/// So many sums are kept at once, of every so many-th number each: one number need not wait for the addition of the one before it.
const LANES: usize = 4;

fn total(lanes: [f64; LANES]) -> f64 {
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

/// The weights of all of them together.
fn sum(sharing: &[(f64, f64)]) -> f64 {
    let mut lanes = [0.0; LANES];
    for group in sharing.chunks(LANES) {
        for (lane, (weight, _)) in lanes.iter_mut().zip(group) {
            *lane += weight;
        }
    }
    total(lanes)
}

/// Leaves those out, of flows with a weight and a bound, whose bound is below `level`. Returns the weight of the others, and what those
/// that are left out take. There are no branches that depend on a bound: which flows stop is as good as random.
fn keep_sharing(sharing: &mut Vec<(f64, f64)>, level: f64) -> (f64, f64) {
    let (mut weights, mut held) = ([0.0; LANES], [0.0; LANES]);
    let mut kept = 0;
    for at in 0..sharing.len() {
        let (weight, bound) = sharing[at];
        let shares = bound >= level;
        weights[at % LANES] += if shares { weight } else { 0.0 };
        held[at % LANES] += if shares { 0.0 } else { weight * bound };
        sharing[kept] = (weight, bound);
        kept += usize::from(shares);
    }
    sharing.truncate(kept);
    (total(weights), total(held))
}
