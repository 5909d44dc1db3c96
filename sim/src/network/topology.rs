//! Which flow crosses which link, and how far each flow can rise; kept right by every change, with the links that it disturbs noted.

use super::{LinkId, Network, index};

/// In place of a link: none.
const NO_LINK: u32 = u32::MAX;

/// The share of a link's capacity that must stay free for the link to count as not limiting without a look at its flows.
///
/// It covers the rounding of `Link::load`, at most 2^-53 per update, over `LOAD_UPDATES` updates: exactness does not depend on it.
pub(super) const SLACK: f64 = 1e-9;

/// By how much a flow may rise before the links that do not limit it are told.
const ROOM: f64 = 1.25;

/// A ceiling that every rate is above: the links are to be told of every change.
const NO_ROOM: f64 = -1.0;

/// How many updates `Link::load` takes before it is summed anew.
const LOAD_UPDATES: u32 = 1 << 20;

/// One link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) capacity: f64,
    /// While the link is settled: the sum over its flows of weight times the lesser of bound and level. Kept up where the level is
    /// infinite, near enough for [`SLACK`] and never below what the flows take, and with a tolerance everywhere.
    pub(super) load: f64,
    /// What the link's equation asked for when last looked at; used by the strict order only.
    pub(super) target: f64,
    /// The quiet ones first.
    pub(super) members: Vec<Member>,
    pub(super) quiet: Quiet,
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
            quiet: Quiet::default(),
            load_updates: 0,
            sets: 0,
            queued: false,
            touched: false,
        }
    }
}

/// The flows of a link whose caps are so low that they never share what is left of it: what a look at the link needs of them is known
/// without them. Application traffic is that, hundreds of flows beside the few migrations that share an uplink.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    /// They are the first so many members; see [`Network::sort_out`].
    pub(super) count: usize,
    /// Whether flows have come, gone or changed since they were told from the others.
    pub(super) sorted: bool,
    /// Whether `load` holds.
    pub(super) summed: bool,
    pub(super) weight: f64,
    /// What they take: the sum of weight times bound.
    pub(super) load: f64,
    /// The highest of their limits.
    pub(super) most: f64,
}

impl Quiet {
    /// The first member to be looked at, if only bounds of `least` or more matter.
    pub(super) fn first_from(&self, least: f64) -> usize {
        if self.sorted && self.most < least { self.count } else { 0 }
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
        let falls_short = level < f64::INFINITY && self.load < self.capacity * (1.0 - tolerance);
        falls_short || self.load > self.most(tolerance) || self.load_updates > LOAD_UPDATES
    }

    /// Up to this load nothing on the link is held back.
    pub(super) fn most(&self, tolerance: f64) -> f64 {
        self.capacity * if tolerance > 0.0 { 1.0 + tolerance } else { 1.0 - SLACK }
    }
}

/// A flow in the list of a link, with what the link's equation needs of it: looking at a link is one pass over consecutive memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) weight: f64,
    /// How far the flow can rise for all that is not this link. Exact when it is below the link's level and that is finite; otherwise the
    /// flow shares what is left of the link, and any value that is not below the level may stand here. Where the level is infinite it
    /// may be more than that, up to [`ROOM`] times as much, so that the rates over links that are far from full are not followed.
    pub(super) bound: f64,
    /// The flow's.
    limit: f64,
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
    /// Up to here `low` is no more than what stands as its bound at those of its links whose level is infinite.
    pub(super) ceiling: f64,
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
            limit: cap / weight,
            rate: 0.0,
            low: f64::INFINITY,
            ceiling: NO_ROOM,
            hops: Range::default(),
            alive: true,
            listed: false,
        }
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

/// Where in [`Hops`] a flow's links are: first those with a finite level, which alone decide on its rate, then the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    start: u32,
    len: u16,
    finite: u16,
}

