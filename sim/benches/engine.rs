//! How many events the engine handles per second: rounds that follow each other without end, where the network never changes, in one
//! migration, and in a thousand side by side.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{endless, endless_rule, run_for};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use livemig_core::units::Span;

fn rounds(c: &mut Criterion) {
    let strategy = endless_rule();
    let mut group = c.benchmark_group("events");
    for (migrations, horizon) in [(1, Span::from_secs(1000)), (1000, Span::from_secs(1))] {
        let world = endless(migrations);
        group.throughput(Throughput::Elements(run_for(&world, &strategy, horizon).events));
        let name = format!("{migrations} migrations, a new round every 13.4 ms");
        group.bench_function(name, |b| b.iter(|| run_for(&world, &strategy, horizon).events));
    }
    group.finish();
}

criterion_group!(benches, rounds);
criterion_main!(benches);
