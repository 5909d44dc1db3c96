//! Snapshots that go to a staging node before the request: what is left when it comes, what the destination fetches after the switch,
//! and what a failure of the staging node costs.

mod common;

use common::{host, one_vm, strategy};
use livemig_core::ledger::Metrics;
use livemig_core::machine::Outcome;
use livemig_core::strategy::Push;
use livemig_core::units::{Bytes, Span, Time};
use livemig_models::calibration::Calibration;
use livemig_models::world::{Fidelity, Host, HostId, Incident, Role, ScheduledEvent, Strategy, Workload, World};
use livemig_sim::Settings;

const GIB: f64 = 1_073_741_824.0;
/// A line carries the guest's memory in ten seconds.
const LINE: f64 = GIB / 10.0;
/// What the busy guest writes, again and again within a second.
const HOT: Bytes = Bytes::from_mib(64);
const REQUEST_S: f64 = 20.0;
const BOTH: [Fidelity; 2] = [Fidelity::Class, Fidelity::Page];

fn at(seconds: f64) -> Time {
    Time::ZERO + Span::from_secs_f64(seconds)
}

fn world(nodes: u32, workload: Workload) -> World {
    let mut world = one_vm(Bytes::from_gib(1), workload, LINE);
    world.hosts.extend((0..nodes).map(|_| Host { role: Role::Staging, ..host("staging", LINE) }));
    world.moves[0].at = at(REQUEST_S);
    world.moves[0].via = (0..nodes).map(|n| HostId(2 + n)).collect();
    world
}

fn writer() -> Workload {
    Workload::Sequential { working_set: HOT, writes: 1e5, reads: 0.0 }
}

/// Snapshots to the staging node, and post-copy of what is left.
fn staged() -> Strategy {
    strategy("quick-eviction", |s| {
        s.ahead.as_mut().unwrap().staging = true;
        (s.live, s.push) = (None, Some(Push::default()));
    })
}

fn run(world: &World, strategy: &Strategy, fidelity: Fidelity) -> Metrics {
    let settings =
        Settings { horizon: Span::from_secs(3_600), seed: 1, timeline: false, sampled: false, fidelity, rate_tolerance: 0.0 };
    livemig_sim::run(world, strategy, settings).migrations.remove(0).metrics
}

fn failing(mut world: World, host: u32, seconds: f64) -> World {
    world.events.push(ScheduledEvent { at: at(seconds), what: Incident::Fail(HostId(host)) });
    world
}

fn seconds(span: Option<Span>) -> f64 {
    span.expect("reached").as_secs_f64()
}

#[track_caller]
fn near(ours: f64, expected: f64, what: &str) {
    assert!((ours - expected).abs() <= 5e-3 * expected.abs().max(1e-9), "{what}: {ours}, not {expected}");
}

#[test]
fn an_idle_guest_leaves_at_once_and_is_gathered_after_the_switch() {
    for fidelity in BOTH {
        let m = run(&world(1, Workload::Idle), &staged(), fidelity);
        assert_eq!((m.outcome, m.eviction_time), (Outcome::Completed, Some(Span::ZERO)));
        near(seconds(m.total_migration_time), GIB / LINE, "total");
        assert_eq!((m.bytes.snapshot, m.bytes.gathered), (Bytes::from_gib(1), Bytes::from_gib(1)));
        assert_eq!((m.intermediary_peak, m.bytes.total()), (Bytes::from_gib(1), Bytes::from_gib(2)));
    }
}

/// With costs and latencies it is milliseconds, whatever the size.
#[test]
fn the_eviction_of_an_idle_guest_takes_milliseconds() {
    for gib in [1, 4] {
        let mut world = world(1, Workload::Idle);
        world.calibration = Calibration::built_in("default").unwrap();
        world.vms[0].memory = Bytes::from_gib(gib);
        world.moves[0].at = at(100.0);
        let eviction = seconds(run(&world, &staged(), Fidelity::Class).eviction_time);
        assert!(eviction > 0.0 && eviction < 0.1, "{eviction} s with {gib} GiB");
    }
}

/// What has been written since the last snapshot comes straight; its old versions at the staging node are not fetched.
#[test]
fn only_what_was_written_since_is_left_at_the_source() {
    for fidelity in BOTH {
        let m = run(&world(1, writer()), &staged(), fidelity);
        assert_eq!(m.outcome, Outcome::Completed);
        near((m.bytes.resent + m.bytes.demand).0 as f64, HOT.0 as f64, "pushed, or asked for");
        near(m.bytes.gathered.0 as f64, GIB - HOT.0 as f64, "gathered");
        // Straight pages and staged ones share what the destination takes in.
        near(seconds(m.eviction_time), 2.0 * HOT.0 as f64 / LINE, "eviction");
        near(seconds(m.total_migration_time), GIB / LINE, "total");
    }
}

#[test]
fn a_staging_node_that_fails_before_the_request_costs_only_its_copies() {
    for fidelity in BOTH {
        // Nobody is left to stage: everything goes to the destination again.
        let alone = run(&failing(world(1, Workload::Idle), 2, 15.0), &staged(), fidelity);
        assert_eq!(alone.outcome, Outcome::Completed);
        near(seconds(alone.eviction_time), 5.0, "of ten seconds that it takes to send everything again five are left");
        // Another one is left: it gets the half that the first had.
        let other = run(&failing(world(2, Workload::Idle), 2, 12.0), &staged(), fidelity);
        assert_eq!((other.outcome, other.eviction_time), (Outcome::Completed, Some(Span::ZERO)));
        near(other.bytes.snapshot.0 as f64, 1.5 * GIB, "snapshots");
        near(other.bytes.gathered.0 as f64, GIB, "gathered");
    }
}

/// Until it is released the source has everything: it sends what the destination has not fetched yet.
#[test]
fn a_staging_node_that_fails_before_the_release_costs_time() {
    for fidelity in BOTH {
        let m = run(&failing(world(1, writer()), 2, REQUEST_S + 0.5), &staged(), fidelity);
        assert_eq!(m.outcome, Outcome::Completed);
        // The destination takes in what its line carries from beginning to end, half of it straight until the failure.
        near(seconds(m.eviction_time), GIB / LINE, "eviction");
        near(m.bytes.gathered.0 as f64, 0.25 * LINE, "gathered");
    }
}

#[test]
fn a_staging_node_that_fails_after_the_release_takes_the_guest_with_it() {
    for fidelity in BOTH {
        let m = run(&failing(world(1, Workload::Idle), 2, REQUEST_S + 4.0), &staged(), fidelity);
        assert_eq!((m.outcome, m.eviction_time), (Outcome::Lost, Some(Span::ZERO)));
        near(m.bytes.gathered.0 as f64, 0.4 * GIB, "gathered");
    }
}

#[test]
fn the_request_may_come_in_the_middle_of_anything() {
    for ms in (0..30_000).step_by(173) {
        let mut world = world(1, writer());
        world.moves[0].at = Time(ms * 1_000_000);
        let m = run(&world, &staged(), Fidelity::Class);
        assert_eq!(m.outcome, Outcome::Completed, "request at {ms} ms");
        // Whatever is where, the destination takes in everything once. What a sweep asks for is an estimate at this fidelity.
        let total = seconds(m.total_migration_time) * LINE / GIB;
        assert!((0.999..1.05).contains(&total), "request at {ms} ms: {total}");
        assert!(m.eviction_time <= m.total_migration_time, "request at {ms} ms");
    }
}