impl Range {
    fn iter(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.len)
    }

    /// The links with a finite level.
    fn finite(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.finite)
    }

    /// The others.
    fn infinite(self) -> std::ops::Range<usize> {
        self.finite().end..self.iter().end
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
        Range { start, len: count, finite: 0 }
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
        let mut range = self.hops.take(links.len());
        let finite = |&&LinkId(link): &&LinkId| self.levels[link as usize] < f64::INFINITY;
        range.finite = links.iter().filter(finite).count() as u16;
        self.flows[flow as usize].hops = range;
        let in_order = links.iter().filter(finite).chain(links.iter().filter(|link| !finite(link)));
        for (hop, &LinkId(link)) in range.iter().zip(in_order) {
            let members = &mut self.links[link as usize].members;
            self.hops.all[hop] = Hop { link, place: index(members.len()) };
            members.push(Member { weight: 0.0, bound: 0.0, limit: f64::INFINITY, flow, hop: hop as u32 });
        }
        self.enter(flow);
    }

    /// Takes a flow off all its links.
    pub(super) fn leave(&mut self, flow: u32) {
        let range = self.flows[flow as usize].hops;
        for hop in range.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let l = &mut self.links[link as usize];
            l.quiet.sorted = false;
            let gone = l.members.swap_remove(place as usize);
            if let Some(moved) = l.members.get(place as usize) {
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
        (f.low, f.ceiling) = (lowest.low, lowest.low);
        let (weight, limit, range) = (f.weight, f.limit, f.hops);
        for hop in range.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let bound = lowest.without(link);
            let l = &mut self.links[link as usize];
            l.quiet.sorted = false;
            let member = &mut l.members[place as usize];
            (member.weight, member.bound, member.limit) = (weight, bound, limit);
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
        for hop in &self.hops.all[f.hops.finite()] {
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
        let others = self.hops.all[f.hops.finite()].iter().filter(|hop| hop.link != link);
        others.fold(f.limit, |bound, hop| bound.min(self.levels[hop.link as usize]))
    }

    /// Derives anew how far `flow` can rise, and touches those of its links, but for `cause`, whose equation sees a difference.
    pub(super) fn rebound(&mut self, flow: u32, cause: Option<u32>) {
        let lowest = self.lowest(flow);
        let f = &mut self.flows[flow as usize];
        let (weight, range, above) = (f.weight, f.hops, lowest.low > f.ceiling);
        if std::mem::replace(&mut f.low, lowest.low) != lowest.low {
            self.list(flow);
        }
        for hop in range.finite() {
            let Hop { link, place } = self.hops.all[hop];
            let level = self.levels[link as usize];
            let after = lowest.without(link);
            let l = &mut self.links[link as usize];
            let before = std::mem::replace(&mut l.members[place as usize].bound, after);
            if before == after {
                continue;
            }
            l.quiet.summed &= place as usize >= l.quiet.count;
            if Some(link) == cause {
                continue;
            }
            // A flow that is held elsewhere above the level counts the same wherever that is.
            let look = before.min(after) < level && self.unbalances(link, weight * (after.min(level) - before.min(level)), level);
            if look {
                self.touch(link);
            }
        }
        if above {
            self.raise_ceiling(flow);
        }
    }

    /// Tells those links of `flow` whose level is infinite that it may rise above what stands there, and touches those that may be full now.
    fn raise_ceiling(&mut self, flow: u32) {
        let Flow { weight, limit, low, hops, .. } = self.flows[flow as usize];
        let mut ceiling = f64::INFINITY;
        for hop in hops.infinite() {
            let Hop { link, place } = self.hops.all[hop];
            let l = &mut self.links[link as usize];
            if l.capacity == f64::INFINITY {
                continue;
            }
            let (exact, before) = (l.touched || l.queued, l.members[place as usize].bound);
            let with_room = (low * ROOM).min(limit).max(low);
            let has_room = !exact && l.load + weight * (with_room - before) <= l.most(self.tolerance);
            let after = if exact { low } else { before.max(if has_room { with_room } else { low }) };
            l.members[place as usize].bound = after;
            ceiling = ceiling.min(if exact { NO_ROOM } else { after });
            if after != before && l.shift_load(weight * (after - before), f64::INFINITY, self.tolerance) {
                self.touch(link);
            }
        }
        self.flows[flow as usize].ceiling = ceiling;
    }

    /// Derives anew what stands at `link`, whose level is infinite, as the bounds of its flows, and with room where there is some. True when
    /// they take less than the link carries; otherwise the bounds are exact, and kept so until the link has a level.
    pub(super) fn fits(&mut self, link: u32) -> bool {
        let mut load = 0.0;
        for k in 0..self.links[link as usize].members.len() {
            let Member { flow, weight, .. } = self.links[link as usize].members[k];
            let bound = self.bound(flow, link);
            self.links[link as usize].members[k].bound = bound;
            load += weight * bound;
        }
        let most = self.links[link as usize].most(self.tolerance);
        let fits = load <= most;
        // What rounding may add to the sum stays below what is left free.
        let room = if fits && load > 0.0 { (0.999 * most / load).clamp(1.0, ROOM) } else { 1.0 };
        load = 0.0;
        let l = &mut self.links[link as usize];
        l.quiet.summed = false;
        for member in &mut l.members {
            let f = &mut self.flows[member.flow as usize];
            member.bound = (member.bound * room).min(f.limit).max(member.bound);
            load += member.weight * member.bound;
            f.ceiling = f.ceiling.min(if fits { member.bound } else { NO_ROOM });
        }
        if fits {
            (l.load, l.load_updates) = (load, 0);
        }
        fits
    }

    /// The level of `link` has become finite, or infinite: what stands there as bounds becomes what has to stand there then.
    pub(super) fn change_kind(&mut self, link: u32, finite: bool) {
        self.links[link as usize].quiet.summed = false;
        for k in 0..self.links[link as usize].members.len() {
            let Member { flow, bound, hop, .. } = self.links[link as usize].members[k];
            let range = &mut self.flows[flow as usize].hops;
            let border = range.finite().end;
            range.finite = if finite { range.finite + 1 } else { range.finite - 1 };
            self.swap_hops(hop as usize, if finite { border } else { border - 1 });
            if finite {
                let exact = self.bound(flow, link);
                self.links[link as usize].members[k].bound = exact;
            } else {
                let f = &mut self.flows[flow as usize];
                f.ceiling = f.ceiling.min(bound);
            }
        }
    }

    fn swap_hops(&mut self, a: usize, b: usize) {
        self.hops.all.swap(a, b);
        for hop in [a, b] {
            let Hop { link, place } = self.hops.all[hop];
            self.links[link as usize].members[place as usize].hop = index(hop);
        }
    }

    /// Notes the present limit of `flow` where it stands beside its bound.
    pub(super) fn relimit(&mut self, flow: u32) {
        let Flow { limit, hops, .. } = self.flows[flow as usize];
        for hop in hops.iter() {
            let Hop { link, place } = self.hops.all[hop];
            let l = &mut self.links[link as usize];
            l.members[place as usize].limit = limit;
            l.quiet.sorted = false;
        }
    }

    /// Brings what is known of the quiet flows of `link` up to date.
    ///
    /// No level is below capacity / weight, so that a flow with a limit below that never shares. The border is a power of two, well below, so
    /// that flows are rarely on one side now and on the other then; it depends on what the link carries and not on how it came to that.
    pub(super) fn sort_out(&mut self, link: u32) {
        let l = &mut self.links[link as usize];
        if !l.quiet.sorted {
            let weight: f64 = l.members.iter().map(|member| member.weight).sum();
            let border = 0.5 * power_of_two_below(l.capacity / weight);
            let mut quiet = Quiet { sorted: true, ..Quiet::default() };
            for k in 0..l.members.len() {
                let Member { limit, weight, .. } = l.members[k];
                if limit < border {
                    l.members.swap(quiet.count, k);
                    for place in [quiet.count, k] {
                        self.hops.all[l.members[place].hop as usize].place = index(place);
                    }
                    quiet.count += 1;
                    quiet.weight += weight;
                    quiet.most = quiet.most.max(limit);
                }
            }
            l.quiet = quiet;
        }
        if !l.quiet.summed {
            l.quiet.load = l.members[..l.quiet.count].iter().map(|member| member.weight * member.bound).sum();
            l.quiet.summed = true;
        }
    }
}

/// The power of two at or below a number that is not negative, or zero.
fn power_of_two_below(number: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
    if number < f64::INFINITY { f64::from_bits(number.to_bits() & EXPONENT) } else { 0.0 }
}
