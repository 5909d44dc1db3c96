//! Handing out the dirty pages of 4 GiB to four connections in frames of 64 pages: as they come, and in tasks of 2 MiB.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::PushPlan;
use livemig_core::units::PageIndex;
use livemig_core::vocabulary::Prepaging;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::hint::black_box;

const PAGES: u64 = 1 << 20;
const TASK: u64 = 512;
const FRAME: u64 = 64;
const CONNECTIONS: usize = 4;

/// Every page, or a tenth of them at random.
fn dirty(all: bool) -> Bitmap {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    if all { Bitmap::full(PAGES) } else { (0..PAGES).filter(|_| rng.random_range(0..10) == 0).map(PageIndex).collect() }
}

/// Frames of whole runs, as a sender fills them.
fn hand_out(mut plan: PushPlan) -> u64 {
    let mut frames = 0;
    while plan.left() > 0 {
        for connection in 0..CONNECTIONS {
            let mut room = FRAME;
            while let Some(extent) = (room > 0).then(|| plan.next_for(connection, room)).flatten() {
                room -= black_box(extent).pages;
            }
            frames += 1;
        }
    }
    frames
}

fn tasks(c: &mut Criterion) {
    let mut group = c.benchmark_group("4 GiB for four connections");
    for (what, all) in [("every page", true), ("a tenth", false)] {
        let set = dirty(all);
        group.throughput(Throughput::Elements(set.count()));
        let plan = || PushPlan::new(set.clone(), Prepaging::AddressOrder);
        group.bench_function(format!("{what}, as they come"), |b| b.iter_batched(plan, hand_out, BatchSize::LargeInput));
        let in_tasks = || plan().in_tasks(TASK);
        group.bench_function(format!("{what}, in tasks"), |b| b.iter_batched(in_tasks, hand_out, BatchSize::LargeInput));
    }
    group.finish();
}

criterion_group!(benches, tasks);
criterion_main!(benches);
