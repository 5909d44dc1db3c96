//! Which flow crosses which link, and how far each flow can rise; kept right by every change, with the links that it disturbs noted.

use super::{LinkId, Network, index};

/// In place of a link: none.
const NO_LINK: u32 = u32::MAX;

/// The share of a link's capacity that must stay free for the link to count as not limiting without a look at its flows.
///
/// It covers the rounding of `Link::load`, at most 2^-53 per update, over `LOAD_UPDATES` updates: exactness does not depend on it.
pub(super) const SLACK: f64 = 1e-9;

/// How many updates `Link::load` takes before it is summed anew.
const LOAD_UPDATES: u32 = 1 << 20;

/// One link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) capacity: f64,
    /// While the link is settled: the sum over its flows of weight times the lesser of bound and level. Kept up with every change where
    /// the level is infinite, near enough for [`SLACK`], and with a tolerance everywhere.
    pub(super) load: f64,
    /// What the link's equation asked for when last looked at; used by the strict order only.
    pub(super) target: f64,
    pub(super) members: Vec<Member>,
    /// Updates of `load` since it was summed.
    pub(super) load_updates: u32,
    /// How often this solve has set the level.
    pub(super) sets: u32,
    /// Its equation may not hold, and it is in the solver's queue.
    pub(super) queued: bool,
    /// It is in the list of links that a change has disturbed.
    pub(super) touched: bool,
}

impl Link {
    pub(super) fn new(capacity: f64) -> Link {
        Link {
            capacity,
            load: 0.0,
            target: f64::INFINITY,
            members: Vec::new(),
            load_updates: 0,
            sets: 0,
            queued: false,
            touched: false,
        }
    }
}

impl Link {
    /// Adds `change` to the load of a link that has this level; true when the link must be looked at.
    fn shift_load(&mut self, change: f64, level: f64, tolerance: f64) -> bool {
        if self.capacity == f64::INFINITY {
            return false;
        }
        if self.touched || self.queued {
            return true; // it will be looked at, and the load summed anew
        }
        self.load += change;
        self.load_updates += 1;
        let most = if tolerance > 0.0 { 1.0 + tolerance } else { 1.0 - SLACK };
        let falls_short = level < f64::INFINITY && self.load < self.capacity * (1.0 - tolerance);
        falls_short || self.load > self.capacity * most || self.load_updates > LOAD_UPDATES
    }
}

/// A flow in the list of a link, with what the link's equation needs of it: looking at a link is one pass over consecutive memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) weight: f64,
    /// How far the flow can rise for all that is not this link. Exact when it is below the link's level; otherwise the flow shares
    /// what is left of the link, and any value that is not below the level may stand here.
    pub(super) bound: f64,
    pub(super) flow: u32,
    /// Which entry of [`Hops`] points back here.
    hop: u32,
}

/// One flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) weight: f64,
    /// Bytes per second; infinite when there is none.
    pub(super) cap: f64,
    /// The cap per weight.
    pub(super) limit: f64,
    /// As last reported.
    pub(super) rate: f64,
    /// The least of the limit and the levels of the links.
    pub(super) low: f64,
    pub(super) hops: Range,
    pub(super) alive: bool,
    /// It is in the list of flows whose rate may have changed.
    pub(super) listed: bool,
}

impl Flow {
    pub(super) fn new(weight: f64, cap: f64) -> Flow {
        Flow { weight, cap, limit: cap / weight, rate: 0.0, low: f64::INFINITY, hops: Range::default(), alive: true, listed: false }
    }

    /// The rate that the levels give.
    pub(super) fn fair_rate(&self) -> f64 {
        // The product of weight and cap per weight would miss the cap by a rounding.
        if self.low == self.limit { self.cap } else { (self.weight * self.low).min(self.cap) }
    }
}

/// What holds a flow: the lowest of its limit and the levels of its links, and the second lowest, at another link.
#[derive(Clone, Copy, Debug)]
struct Lowest {
    low: f64,
    next: f64,
    /// The link with the level `low`.
    at: u32,
}

impl Lowest {
    fn without(&self, link: u32) -> f64 {
        if self.at == link { self.next } else { self.low }
    }
}

/// One link of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub(super) link: u32,
    /// Where in the link's list the flow stands.
    place: u32,
}

/// Where in [`Hops`] a flow's links are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    start: u32,
    len: u16,
}

impl Range {
    fn iter(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// The links of all flows in one vector; ranges that are given back are used again for flows with as many links.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    all: Vec<Hop>,
    free: Vec<Vec<u32>>,
}

impl Hops {
    pub(super) fn of(&self, range: Range) -> &[Hop] {
        &self.all[range.iter()]
    }

    fn take(&mut self, len: usize) -> Range {
        let count = u16::try_from(len).expect("a flow crosses fewer than 65,536 links");
        let start = self.free.get_mut(len).and_then(Vec::pop).unwrap_or_else(|| {
            let start = index(self.all.len());
            self.all.resize(self.all.len() + len, Hop { link: 0, place: 0 });
            start
        });
        Range { start, len: count }
    }

