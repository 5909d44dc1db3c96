//! Fleets of migrations that share a star of NICs: `mig_bench 200 10 4000 20 1250 rnd` and `2000 10`, where no two events coincide,
//! and `2000 10 4000 100 1250 het`, with many rounds. Ten times the migrations should take little more than ten times as long.

#[path = "../tests/common/mod.rs"]
mod common;

use common::fleets::Fleet;
use common::{like_simgrid, run};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn fleets(c: &mut Criterion) {
    let strategy = like_simgrid();
    let fleet = |hosts, dirty| Fleet { hosts, per_source: 10, dirty };
    let mut group = c.benchmark_group("fleet");
    group.sample_size(10);
    for (name, world) in [
        ("200x10 rnd", fleet(200, 20e6).rnd()),
        ("2000x10 rnd", fleet(2000, 20e6).rnd()),
        ("2000x10 het", fleet(2000, 100e6).het()),
    ] {
        group.throughput(Throughput::Elements(world.moves.len() as u64));
        group.bench_function(name, |b| b.iter(|| run(&world, &strategy).events));
    }
    group.finish();
}

criterion_group!(benches, fleets);
criterion_main!(benches);
