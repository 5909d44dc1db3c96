//! Snapshots before the request: what is left when it comes.

mod common;

use common::{one_vm, run, strategy};
use livemig_core::machine::Outcome;
use livemig_core::units::{Bytes, Span, Time};
use livemig_models::world::{HostId, Incident, ScheduledEvent, VmId, Workload, World};

const GIB: f64 = 1_073_741_824.0;

fn world(request_s: u64, workload: Workload) -> World {
    let mut world = one_vm(Bytes::from_gib(1), workload, GIB / 10.0);
    world.moves[0].at = Time(request_s * 1_000_000_000);
    world
}

fn writer() -> Workload {
    Workload::Uniform { working_set: Bytes::from_mib(64), writes: 1e6, reads: 0.0 }
}

#[test]
fn an_idle_guest_is_gone_at_once() {
    let m = run(&world(60, Workload::Idle), &strategy("quick-eviction", |_| {})).migrations.remove(0);
    assert_eq!(m.metrics.outcome, Outcome::Completed);
    assert_eq!(m.metrics.eviction_time, Some(Span::ZERO));
    assert_eq!(m.metrics.bytes.snapshot, Bytes::from_gib(1));
    assert_eq!(m.metrics.bytes.total(), Bytes::from_gib(1));
}

#[test]
fn only_the_working_set_is_left_of_a_busy_guest() {
    let m = run(
        &world(60, writer()),
        &strategy("quick-eviction", |s| {
            s.live = None;
        }),
    )
    .migrations
    .remove(0);
    // 64 MiB at 102.4 MiB/s.
    assert!((m.metrics.downtime.unwrap().total.as_secs_f64() - 0.625).abs() < 1e-3);
    assert_eq!(m.metrics.bytes.resent, Bytes::from_mib(64));
}

#[test]
fn the_request_may_come_in_the_middle_of_anything() {
    for ms in (0..30_000).step_by(137) {
        let mut world = world(1, writer());
        world.moves[0].at = Time(ms * 1_000_000);
        for push in [false, true] {
            let s = strategy("quick-eviction", |s| {
                if push {
                    (s.live, s.push) = (None, Some(livemig_core::strategy::Push::default()));
                }
            });
            let m = run(&world, &s).migrations.remove(0);
            assert_eq!(m.metrics.outcome, Outcome::Completed, "request at {ms} ms");
            assert!(m.metrics.bytes.total() >= Bytes::from_gib(1), "request at {ms} ms");
            // At the worst all of memory, 29 rounds over the working set and the stopped one.
            assert!(m.metrics.eviction_time.unwrap() <= Span::from_secs(10 + 30), "request at {ms} ms");
        }
    }
}

#[test]
fn what_fails_before_the_request_is_reported() {
    for (what, outcome) in [
        (Incident::Fail(HostId(1)), Outcome::Aborted),
        (Incident::Fail(HostId(0)), Outcome::Lost),
        (Incident::Cancel(VmId(0)), Outcome::Cancelled),
    ] {
        let mut world = world(60, writer());
        world.events.push(ScheduledEvent { at: Time(20_000_000_000), what });
        let m = run(&world, &strategy("quick-eviction", |_| {})).migrations.remove(0);
        assert_eq!(m.metrics.outcome, outcome);
        assert_eq!(m.metrics.eviction_time, None);
    }
}
