//! One migration per strategy, of a guest with 1 GiB and of one with 1 TiB: at class fidelity the cost must not depend on the size.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{ordinary, run, strategy};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use livemig_core::strategy::PRESETS;
use livemig_core::units::Bytes;

fn one_migration(c: &mut Criterion) {
    let mut group = c.benchmark_group("migration");
    for preset in &PRESETS {
        let strategy = strategy(preset.name, |_| ());
        for (size, memory) in [("1 GiB", Bytes::from_gib(1)), ("1 TiB", Bytes::from_gib(1024))] {
            let world = ordinary(memory);
            group.bench_function(BenchmarkId::new(preset.name, size), |b| b.iter(|| run(&world, &strategy).events));
        }
    }
    group.finish();
}

criterion_group!(benches, one_migration);
criterion_main!(benches);
