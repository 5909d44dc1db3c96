use proptest::prelude::*;

use super::oracle::{OracleFlow, fill};
use super::*;

/// One call on a network; numbers are reduced to what exists when it is applied.
#[derive(Clone, Debug)]
enum Op {
    Add { links: Vec<usize>, weight: f64, cap: Option<f64> },
    Remove(usize),
    Cap(usize, Option<f64>),
    Weight(usize, f64),
    Links(usize, Vec<usize>),
    Capacity(usize, f64),
    Solve,
}

/// Round values make ties, the others make none.
fn amount() -> impl Strategy<Value = f64> {
    prop_oneof![(1u32..12).prop_map(f64::from), 0.5..12.0f64, (0u32..4).prop_map(|n| f64::from(n) * 3.0)]
}

fn capacity() -> impl Strategy<Value = f64> {
    prop_oneof![6 => amount(), 1 => Just(f64::INFINITY)]
}

fn cap() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![3 => Just(None), 1 => amount().prop_map(Some)]
}

fn weight() -> impl Strategy<Value = f64> {
    prop_oneof![3 => Just(1.0), 1 => (1u32..5).prop_map(f64::from), 1 => 0.2..5.0f64]
}

fn route() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..5)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (route(), weight(), cap()).prop_map(|(links, weight, cap)| Op::Add { links, weight, cap }),
        3 => any::<usize>().prop_map(Op::Remove),
        1 => (any::<usize>(), cap()).prop_map(|(i, c)| Op::Cap(i, c)),
        1 => (any::<usize>(), weight()).prop_map(|(i, w)| Op::Weight(i, w)),
        1 => (any::<usize>(), route()).prop_map(|(i, r)| Op::Links(i, r)),
        1 => (any::<usize>(), capacity()).prop_map(|(l, c)| Op::Capacity(l, c)),
        5 => Just(Op::Solve),
    ]
}

/// A network beside what it should hold.
struct Pair {
    network: Network,
    links: Vec<LinkId>,
    capacities: Vec<f64>,
    flows: Vec<(FlowId, OracleFlow)>,
    /// Rates by flow number, kept by what `solve` reports only.
    reported: Vec<f64>,
}

impl Pair {
    fn new(capacities: Vec<f64>) -> Pair {
        let mut network = Network::new();
        let links = capacities.iter().map(|&c| network.add_link(c)).collect();
        Pair { network, links, capacities, flows: Vec::new(), reported: Vec::new() }
    }

    fn route(&self, links: &[usize]) -> (Vec<usize>, Vec<LinkId>) {
        let route: Vec<usize> = links.iter().map(|l| l % self.links.len()).collect();
        let ids = route.iter().map(|&l| self.links[l]).collect();
        (route, ids)
    }

    fn apply(&mut self, op: &Op) {
        let count = self.flows.len().max(1);
        let pick = |i: usize| i % count;
        match *op {
            Op::Add { ref links, weight, cap } => {
                let (links, ids) = self.route(links);
                let id = self.network.add_flow(&ids, weight, cap);
                self.flows.push((id, OracleFlow { links, weight, cap: cap.unwrap_or(f64::INFINITY) }));
                if self.reported.len() <= id.index() {
                    self.reported.resize(id.index() + 1, 0.0);
                }
                self.reported[id.index()] = 0.0;
            }
            Op::Capacity(l, c) => {
                let l = l % self.links.len();
                self.network.set_capacity(self.links[l], c);
                self.capacities[l] = c;
            }
            Op::Solve => self.solve_and_check(),
            _ if self.flows.is_empty() => {}
            Op::Remove(i) => {
                let (id, _) = self.flows.swap_remove(pick(i));
                self.network.remove_flow(id);
            }
            Op::Cap(i, cap) => {
                let (id, flow) = &mut self.flows[pick(i)];
                self.network.set_cap(*id, cap);
                flow.cap = cap.unwrap_or(f64::INFINITY);
            }
            Op::Weight(i, weight) => {
                let (id, flow) = &mut self.flows[pick(i)];
                self.network.set_weight(*id, weight);
                flow.weight = weight;
            }
            Op::Links(i, ref links) => {
                let i = pick(i);
                let (links, ids) = self.route(links);
                self.network.set_links(self.flows[i].0, &ids);
                self.flows[i].1.links = links;
            }
        }
    }

