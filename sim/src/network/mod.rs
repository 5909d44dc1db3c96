//! Weighted max-min fair fluid flows over links, re-solved only where a change reaches.
//!
//! # Model
//! A flow `i` has a weight `w`, perhaps a cap, and crosses some links; a link has a capacity in bytes per second. Rates are weighted
//! max-min fair (Bertsekas & Gallagher, *Data Networks*, 2nd ed., section 6.5.2): no flow can get more without taking from a flow that
//! has, per weight, no more than it. Progressive filling shows what that means: one *level* rises from zero and every flow's rate is
//! `w * level`; at its cap a flow stops, and when a link is full all flows that still rise on it stop.
//!
//! The state is therefore one number per link, its **level**: where the filling stopped there, infinite when it never is full.
//! With `bound(i, l)` the least of `cap / w` and the levels of all links of `i` other than `l`, the levels are the one solution of
//!
//! ```text
//! level(l) = the x with  sum over flows i of l of  w_i * min(x, bound(i, l)) = capacity(l),  infinite when even x = infinity is less
//! rate(i)  = w_i * min(bound(i, l), level(l))
//! ```
//!
//! Only lower levels act on higher ones: a flow counts at `l` with a bound below `level(l)`, or as one of those that share what is left.
//! The link with the lowest level depends on its own flows only, the next on that one, and so on: that is the bottleneck order, and it is
//! why the solution is unique.
//!
//! # Solving
//! A change makes the equation of some links false. Those are put in a queue ordered by level; a link taken from it gets the level that
//! its equation asks for, and where that changes the bound of a flow *below the level of another of its links*, that link is queued.
//! Nothing else is visited: not flows held by a lower bottleneck, not links above whose level the change happens, not links that are far
//! from full (`SLACK`). When all equations hold, the allocation is the max-min one, whatever the order was. See `solve.rs` for the order
//! that is fast, and for the one that provably ends and takes over when a link was set too often.
//!
//! # Tolerance
//! Where hundreds of flows share each of many links, as in the uplinks of racks, one arrival moves all levels of a data centre, most of
//! them by next to nothing. With a tolerance `e` ([`Network::with_tolerance`]) a link is looked at only when the sum in its equation has
//! moved away from its capacity by more than `e x capacity`, counted since it was last looked at, whatever the number of changes. Levels
//! and rates stay consistent: every flow has the least of its cap and what the levels of its links give it. What is given up is that a full
//! link carries its capacity to the last bit: it carries between `1 - e` and `1 + e` of it. With 0, the default, nothing is given up.
//!
//! # Cost
//! Cost of a solve: per link whose equation is looked at, one pass over consecutive memory, 32 bytes per flow of the link, but for *quiet*
//! flows: those whose cap is so low that they never share the link, of which the sum is kept. Per flow whose bottleneck changes, those of
//! its links whose level is finite; the others are told when its rate rises above a ceiling, which leaves it room. No allocation once the
//! scratch space has grown. Memory: 64 bytes per flow and 40 per link it crosses.
//!
//! `SimGrid`'s solver (Casanova, Giersch, Legrand, Quinson & Suter, J. Parallel Distrib. Comput. 74, 2014) solves the same problem as a
//! linear max-min system; it too updates selectively, but refills all that is connected to a change.
//!
//! # Determinism
//! Levels and rates are a function of the sequence of calls only. Without a tolerance, given the order in which each link lists its flows,
//! they depend on nothing else, to the last bit: nothing is accumulated from solve to solve. The order, and with it rounding, depends on
//! history.

mod solve;
mod topology;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use solve::Scratch;
use topology::{Flow, Hops, Link};

/// A link of one [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u32);

/// A flow of one [`Network`]; the number is given again after the flow was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u32);

impl LinkId {
    /// Links count from zero in the order in which they were added.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl FlowId {
    /// Small numbers: at most as many as flows were alive at once, so that a caller can index a vector with them.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Links, the flows over them, and their max-min fair rates as of the last [`Network::solve`].
///
/// Changes are cheap and take effect together at the next `solve`.
#[derive(Clone, Debug, Default)]
pub struct Network {
    links: Vec<Link>,
    /// Where filling stopped at each link; beside `links` because this is read far more often than the rest.
    levels: Vec<f64>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    hops: Hops,
    /// See [`Network::with_tolerance`].
    tolerance: f64,
    scratch: Scratch,
}

impl Network {
    /// A network without links.
    #[must_use]
    pub fn new() -> Network {
        Network::default()
    }

    /// A network without links in which the rates over a link may miss its capacity by the share `tolerance` of it, so that small
    /// changes need not be followed from link to link; 0 is exact.
    ///
    /// # Panics
    /// When `tolerance` is not between 0 and 1.
    #[must_use]
    pub fn with_tolerance(tolerance: f64) -> Network {
        assert!((0.0..1.0).contains(&tolerance), "a network's tolerance is {tolerance}");
        Network { tolerance, ..Network::default() }
    }

