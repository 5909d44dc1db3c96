//! Disks that are moved with their VMs, against what can be computed by hand.

mod common;

use common::{constant, one_vm, run, run_for, strategy};
use livemig_core::ledger::Metrics;
use livemig_core::machine::Outcome;
use livemig_core::policy::stop::{FixedRounds, KubeVirt, SimGrid, StopRule};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_models::world::{Disk, Incident, Phase, ScheduledEvent, Strategy, VmId, Workload, World};
use livemig_sim::{Fidelity, Settings, run as run_with};

const GIB: f64 = 1_073_741_824.0;
/// 1 GiB in ten seconds.
const LINE: f64 = GIB / 10.0;

/// A guest of 1 GiB that writes no memory, with a disk.
fn world(size: Bytes, workload: Workload) -> World {
    let mut world = one_vm(Bytes::from_gib(1), Workload::Idle, LINE);
    world.vms[0].disk = Some(Box::new(Disk { size, workload, zero_share: 0.0, compressed: 1.0 }));
    world
}

fn rounds(count: u32) -> Strategy {
    strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::FixedRounds(FixedRounds { rounds: count });
        live.skip_redirtied = false;
    })
}

fn metrics(world: &World, strategy: &Strategy) -> Metrics {
    run(world, strategy).migrations.remove(0).metrics
}

#[track_caller]
fn near(ours: Option<Span>, seconds: f64) {
    let ours = ours.expect("reached").as_secs_f64();
    assert!((ours - seconds).abs() <= 1e-6 * seconds, "{ours}, not {seconds}");
}

#[test]
fn an_idle_disk_takes_as_long_as_its_bytes() {
    let world = world(Bytes::from_gib(3), Workload::Idle);
    for name in ["stop-and-copy", "pre-copy", "pmigrate"] {
        let m = metrics(&world, &strategy(name, |_| {}));
        near(m.total_migration_time, 40.0);
        assert_eq!((m.bytes.disk, m.bytes.first), (Bytes::from_gib(3), Bytes::from_gib(1)), "{name}");
    }
}

#[test]
fn what_is_written_to_it_makes_rounds_and_they_shrink_geometrically() {
    let (ratio, limit) = (0.3, Span::from_millis(50));
    let world = world(Bytes::from_gib(3), constant(ratio * LINE, Bytes::from_gib(3)));
    let by_limit = strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::SimGrid(SimGrid { downtime_limit: limit });
        live.skip_redirtied = false;
    });
    let m = metrics(&world, &by_limit);
    // 40 s, and then 0.3 of the round before, until the rest takes less than 50 ms.
    let n = ((limit.as_secs_f64() / 40.0).ln() / ratio.ln()).ceil();
    assert_eq!(f64::from(m.rounds), n + 1.0);
    near(m.total_migration_time, 40.0 * (1.0 - ratio.powf(n + 1.0)) / (1.0 - ratio));
    assert!((m.downtime.unwrap().total.as_secs_f64() - 40.0 * ratio.powf(n)).abs() < 1e-6);
    assert_eq!((m.bytes.first, m.bytes.resent), (Bytes::from_gib(1), Bytes::ZERO));
}

#[test]
fn storage_holds_back_the_disk_and_not_memory() {
    let mut world = world(Bytes::from_gib(2), Workload::Idle);
    world.hosts[1].storage = Some(Rate(LINE / 4.0));
    near(metrics(&world, &rounds(1)).total_migration_time, 80.0 + 10.0);
    world.hosts[0].storage = Some(Rate(LINE / 8.0));
    near(metrics(&world, &rounds(1)).total_migration_time, 160.0 + 10.0);
}

#[test]
fn a_disk_takes_no_memory_at_the_destination() {
    let mut world = world(Bytes::from_gib(4), Workload::Idle);
    world.hosts[1].memory = Some(Bytes::from_gib(1));
    near(metrics(&world, &rounds(1)).total_migration_time, 50.0);
}

#[test]
fn blocks_of_zeros_are_marks() {
    let mut world = world(Bytes::from_gib(2), Workload::Idle);
    world.vms[0].disk.as_mut().unwrap().zero_share = 0.75;
    let m = metrics(&world, &rounds(1));
    near(m.total_migration_time, 15.0);
    assert_eq!(m.bytes.disk, Bytes::from_mib(512));
}

#[test]
fn a_guest_that_works_half_as_fast_writes_half_as_much() {
    let mut world = world(Bytes::from_gib(1), constant(LINE / 5.0, Bytes::from_gib(1)));
    let dirtied = |world: &World| metrics(world, &rounds(1)).downtime.unwrap().total.as_secs_f64() * LINE / GIB;
    // In the 20 s of the first round.
    assert!((dirtied(&world) - 0.4).abs() < 1e-6);
    world.vms[0].vcpus = 2;
    world.hosts[0].cores = 1;
    assert!((dirtied(&world) - 0.2).abs() < 1e-6);
}