    fn solve_and_check(&mut self) {
        let reported = &mut self.reported;
        self.network.solve(|flow, old, new| {
            assert_eq!(reported[flow.index()].to_bits(), old.to_bits(), "the old rate is the one reported before");
            assert_ne!(old, new);
            reported[flow.index()] = new;
        });
        let flows: Vec<OracleFlow> = self.flows.iter().map(|(_, flow)| flow.clone()).collect();
        for ((id, flow), want) in self.flows.iter().zip(fill(&self.capacities, &flows)) {
            let rate = self.network.rate(*id);
            assert_eq!(rate.to_bits(), self.reported[id.index()].to_bits(), "every change is reported");
            let close = rate == want || (rate - want).abs() <= 1e-12 * want;
            assert!(close, "{rate} is not {want}: {flow:?} among {flows:?} over {:?}", self.capacities);
        }
        for strict in [false, true] {
            let fresh = self.network.solved_from_nothing(strict);
            for (id, _) in &self.flows {
                assert_eq!(self.network.rate(*id).to_bits(), fresh.rate(*id).to_bits(), "rates depend on the state only");
            }
        }
    }
}

impl Network {
    /// A copy that has forgotten every level and has found them again, in one order or in the other.
    fn solved_from_nothing(&self, strict: bool) -> Network {
        let mut copy = self.clone();
        copy.levels.fill(f64::INFINITY);
        for flow in 0..index(copy.flows.len()) {
            if copy.flows[flow as usize].alive {
                copy.rebound(flow, None);
            }
        }
        for link in 0..index(copy.links.len()) {
            copy.touch(link);
        }
        if strict {
            copy.settle_strict();
        }
        copy.solve(|_, _, _| ());
        copy
    }
}

fn one(network: &mut Network, links: &[LinkId]) -> FlowId {
    network.add_flow(links, 1.0, None)
}

#[test]
fn a_flow_without_limit_is_infinitely_fast() {
    let mut network = Network::new();
    let open = network.add_link(f64::INFINITY);
    let (free, wide, capped) = (one(&mut network, &[]), one(&mut network, &[open]), network.add_flow(&[open], 2.0, Some(7.0)));
    network.solve(|_, old, _| assert_eq!(old, 0.0));
    assert_eq!((network.rate(free), network.rate(wide), network.rate(capped)), (f64::INFINITY, f64::INFINITY, 7.0));
    network.set_capacity(open, 30.0);
    network.solve(|flow, old, new| assert_eq!((flow, old, new), (wide, f64::INFINITY, 23.0)));
}

#[test]
fn weights_share_and_caps_leave_the_rest() {
    let mut network = Network::new();
    let link = network.add_link(100.0);
    let (a, b) = (network.add_flow(&[link], 1.0, None), network.add_flow(&[link], 4.0, None));
    network.solve(|_, _, _| ());
    assert_eq!((network.rate(a), network.rate(b)), (20.0, 80.0));
    network.set_cap(b, Some(30.0));
    network.solve(|_, _, _| ());
    assert_eq!((network.rate(a), network.rate(b)), (70.0, 30.0));
    network.set_capacity(link, 0.0);
    network.solve(|_, _, _| ());
    assert_eq!((network.rate(a), network.rate(b)), (0.0, 0.0));
}

#[test]
fn a_link_named_twice_is_used_twice() {
    let mut network = Network::new();
    let link = network.add_link(90.0);
    let (twice, once) = (one(&mut network, &[link, link]), one(&mut network, &[link]));
    network.solve(|_, _, _| ());
    assert_eq!((network.rate(twice), network.rate(once)), (30.0, 30.0));
    network.remove_flow(once);
    network.solve(|flow, old, new| assert_eq!((flow, old, new), (twice, 30.0, 45.0)));
}

#[test]
fn nothing_is_reported_where_no_rate_changes() {
    let mut network = Network::new();
    let (narrow, wide) = (network.add_link(10.0), network.add_link(100.0));
    let held = one(&mut network, &[narrow, wide]);
    network.solve(|_, _, _| ());
    let other = network.add_flow(&[wide], 1.0, Some(80.0));
    network.solve(|flow, _, new| assert_eq!((flow, new), (other, 80.0)));
    network.remove_flow(other);
    network.solve(|flow, _, _| panic!("{flow:?} did not change"));
    assert_eq!(network.rate(held), 10.0);
}

#[test]
fn a_number_given_back_and_taken_before_the_next_solve_is_a_new_flow() {
    let mut network = Network::new();
    let link = network.add_link(10.0);
    let old = one(&mut network, &[link]);
    network.solve(|_, _, _| ());
    network.remove_flow(old);
    let new = one(&mut network, &[link]);
    assert_eq!((old, network.rate(new)), (new, 0.0));
    let mut calls = Vec::new();
    network.solve(|flow, from, to| calls.push((flow, from, to)));
    assert_eq!(calls, [(new, 0.0, 10.0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn rates_are_those_of_progressive_filling(
        capacities in prop::collection::vec(capacity(), 1..8),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new(capacities);
        for op in &ops {
            pair.apply(op);
        }
        pair.solve_and_check();
    }
}
