//! Which flow crosses which link, and how far each flow can rise; kept right by every change, with the links that it disturbs noted.

use super::{LinkId, Network, index};

/// In place of a link: the flow's own cap.
const OWN_CAP: u32 = u32::MAX;

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
    /// While the level is infinite and the link is settled: the sum of weight times bound of its flows, near enough for [`SLACK`].
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

/// A flow in the list of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
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
    /// As last reported.
    pub(super) rate: f64,
    /// The least of the cap per weight and the levels of the links.
    pub(super) low: f64,
    /// The same without the link `at`.
    pub(super) next: f64,
    /// The link that has the level `low`, or [`OWN_CAP`].
    pub(super) at: u32,
    pub(super) hops: Range,
    pub(super) alive: bool,
    /// It is in the list of flows whose rate may have changed.
    pub(super) listed: bool,
}

impl Flow {
    pub(super) fn new(weight: f64, cap: f64) -> Flow {
        Flow {
            weight,
            cap,
            rate: 0.0,
            low: f64::INFINITY,
            next: f64::INFINITY,
            at: OWN_CAP,
            hops: Range::default(),
            alive: true,
            listed: false,
        }
    }

    /// How far the flow can rise for all that is not `link`.
    pub(super) fn bound(&self, link: u32) -> f64 {
        if self.at == link { self.next } else { self.low }
    }

    /// The rate that the levels give.
    pub(super) fn fair_rate(&self) -> f64 {
        // The product of weight and cap per weight would miss the cap by a rounding.
        if self.at == OWN_CAP { self.cap } else { (self.weight * self.low).min(self.cap) }
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

/// The links of all flows in one vector; ranges that are given back are used again for flows with as many links.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    all: Vec<Hop>,
    free: Vec<Vec<u32>>,
}

impl Hops {
    pub(super) fn of(&self, range: Range) -> &[Hop] {
        &self.all[range.start as usize..][..range.len as usize]
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
        for (k, &LinkId(link)) in links.iter().enumerate() {
            let hop = range.start + k as u32;
            let members = &mut self.links[link as usize].members;
            self.hops.all[hop as usize] = Hop { link, place: index(members.len()) };
            members.push(Member { flow, hop });
        }
        self.set_bounds(flow);
        self.shift_loads(flow, 1.0);
    }

    /// Takes a flow off all its links.
    pub(super) fn leave(&mut self, flow: u32) {
        self.shift_loads(flow, -1.0);
        let range = self.flows[flow as usize].hops;
        for k in 0..range.len {
            let hop = self.hops.all[range.start as usize + k as usize];
            let members = &mut self.links[hop.link as usize].members;
            members.swap_remove(hop.place as usize);
            if let Some(moved) = members.get(hop.place as usize) {
                self.hops.all[moved.hop as usize].place = hop.place;
            }
        }
        self.hops.give(range);
        self.flows[flow as usize].hops = Range::default();
    }

    /// Changes the weight of a flow on its links.
    pub(super) fn reweigh(&mut self, flow: u32, weight: f64) {
        self.shift_loads(flow, -1.0);
        self.flows[flow as usize].weight = weight;
        self.set_bounds(flow);
        self.shift_loads(flow, 1.0);
    }

    /// Tells every link of `flow` that the flow has come (`sign` 1) or goes (-1).
    fn shift_loads(&mut self, flow: u32, sign: f64) {
        let range = self.flows[flow as usize].hops;
        for k in 0..range.len {
            let link = self.hops.all[range.start as usize + k as usize].link;
            let f = &self.flows[flow as usize];
            let change = sign * f.weight * f.bound(link);
            if self.levels[link as usize] < f64::INFINITY || self.shift_load(link, change) {
                self.touch(link);
            }
        }
    }

    /// Adds `change` to the load of a link that is not full; true when the link must be looked at.
    fn shift_load(&mut self, link: u32, change: f64) -> bool {
        let l = &mut self.links[link as usize];
        if l.capacity == f64::INFINITY || l.touched || l.queued {
            return false;
        }
        l.load += change;
        l.load_updates += 1;
        l.load > l.capacity * (1.0 - SLACK) || l.load_updates > LOAD_UPDATES
    }

    /// Derives from the levels how far `flow` can rise.
    fn set_bounds(&mut self, flow: u32) {
        let f = &mut self.flows[flow as usize];
        (f.low, f.next, f.at) = (f.cap / f.weight, f64::INFINITY, OWN_CAP);
        for hop in self.hops.of(f.hops) {
            let level = self.levels[hop.link as usize];
            if level < f.low {
                (f.low, f.next, f.at) = (level, f.low, hop.link);
            } else if level < f.next && hop.link != f.at {
                f.next = level;
            }
        }
    }

    /// Derives anew how far `flow` can rise, and touches those of its links, but for `cause`, whose equation sees a difference.
    pub(super) fn rebound(&mut self, flow: u32, cause: Option<u32>) {
        let (low, next, at) = {
            let f = &self.flows[flow as usize];
            (f.low, f.next, f.at)
        };
        self.set_bounds(flow);
        let f = &self.flows[flow as usize];
        let (weight, range) = (f.weight, f.hops);
        if f.low != low {
            self.list(flow);
        }
        for k in 0..range.len {
            let link = self.hops.all[range.start as usize + k as usize].link;
            if Some(link) == cause {
                continue;
            }
            let before = if at == link { next } else { low };
            let after = self.flows[flow as usize].bound(link);
            if before == after {
                continue;
            }
            let level = self.levels[link as usize];
            let look = if level == f64::INFINITY {
                self.links[link as usize].queued || self.shift_load(link, weight * (after - before))
            } else {
                // A flow that is held elsewhere above the level counts the same wherever that is.
                self.links[link as usize].queued || before.min(after) < level
            };
            if look {
                self.touch(link);
            }
        }
    }
}
