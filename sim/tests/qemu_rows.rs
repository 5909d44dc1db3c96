//! QEMU 7.2 migrating a 1 GiB guest at 1 Gbit/s on loopback: what it measured, and what the same rule does here.
//!
//! The guest's first 16 MiB are never written, so 1.6 % of its pages are zero. QEMU lifts its bandwidth limit while the guest
//! stands still; memory is then copied at some 400 MB/s (37.5 MB in about 100 ms of downtime).

mod common;

use common::{one_vm, run, strategy};
use livemig_core::machine::Outcome;
use livemig_core::policy::stop::{FixedRounds, Qemu, StopRule};
use livemig_core::policy::throttle::{AutoConverge, CpuScheduling, DirtyLimit, Start, ThrottlePolicy};
use livemig_core::strategy::{Spec, preset};
use livemig_core::units::{Bytes, Rate, Span};
use livemig_models::world::{Workload, World};
use livemig_sim::MigrationResult;

const LIMIT: Rate = Rate(125e6);

/// The guest writes its working set without pause; a write costs 15 ns where the page is already dirty.
fn world(hot: bool) -> World {
    let workload = if hot {
        Workload::Sequential { working_set: Bytes::from_mib(256), writes: 1.0 / 15e-9, reads: 0.0 }
    } else {
        Workload::Idle
    };
    let mut world = one_vm(Bytes::from_gib(1), workload, 400e6);
    world.vms[0].zero_share = 1.0 / 64.0;
    let c = &mut world.calibration;
    c.page_header = Bytes(8);
    c.zero_page = Bytes(9);
    c.tracking_fault = Span(2_400);
    c.dirty_log_per_gib = Span(6_300_000);
    c.latency = Span(20_000);
    c.fault_service = Span(60_000);
    world
}

fn migrate(hot: bool, preset_name: &str, change: impl FnOnce(&mut Spec)) -> MigrationResult {
    let s = strategy(preset_name, |s| {
        s.transfer.limit = Some(LIMIT);
        s.transfer.unlimited_while_paused = true;
        if let Some(live) = &mut s.live {
            live.stop = StopRule::Qemu(Qemu::default());
            live.skip_redirtied = false;
        }
        change(s);
    });
    run(&world(hot), &s).migrations.remove(0)
}

fn assert_total(m: &MigrationResult, measured_s: f64) {
    let total = m.metrics.total_migration_time.unwrap().as_secs_f64();
    let deviation = total / measured_s - 1.0;
    println!("{total:.3} s against {measured_s} s: {:+.1} %, {} rounds", 100.0 * deviation, m.metrics.rounds);
    assert!(deviation.abs() <= 0.05, "{total} s against {measured_s} s");
}

#[test]
fn idle_pre_copy() {
    assert_total(&migrate(false, "pre-copy", |_| {}), 8.317);
}

#[test]
fn hot_pre_copy_never_converges() {
    let m = migrate(true, "pre-copy", |_| {});
    assert_eq!(m.metrics.outcome, Outcome::Unfinished);
    assert!(!m.metrics.converged);
}

#[test]
fn hot_post_copy() {
    let m = migrate(true, "post-copy", |_| {});
    assert_total(&m, 8.276);
    assert!(m.metrics.remote_faults > 0);
}

#[test]
fn hot_hybrid() {
    let m = migrate(true, "hybrid", |s| s.live.as_mut().unwrap().stop = StopRule::FixedRounds(FixedRounds { rounds: 1 }));
    assert_total(&m, 10.404);
}

#[test]
fn hot_auto_converge() {
    let m = migrate(true, "pre-copy", |s| {
        s.live.as_mut().unwrap().throttle = Some(ThrottlePolicy::AutoConverge(AutoConverge::default()));
    });
    assert_total(&m, 45.136);
    assert!(m.metrics.converged);
}

fn hot_throttled(policy: ThrottlePolicy) -> MigrationResult {
    let m = migrate(true, "pre-copy", |s| s.live.as_mut().unwrap().throttle = Some(policy));
    let (total, lost) = (m.metrics.total_migration_time.unwrap(), m.metrics.work_lost);
    println!("total {total}, work lost {lost}, throttle {}, {} rounds", m.metrics.throttle, m.metrics.rounds);
    assert!(m.metrics.converged);
    m
}

#[test]
fn hot_cpu_scheduling_takes_a_third_of_auto_converge_and_less_of_the_guest() {
    let stepwise = hot_throttled(ThrottlePolicy::AutoConverge(AutoConverge::default()));
    for rounds in [1, 2, 3] {
        let policy = CpuScheduling::new(None, rounds, 0.02, Start::Round(1));
        let scheduled = hot_throttled(ThrottlePolicy::CpuScheduling(policy));
        let time = |m: &MigrationResult| m.metrics.total_migration_time.unwrap().as_secs_f64();
        assert!(time(&scheduled) <= time(&stepwise) / 3.0, "{rounds} rounds");
        assert!(scheduled.metrics.work_lost < stepwise.metrics.work_lost, "{rounds} rounds");
    }
}

#[test]
fn hot_dirty_limit_holds_the_guest_to_its_rate() {
    let limit = Rate(40e6);
    let m = hot_throttled(ThrottlePolicy::DirtyLimit(DirtyLimit::new(limit, 0.5, 0.99)));
    let held: Vec<_> = m.rounds.iter().filter(|r| !r.stopped && r.duration >= Span::from_secs(1)).collect();
    let rate = held.last().unwrap().dirty_rate().unwrap().0;
    assert!((rate / limit.0 - 1.0).abs() < 0.1, "{rate}");
}

#[test]
fn every_preset_completes_when_idle() {
    for p in livemig_core::strategy::PRESETS {
        let m = migrate(false, preset(p.name).unwrap().name, |_| {});
        assert_eq!(m.metrics.outcome, Outcome::Completed, "{}", p.name);
        assert!(m.metrics.eviction_time.unwrap() >= m.metrics.total_migration_time.unwrap(), "{}", p.name);
    }
}
