//! Choosing the technique of 500 VMs on one host: unrelated rates, and the rates that make it hardest.

use criterion::{Criterion, criterion_group, criterion_main};
use livemig_core::policy::selection::{Load, select_pair};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::hint::black_box;

/// VMs on one host.
const VMS: usize = 500;
/// Most of a VM, in Mbit/s: together they send 100 Gbit/s.
const MOST: u32 = 400;

fn vms(mut rx: impl FnMut(&mut Pcg64Mcg, u32) -> u32) -> Vec<Load> {
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let one = |_| {
        let tx = rng.random_range(1..=MOST);
        Load { tx, rx: rx(&mut rng, tx) }
    };
    (0..VMS).map(one).collect()
}

fn selection(c: &mut Criterion) {
    let mut group = c.benchmark_group("selection of 500 VMs");
    let families: [(&str, Vec<Load>); 5] = [
        ("unrelated", vms(|rng, _| rng.random_range(1..=MOST))),
        ("correlated", vms(|rng, tx| (tx + rng.random_range(0..=MOST / 10)).max(1))),
        ("as much received as sent", vms(|_, tx| tx)),
        ("ten more received than sent", vms(|_, tx| tx + 10)),
        ("twice as much received as sent", vms(|rng, tx| 2 * tx + rng.random_range(0..2))),
    ];
    for (name, vms) in &families {
        for background in [Load::default(), Load { tx: 20_011, rx: 0 }] {
            let label = format!("{name}, {} Mbit/s in the background", background.tx);
            group.bench_function(&label, |b| b.iter(|| select_pair(black_box(vms), background, 0)));
        }
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