    fn give(&mut self, range: Range) {
        let len = range.len as usize;
        if self.free.len() <= len {
            self.free.resize_with(len + 1, Vec::new);
        }
        self.free[len].push(range.start);
    }
}

impl Network {
    /// Notes that the equation of `link` may no longer hold.
    pub(super) fn touch(&mut self, link: u32) {
        let l = &mut self.links[link as usize];
        if !l.touched {
            l.touched = true;
            self.scratch.touched.push(link);
        }
    }

    /// Notes that the rate of `flow` may have changed.
    pub(super) fn list(&mut self, flow: u32) {
        let f = &mut self.flows[flow as usize];
        if !f.listed {
            f.listed = true;
            self.scratch.listed.push(flow);
        }
    }

    /// Puts a flow that is on no link on `links`.
    pub(super) fn join(&mut self, flow: u32, links: &[LinkId]) {
        let range = self.hops.take(links.len());
        self.flows[flow as usize].hops = range;
        for (hop, &LinkId(link)) in range.iter().zip(links) {
            let members = &mut self.links[link as usize].members;
            self.hops.all[hop] = Hop { link, place: index(members.len()) };
            members.push(Member { weight: 0.0, bound: 0.0, flow, hop: hop as u32 });
        }
        self.enter(flow);
    }

    /// Takes a flow off all its links.
    pub(super) fn leave(&mut self, flow: u32) {
        let range = self.flows[flow as usize].hops;
        for hop in range.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let members = &mut self.links[link as usize].members;
            let gone = members.swap_remove(place as usize);
            if let Some(moved) = members.get(place as usize) {
                self.hops.all[moved.hop as usize].place = place;
            }
            self.weigh_in(link, -gone.weight, gone.bound);
        }
        self.hops.give(range);
        self.flows[flow as usize].hops = Range::default();
    }

    /// Gives a flow that is on its links its present weight and limit there.
    pub(super) fn reweigh(&mut self, flow: u32) {
        for hop in self.flows[flow as usize].hops.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let member = &self.links[link as usize].members[place as usize];
            self.weigh_in(link, -member.weight, member.bound);
        }
        self.enter(flow);
    }

    /// Tells every link of a flow its weight and bound, as of a flow that was not there.
    fn enter(&mut self, flow: u32) {
        let lowest = self.lowest(flow);
        let f = &mut self.flows[flow as usize];
        f.low = lowest.low;
        let (weight, range) = (f.weight, f.hops);
        for hop in range.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let bound = lowest.without(link);
            let member = &mut self.links[link as usize].members[place as usize];
            (member.weight, member.bound) = (weight, bound);
            self.weigh_in(link, weight, bound);
        }
    }

    /// Touches a link that a flow has come to, or with a negative weight has left, unless its equation still holds.
    fn weigh_in(&mut self, link: u32, weight: f64, bound: f64) {
        let level = self.levels[link as usize];
        if self.unbalances(link, weight * bound.min(level), level) {
            self.touch(link);
        }
    }

    /// Whether a link must be looked at because what its flows take at its level has changed by `change`.
    fn unbalances(&mut self, link: u32, change: f64, level: f64) -> bool {
        let exact = self.tolerance <= 0.0 && level < f64::INFINITY;
        exact || self.links[link as usize].shift_load(change, level, self.tolerance)
    }

    /// Derives from the levels what holds `flow`.
    fn lowest(&self, flow: u32) -> Lowest {
        let f = &self.flows[flow as usize];
        let mut lowest = Lowest { low: f.limit, next: f.limit, at: NO_LINK };
        for hop in self.hops.of(f.hops) {
            let level = self.levels[hop.link as usize];
            if level < lowest.low {
                lowest = Lowest { low: level, next: lowest.low, at: hop.link };
            } else if level < lowest.next && hop.link != lowest.at {
                lowest.next = level;
            }
        }
        lowest
    }

    /// How far `flow` can rise for all that is not `link`.
    pub(super) fn bound(&self, flow: u32, link: u32) -> f64 {
        let f = &self.flows[flow as usize];
        let others = self.hops.of(f.hops).iter().filter(|hop| hop.link != link);
        others.fold(f.limit, |bound, hop| bound.min(self.levels[hop.link as usize]))
    }

    /// Derives anew how far `flow` can rise, and touches those of its links, but for `cause`, whose equation sees a difference.
    pub(super) fn rebound(&mut self, flow: u32, cause: Option<u32>) {
        let lowest = self.lowest(flow);
        let f = &mut self.flows[flow as usize];
        let (weight, range) = (f.weight, f.hops);
        if std::mem::replace(&mut f.low, lowest.low) != lowest.low {
            self.list(flow);
        }
        for hop in range.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let after = lowest.without(link);
            let member = &mut self.links[link as usize].members[place as usize];
            let before = std::mem::replace(&mut member.bound, after);
            if before == after || Some(link) == cause {
                continue;
            }
            let level = self.levels[link as usize];
            // A flow that is held elsewhere above the level counts the same wherever that is.
            let look = before.min(after) < level && self.unbalances(link, weight * (after.min(level) - before.min(level)), level);
            if look {
                self.touch(link);
            }
        }
    }
}
