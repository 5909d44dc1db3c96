//! What a change of the network costs, and what the event queue does per second.
//!
//! The topology of the first group is that of `mig_bench` in mode `rnd`: sources with ten flows each to random destinations, one
//! component. With equal links a departure there changes the rates of about a hundred flows, with unequal ones of about five hundred.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use livemig_core::units::Time;
use livemig_sim::network::{FlowId, LinkId, Network};
use livemig_sim::queue::EventQueue;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const NIC: f64 = 1.25e9;

/// Sources and destinations with one link each, and flows between them.
struct Bipartite {
    network: Network,
    tx: Vec<LinkId>,
    rx: Vec<LinkId>,
    /// With the source of each.
    flows: Vec<(usize, FlowId)>,
    rng: Pcg64,
}

impl Bipartite {
    /// Capacities differ by a factor of up to `spread`.
    fn new(hosts: usize, per_host: usize, spread: f64) -> Bipartite {
        let mut network = Network::new();
        let mut rng = Pcg64::seed_from_u64(1);
        let mut links = || -> Vec<LinkId> { (0..hosts).map(|_| network.add_link(NIC * rng.random_range(1.0..=spread))).collect() };
        let (tx, rx) = (links(), links());
        let mut bed = Bipartite { network, tx, rx, flows: Vec::new(), rng };
        for i in 0..hosts * per_host {
            bed.arrive(i / per_host);
        }
        bed
    }

    fn settled(hosts: usize, per_host: usize, spread: f64) -> Bipartite {
        let mut bed = Bipartite::new(hosts, per_host, spread);
        bed.solve();
        bed
    }

    fn arrive(&mut self, source: usize) {
        let destination = self.rx[self.rng.random_range(0..self.rx.len())];
        self.flows.push((source, self.network.add_flow(&[self.tx[source], destination], 1.0, None)));
    }

    /// Returns the source that has one flow less.
    fn depart(&mut self) -> usize {
        let (source, flow) = self.flows.swap_remove(self.rng.random_range(0..self.flows.len()));
        self.network.remove_flow(flow);
        source
    }

    /// Returns how many rates changed, so that nothing is optimised away.
    fn solve(&mut self) -> u32 {
        let mut changed = 0;
        self.network.solve(|_, _, _| changed += 1);
        changed
    }
}

fn random_destinations(c: &mut Criterion) {
    let mut group = c.benchmark_group("1000 sources x 10 flows");
    group.bench_function("fill", |b| b.iter_batched_ref(|| Bipartite::new(1000, 10, 1.0), Bipartite::solve, BatchSize::LargeInput));
    for (name, spread) in [("equal links", 1.0), ("links up to 3 times one another", 3.0)] {
        let mut bed = Bipartite::settled(1000, 10, spread);
        group.bench_function(format!("departure, then arrival at the same source, {name}"), |b| {
            b.iter(|| {
                let source = bed.depart();
                let changed = bed.solve();
                bed.arrive(source);
                changed + bed.solve()
            });
        });
    }
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("all 10,000 depart", |b| {
        b.iter_batched_ref(
            || Bipartite::settled(1000, 10, 1.0),
            |bed| {
                while !bed.flows.is_empty() {
                    bed.depart();
                    bed.solve();
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// A hundred flows into one destination: every change is felt by all.
fn star(c: &mut Criterion) {
    let mut network = Network::new();
    let hub = network.add_link(NIC);
    let links: Vec<LinkId> = (0..100).map(|_| network.add_link(NIC)).collect();
    let mut flows: Vec<FlowId> = links.iter().map(|&link| network.add_flow(&[link, hub], 1.0, None)).collect();
    network.solve(|_, _, _| ());
    let mut next = 0;
    c.bench_function("star of 100: departure, then arrival", |b| {
        b.iter(|| {
            let mut changed = 0;
            network.remove_flow(flows[next]);
            network.solve(|_, _, _| changed += 1);
            flows[next] = network.add_flow(&[links[next], hub], 1.0, None);
            network.solve(|_, _, _| changed += 1);
            next = (next + 1) % flows.len();
            changed
        });
    });
}

/// The hold model: the next event is taken and put in again later; beside it, completions that move.
fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue of 10,000");
    let mut rng = Pcg64::seed_from_u64(2);
    let mut queue = EventQueue::new();
    let keys: Vec<_> = (0..10_000u32).map(|n| queue.push(Time(rng.random_range(0..1_000_000)), n)).collect();
    group.bench_function("reschedule", |b| {
        b.iter(|| queue.reschedule(keys[rng.random_range(0..keys.len())], Time(rng.random_range(0..1_000_000))));
    });
    group.bench_function("pop and push", |b| {
        b.iter(|| {
            let (now, event) = queue.pop().expect("as many go in as come out");
            queue.push(Time(now.0 + rng.random_range(0..1_000_000)), event)
        });
    });
    group.finish();
}

criterion_group!(benches, random_destinations, star, queue);
criterion_main!(benches);
