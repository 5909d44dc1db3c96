use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

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
    /// Without patience, every change is settled in the strict order.
    fn new(capacities: Vec<f64>, patience: u32) -> Pair {
        let mut network = Network::new();
        network.scratch.patience = patience;
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

    /// Solves and holds what was reported to the rates.
    fn solve(&mut self) {
        let reported = &mut self.reported;
        self.network.solve(|flow, old, new| {
            assert_eq!(reported[flow.index()].to_bits(), old.to_bits(), "the old rate is the one reported before");
            assert_ne!(old, new);
            reported[flow.index()] = new;
        });
        for (id, _) in &self.flows {
            assert_eq!(self.network.rate(*id).to_bits(), self.reported[id.index()].to_bits(), "every change is reported");
        }
    }

    fn solve_and_check(&mut self) {
        self.solve();
        self.check_against_nothing_known();
        self.check_against_oracle();
    }

    fn check_against_oracle(&self) {
        let flows: Vec<OracleFlow> = self.flows.iter().map(|(_, flow)| flow.clone()).collect();
        for ((id, flow), want) in self.flows.iter().zip(fill(&self.capacities, &flows)) {
            let rate = self.network.rate(*id);
            let close = rate == want || (rate - want).abs() <= 1e-12 * want;
            assert!(close, "{rate} is not {want}: {flow:?} among {flows:?} over {:?}", self.capacities);
        }
    }

    /// Both orders, from a state without levels, must end at the same bits.
    fn check_against_nothing_known(&self) {
        for patience in [0, u32::MAX] {
            let fresh = self.network.solved_from_nothing(patience);
            for (id, _) in &self.flows {
                assert_eq!(self.network.rate(*id).to_bits(), fresh.rate(*id).to_bits(), "rates depend on the state only");
            }
        }
    }
}

impl Pair {
    fn tolerating(capacities: Vec<f64>, patience: u32, tolerance: f64) -> Pair {
        let mut pair = Pair::new(capacities, patience);
        pair.network.tolerance = tolerance;
        pair
    }

    /// Every rate follows from the levels, and the rates over a link miss its capacity by no more than the tolerance.
    fn check_within_tolerance(&self) {
        let (network, levels) = (&self.network, &self.network.levels);
        let mut used = vec![0.0; self.links.len()];
        for (id, flow) in &self.flows {
            let level = flow.links.iter().map(|&l| levels[l]).fold(f64::INFINITY, f64::min);
            let (rate, want) = (network.rate(*id), (flow.weight * level).min(flow.cap));
            assert!(rate == want || (rate - want).abs() <= 1e-12 * want, "{rate} is not {want}, which the levels give: {flow:?}");
            flow.links.iter().for_each(|&l| used[l] += rate);
        }
        for (l, (&used, &capacity)) in used.iter().zip(&self.capacities).enumerate() {
            let most = network.tolerance + 1e-9;
            assert!(used <= capacity * (1.0 + most) + 1e-9, "link {l} carries {used} of {capacity}");
            let full = levels[l] == f64::INFINITY || used >= capacity * (1.0 - most) - 1e-9;
            assert!(full, "link {l} holds flows back and carries {used} of {capacity}");
        }
    }
}

impl Network {
    /// A copy that has forgotten every level and has found them again.
    fn solved_from_nothing(&self, patience: u32) -> Network {
        let mut copy = self.clone();
        copy.scratch.patience = patience;
        for link in 0..index(copy.links.len()) {
            if std::mem::replace(&mut copy.levels[link as usize], f64::INFINITY) < f64::INFINITY {
                copy.change_kind(link, false);
            }
        }
        for flow in 0..index(copy.flows.len()) {
            if copy.flows[flow as usize].alive {
                copy.rebound(flow, None);
            }
        }
        for link in 0..index(copy.links.len()) {
            copy.touch(link);
        }
        copy.solve(|_, _, _| ());
        copy
    }
}

fn one(network: &mut Network, links: &[LinkId]) -> FlowId {
    network.add_flow(links, 1.0, None)
}