#[test]
fn tracking_faults_on_memory_slow_writes_to_the_disk() {
    let writes = constant(LINE / 5.0, Bytes::from_gib(1));
    let mut world = world(Bytes::from_gib(1), writes);
    // Each write to a clean page of memory costs as much time as the guest has between two of them.
    world.vms[0].workload = Workload::Sequential { working_set: Bytes::from_gib(1), writes: 1000.0, reads: 0.0 };
    world.calibration.tracking_fault = Span::from_millis(1);
    let m = metrics(&world, &rounds(1));
    let (memory, disk) = (m.bytes.resent.0 as f64, m.bytes.disk.0 as f64 - GIB);
    assert!((disk / GIB - 0.2).abs() < 1e-3, "{disk}");
    assert!((memory / 4096.0 - 10_000.0).abs() < 20.0, "{memory}");
}

#[test]
fn its_load_has_phases_of_its_own() {
    let load = |writes| constant(writes, Bytes::from_gib(1));
    let phase = |until, writes| Phase { until: Span::from_secs(until), workload: load(writes) };
    let phases = Workload::Phases(vec![phase(10, LINE / 5.0), Phase { until: Span::MAX, workload: load(LINE / 20.0) }].into());
    let m = metrics(&world(Bytes::from_gib(1), phases), &rounds(1));
    // 10 s at a fifth, and 10 s at a twentieth of the line.
    near(Some(m.downtime.unwrap().total), 2.0 + 0.5);
}

#[test]
fn before_a_push_the_rest_of_the_disk_goes_while_the_guest_stands_still() {
    let mut world = world(Bytes::from_gib(1), constant(LINE / 5.0, Bytes::from_gib(1)));
    world.vms[0].workload = constant(LINE / 10.0, Bytes::from_gib(1));
    let hybrid = strategy("hybrid", |s| s.live.as_mut().unwrap().stop = StopRule::FixedRounds(FixedRounds { rounds: 1 }));
    let m = metrics(&world, &hybrid);
    near(Some(m.downtime.unwrap().total), 4.0);
    near(m.total_migration_time, 20.0 + 4.0 + 2.0);
}

#[test]
fn both_fidelities_agree() {
    let mut world =
        world(Bytes::from_mib(512), Workload::Uniform { working_set: Bytes::from_mib(128), writes: 3000.0, reads: 0.0 });
    world.vms[0].memory = Bytes::from_mib(256);
    world.vms[0].workload = Workload::Uniform { working_set: Bytes::from_mib(64), writes: 2000.0, reads: 0.0 };
    for skips in [false, true] {
        let mut strategy = rounds(4);
        strategy.spec.live.as_mut().unwrap().skip_redirtied = skips;
        let settings = |fidelity| Settings {
            horizon: Span::from_secs(1000),
            seed: 3,
            timeline: false,
            sampled: false,
            fidelity,
            rate_tolerance: 0.0,
        };
        let [class, page] = [Fidelity::Class, Fidelity::Page].map(|f| run_with(&world, &strategy, settings(f)));
        let (class, page) = (&class.migrations[0].metrics, &page.migrations[0].metrics);
        let close = |what: &str, a: f64, b: f64| assert!((a - b).abs() <= 0.03 * b, "{what}: {a}, page by page {b}");
        let seconds = |m: &Metrics| m.total_migration_time.unwrap().as_secs_f64();
        close("total", seconds(class), seconds(page));
        close("disk", class.bytes.disk.0 as f64, page.bytes.disk.0 as f64);
        close("memory", class.bytes.resent.0 as f64, page.bytes.resent.0 as f64);
    }
}

#[test]
fn a_disk_under_way_is_progress() {
    let world = world(Bytes::from_gib(3), Workload::Idle);
    // 30 s of disk before the first page of memory, and patience for 5.
    let kubevirt = KubeVirt::new(Span::from_millis(300), Span::from_secs(5), KubeVirt::default().on_stall);
    let supervised = strategy("pre-copy", |s| {
        s.live.as_mut().unwrap().stop = StopRule::KubeVirt(kubevirt);
        s.link_patience = Span::from_secs(1000);
    });
    near(metrics(&world, &supervised).total_migration_time, 40.0);
    // With the link cut it is none.
    let mut cut = world.clone();
    let host = cut.moves[0].to;
    cut.events.push(ScheduledEvent { at: Time::ZERO + Span::from_secs(10), what: Incident::Cut(host) });
    let m = run_for(&cut, &supervised, Span::from_secs(60)).migrations.remove(0).metrics;
    assert_eq!(m.outcome, Outcome::Aborted);
}

#[test]
fn a_cancelled_migration_leaves_the_disk_at_the_source() {
    let mut world = world(Bytes::from_gib(1), constant(LINE / 5.0, Bytes::from_gib(1)));
    for at in [1, 5, 12, 21, 23] {
        let what = Incident::Cancel(VmId(0));
        world.events = vec![ScheduledEvent { at: Time::ZERO + Span::from_secs(at), what }];
        let m = metrics(&world, &rounds(3));
        assert_eq!(m.outcome, Outcome::Cancelled, "at {at} s");
        let sent = Bytes((LINE * at as f64) as u64);
        let all = m.bytes.disk + m.bytes.first + m.bytes.resent;
        assert!(all.0.abs_diff(sent.0) < 10, "{all} at {at} s");
    }
}