    /// Adds a link that carries `capacity` bytes per second; infinity is a link that never limits.
    ///
    /// # Panics
    /// When `capacity` is negative or not a number.
    pub fn add_link(&mut self, capacity: f64) -> LinkId {
        let id = LinkId(index(self.links.len()));
        self.links.push(Link::new(checked_capacity(capacity)));
        self.levels.push(f64::INFINITY);
        id
    }

    /// Changes what `link` carries, in bytes per second.
    ///
    /// # Panics
    /// When `capacity` is negative or not a number.
    pub fn set_capacity(&mut self, link: LinkId, capacity: f64) {
        let l = &mut self.links[link.index()];
        l.capacity = checked_capacity(capacity);
        l.quiet.sorted = false;
        self.touch(link.0);
    }

    /// What `link` carries, in bytes per second.
    #[must_use]
    pub fn capacity(&self, link: LinkId) -> f64 {
        self.links[link.index()].capacity
    }

    /// Adds a flow of `weight` over `links`, at most `cap` bytes per second; its rate is 0 until the next [`Network::solve`].
    ///
    /// The order of the links does not matter; a link named twice is used twice.
    ///
    /// # Panics
    /// When the weight is not positive and finite, or the cap is negative or not a number.
    pub fn add_flow(&mut self, links: &[LinkId], weight: f64, cap: Option<f64>) -> FlowId {
        let flow = Flow::new(checked_weight(weight), checked_cap(cap));
        let slot = match self.free.pop() {
            Some(slot) => {
                // A slot given back since the last solve may still be in the list of changes.
                let listed = self.flows[slot as usize].listed;
                self.flows[slot as usize] = Flow { listed, ..flow };
                slot
            }
            None => {
                self.flows.push(flow);
                index(self.flows.len() - 1)
            }
        };
        self.join(slot, links);
        self.list(slot);
        FlowId(slot)
    }

    /// Removes a flow.
    ///
    /// # Panics
    /// When there is no such flow.
    pub fn remove_flow(&mut self, flow: FlowId) {
        self.expect_alive(flow);
        self.leave(flow.0);
        self.flows[flow.index()].alive = false;
        self.free.push(flow.0);
    }

    /// Changes the most that `flow` takes, in bytes per second.
    ///
    /// # Panics
    /// When there is no such flow, or the cap is negative or not a number.
    pub fn set_cap(&mut self, flow: FlowId, cap: Option<f64>) {
        self.expect_alive(flow);
        let cap = checked_cap(cap);
        if cap != self.flows[flow.index()].cap {
            let f = &mut self.flows[flow.index()];
            (f.cap, f.limit) = (cap, cap / f.weight);
            self.relimit(flow.0);
            self.list(flow.0);
            self.rebound(flow.0, None);
        }
    }

    /// Changes the weight of `flow`.
    ///
    /// # Panics
    /// When there is no such flow, or the weight is not positive and finite.
    pub fn set_weight(&mut self, flow: FlowId, weight: f64) {
        self.expect_alive(flow);
        let weight = checked_weight(weight);
        if weight != self.flows[flow.index()].weight {
            let f = &mut self.flows[flow.index()];
            (f.weight, f.limit) = (weight, f.cap / weight);
            self.reweigh(flow.0);
            self.list(flow.0);
        }
    }

    /// Leads `flow` over other links from now on.
    ///
    /// # Panics
    /// When there is no such flow.
    pub fn set_links(&mut self, flow: FlowId, links: &[LinkId]) {
        self.expect_alive(flow);
        self.leave(flow.0);
        self.join(flow.0, links);
        self.list(flow.0);
    }

    /// The rate of `flow` in bytes per second as of the last [`Network::solve`]; infinite when neither a link nor a cap limits it.
    ///
    /// # Panics
    /// When there is no such flow.
    #[must_use]
    pub fn rate(&self, flow: FlowId) -> f64 {
        self.expect_alive(flow);
        self.flows[flow.index()].rate
    }

    /// The links of `flow`, in any order.
    pub fn links(&self, flow: FlowId) -> impl ExactSizeIterator<Item = LinkId> + '_ {
        self.expect_alive(flow);
        self.hops.of(self.flows[flow.index()].hops).iter().map(|hop| LinkId(hop.link))
    }

    /// How many flows there are.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// How many times a link was looked at since the network was made: what solving has cost, independent of the machine.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.scratch.looks
    }

    fn expect_alive(&self, flow: FlowId) {
        assert!(self.flows.get(flow.index()).is_some_and(|f| f.alive), "no such flow: {flow:?}");
    }
}

/// The capacity, with zero of one sign: the solver orders levels by their bits.
fn checked_capacity(capacity: f64) -> f64 {
    assert!(capacity >= 0.0, "a link's capacity is {capacity} B/s");
    capacity + 0.0
}

fn checked_weight(weight: f64) -> f64 {
    assert!(weight > 0.0 && weight.is_finite(), "a flow's weight is {weight}");
    weight
}

/// The cap as a number, infinite when there is none.
fn checked_cap(cap: Option<f64>) -> f64 {
    let cap = cap.unwrap_or(f64::INFINITY);
    assert!(cap >= 0.0, "a flow's cap is {cap} B/s");
    cap + 0.0
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a network counts its parts in 32 bits")
}