#[test]
fn a_flow_takes_as_much_memory_as_the_head_of_the_module_says() {
    use topology::{Hop, Member};
    assert_eq!((size_of::<Flow>(), size_of::<Member>() + size_of::<Hop>()), (64, 40));
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

/// `hosts` sources and as many destinations of capacities up to `spread` times one another, `per_host` flows from each source.
fn bipartite(rng: &mut Pcg64, hosts: usize, per_host: usize, spread: f64) -> Pair {
    let capacities = (0..2 * hosts).map(|_| 1.25e9 * rng.random_range(1.0..=spread)).collect();
    let mut pair = Pair::new(capacities, 8);
    for i in 0..hosts * per_host {
        let links = vec![i / per_host, hosts + rng.random_range(0..hosts)];
        pair.apply(&Op::Add { links, weight: 1.0, cap: None });
    }
    pair.solve();
    pair
}

#[test]
fn a_departure_from_a_giant_component_costs_what_it_touches() {
    let mut rng = Pcg64::seed_from_u64(11);
    for spread in [1.0, 3.0] {
        let mut pair = bipartite(&mut rng, 1000, 10, spread);
        let (before, departures) = (pair.network.looks(), 200);
        for _ in 0..departures {
            pair.apply(&Op::Remove(rng.random_range(0..pair.flows.len())));
            pair.solve();
        }
        let looks = (pair.network.looks() - before) / departures;
        assert!(looks < 300, "{looks} of 2000 links were looked at");
        pair.check_against_nothing_known();
    }
}

#[test]
fn a_fleet_in_racks_stays_exact_through_a_drain() {
    const RACKS: usize = 6;
    const HOSTS: usize = 36;
    let mut rng = Pcg64::seed_from_u64(12);
    // Host tx, host rx, rack up, rack down.
    let capacities = (0..2 * HOSTS + 2 * RACKS).map(|l| if l < 2 * HOSTS { 1e9 } else { 1.5e9 }).collect();
    let mut pair = Pair::new(capacities, 8);
    let route = |rng: &mut Pcg64| {
        let (from, to) = (rng.random_range(0..HOSTS), rng.random_range(0..HOSTS));
        let (up, down) = (from % RACKS, to % RACKS);
        let mut links = vec![from, HOSTS + to];
        if up != down {
            links.extend([2 * HOSTS + up, 2 * HOSTS + RACKS + down]);
        }
        links
    };
    for i in 0..400 {
        let cap = (i % 3 > 0).then(|| rng.random_range(1e6..5e8));
        pair.apply(&Op::Add { links: route(&mut rng), weight: f64::from(1 + i % 4), cap });
    }
    for step in 0..300 {
        let flow = rng.random_range(0..pair.flows.len());
        match step % 4 {
            0 => pair.apply(&Op::Remove(flow)),
            1 => pair.apply(&Op::Add { links: route(&mut rng), weight: 1.0, cap: None }),
            2 => pair.apply(&Op::Links(flow, route(&mut rng))),
            _ => pair.apply(&Op::Cap(flow, Some(rng.random_range(1e6..5e8)))),
        }
        pair.solve();
        if step % 30 == 0 {
            pair.check_against_nothing_known();
            pair.check_against_oracle();
        }
    }
}

#[test]
fn a_tolerance_saves_looks() {
    let looks = [0.0, 1e-3].map(|tolerance| {
        let mut rng = Pcg64::seed_from_u64(13);
        // Racks with 80 large flows each, and small ones that come and go.
        let mut pair = Pair::tolerating(vec![1e10; 20], 8, tolerance);
        for i in 0..800 {
            pair.apply(&Op::Add { links: vec![i % 10, 10 + rng.random_range(0..10)], weight: 1.0, cap: None });
        }
        pair.solve();
        let before = pair.network.looks();
        for i in 0..400 {
            pair.apply(&Op::Add { links: vec![i % 10], weight: 1.0, cap: Some(rng.random_range(1e5..3e6)) });
            pair.solve();
            pair.check_within_tolerance();
        }
        pair.network.looks() - before
    });
    assert!(looks[1] > 0 && 10 * looks[1] < looks[0], "{looks:?}");
}

#[test]
fn a_flow_on_links_that_are_far_from_full_is_not_looked_into() {
    let mut network = Network::new();
    let backbone = network.add_link(1e9);
    for _ in 0..1000 {
        network.add_flow(&[backbone], 1.0, Some(1e5));
    }
    network.solve(|_, _, _| ());
    let looks = network.looks();
    let flow = network.add_flow(&[backbone], 1.0, Some(1e6));
    network.solve(|_, _, new| assert_eq!(new, 1e6));
    network.remove_flow(flow);
    network.solve(|_, _, _| ());
    assert_eq!(network.looks(), looks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn rates_are_those_of_progressive_filling(
        capacities in prop::collection::vec(capacity(), 1..8),
        patience in prop_oneof![Just(0), Just(1), Just(8)],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new(capacities, patience);
        for op in &ops {
            pair.apply(op);
        }
        pair.solve_and_check();
    }

    #[test]
    fn rates_with_a_tolerance_miss_capacities_by_no_more(
        capacities in prop::collection::vec(capacity(), 1..8),
        patience in prop_oneof![Just(0), Just(1), Just(8)],
        tolerance in prop_oneof![Just(1e-6), Just(1e-3), Just(0.1)],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::tolerating(capacities, patience, tolerance);
        for op in &ops {
            match op {
                Op::Solve => pair.solve(),
                _ => pair.apply(op),
            }
            if matches!(op, Op::Solve) {
                pair.check_within_tolerance();
            }
        }
    }
}
