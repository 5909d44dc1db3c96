//! Loads that change while a guest is moved.

mod migrations;

use livemig_core::units::{Bytes, Rate, Span};
use livemig_exec::run::Options;
use livemig_models::world::{DirtyCurve, Incident, Phase, ScheduledEvent, Workload, World};
use migrations::{busy, completes, have_kvm, options, strategy, with, world};
use std::sync::Arc;

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

fn sweep(mib: u64) -> Workload {
    Workload::Sequential { working_set: Bytes::from_mib(mib), writes: 100_000.0, reads: 0.0 }
}

/// The guest's load changes so long after the request.
fn change(world: &mut World, after_ms: u64, workload: Workload) {
    let (vm, at) = (world.moves[0].vm, world.moves[0].at + Span::from_millis(after_ms));
    world.events.push(ScheduledEvent { at, what: Incident::Workload(vm, workload) });
}

#[test]
fn a_load_changes_wherever_the_guest_is() {
    if !have_kvm() {
        return;
    }
    // 64 MiB, of which a fifth is zero, take 0.9 s: in live copy, in a switch that lasts as long, and in the push.
    for name in ["pre-copy", "stop-and-copy", "post-copy", "scatter-gather"] {
        let slow = with(name, |spec| spec.transfer.limit = Some(Rate(60e6)));
        for after_ms in [0, 300] {
            let mut world = world(Workload::Idle);
            change(&mut world, after_ms, sweep(4));
            let report = completes(&world, &slow, &Options { observe: Span::from_millis(500), ..options() }).report;
            assert_eq!(report.map(|r| r.touched), Some(1024), "{name}: what the idle guest is told after {after_ms} ms");
        }
    }
}

#[test]
fn the_phases_of_a_load_are_counted_from_its_beginning() {
    if !have_kvm() {
        return;
    }
    let phase = |ms, workload| Phase { until: Span::from_millis(ms), workload };
    let slow = with("pre-copy", |spec| spec.transfer.limit = Some(Rate(60e6)));
    let mut world = world(Workload::Phases(vec![phase(50, sweep(1)), phase(100, Workload::Idle)].into()));
    change(
        &mut world,
        100,
        Workload::Phases(vec![phase(150, Workload::Idle), phase(300, sweep(3)), phase(400, Workload::Idle)].into()),
    );
    // Told in the wrong order: it is the time that counts.
    change(&mut world, 2000, sweep(8));
    change(&mut world, 700, sweep(2));
    let migration = completes(&world, &slow, &options());
    // 3 MiB were written some 250 ms after the request, and not from the beginning of the run on; 8 MiB were never reached.
    assert_eq!(migration.report.map(|r| r.touched), Some(768));
    assert!(migration.metrics.bytes.resent >= Bytes::from_mib(3), "{:?}", migration.metrics);
}

#[test]
fn a_busy_guest_takes_up_a_measured_curve() {
    if !have_kvm() {
        return;
    }
    let page = 4096.0;
    let curve = DirtyCurve { points: vec![(0.0, 0.0), (0.02, 1000.0 * page), (0.2, 3000.0 * page), (0.6, 4000.0 * page)] };
    for name in ["pre-copy", "post-copy"] {
        let mut world = world(busy());
        change(&mut world, 0, Workload::Curve { curve: Arc::new(curve.clone()), reads: 5000.0 });
        let report = completes(&world, &strategy(name), &Options { observe: Span::from_secs(2), ..options() }).report;
        assert!(report.as_ref().is_some_and(|r| r.touched >= 4000), "{name}: {report:?}");
    }
}
