//! Whole migrations of real guests between agent processes, every byte compared.

#[path = "common/kvm.rs"]
mod kvm;

use kvm::have_kvm;
use livemig_core::machine::Outcome;
use livemig_core::policy::stop::{FixedRounds, Qemu, StopRule};
use livemig_core::strategy::{PRESETS, Spec, preset};
use livemig_core::units::{Bytes, Rate, Span};
use livemig_exec::run::{Launch, MigrationResult, Options, RunResult, run};
use livemig_models::world::{Incident, ScheduledEvent, Strategy, Workload, World};
use std::time::Duration;

const AGENT: &str = "LIVEMIG_TEST_AGENT";

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    if std::env::var_os(AGENT).is_some() {
        livemig_exec::agent::serve_inherited().unwrap();
    }
}

fn launch() -> Launch {
    Launch {
        program: std::env::current_exe().unwrap(),
        args: ["agent_process", "--exact", "--nocapture"].map(Into::into).to_vec(),
        env: vec![(AGENT.into(), "1".into())],
    }
}

fn options() -> Options {
    Options {
        lead: Span::from_millis(300),
        observe: Span::from_millis(100),
        horizon: Span::from_secs(60),
        ..Options::new(launch())
    }
}

/// Two hosts and a guest of 64 MiB.
fn world(workload: Workload) -> World {
    let text = r#"
        schema = 1
        name = "real"
        [[host]]
        name = "src"
        nics = [{ rate = "10 Gbit/s" }]
        [[host]]
        name = "dst"
        nics = [{ rate = "10 Gbit/s" }]
        [[vm]]
        name = "vm1"
        host = "src"
        memory = "64 MiB"
        vcpus = 2
        zero = 0.2
        workload = { kind = "idle" }
        [migrate]
        vms = ["vm1"]
        to = "dst"
        at = "10 s"
        strategies = ["pre-copy"]
    "#;
    let loaded = livemig_models::scenario::parse(text, std::path::Path::new("."), "real.toml").unwrap();
    let mut world = loaded.scenario.points[0].world.clone();
    world.vms[0].workload = workload;
    world
}

fn hot() -> Workload {
    Workload::Uniform { working_set: Bytes::from_mib(16), writes: 1e9, reads: 0.0 }
}

fn busy() -> Workload {
    Workload::HotCold { hot: Bytes::from_mib(8), hot_writes: 20_000.0, hot_reads: 20_000.0, cold_writes: 500.0, cold_reads: 2000.0 }
}

fn strategy(name: &str) -> Strategy {
    let preset = preset(name).unwrap();
    Strategy { name: name.to_owned(), preset: preset.name, spec: (preset.spec)() }
}

fn with(name: &str, change: impl FnOnce(&mut Spec)) -> Strategy {
    let mut strategy = strategy(name);
    change(&mut strategy.spec);
    strategy
}

fn made(world: &World, strategy: &Strategy, options: &Options) -> (MigrationResult, RunResult) {
    let result = run(world, strategy, 7, options).unwrap_or_else(|e| panic!("{}: {e}", strategy.name));
    let migration = result.migrations[0].clone();
    if let Some(report) = &migration.report {
        assert!(report.is_clean(), "{}: {report}; {:?}", strategy.name, result.warnings);
    }
    (migration, result)
}

/// A migration that completes, with the right bytes.
fn completes(world: &World, strategy: &Strategy, options: &Options) -> MigrationResult {
    let (migration, result) = made(world, strategy, options);
    let told = || format!("{}: {:?} {:?}", strategy.name, migration.metrics, result.warnings);
    assert_eq!(migration.metrics.outcome, Outcome::Completed, "{}", told());
    assert!(migration.is_good() && migration.report.is_some(), "{}", told());
    assert!(migration.commands > 4, "{}", told());
    assert!(migration.metrics.guest_gap.is_some() && migration.baseline_gap.is_some(), "{}", told());
    let bytes = migration.metrics.bytes;
    let pages = bytes.first + bytes.resent + bytes.demand + bytes.snapshot;
    assert!(pages.0 > Bytes::from_mib(64).0 / 2, "four of five pages travel, {pages}: {}", told());
    migration
}

/// Strategies that real mode makes.
fn real_strategies() -> impl Iterator<Item = Strategy> {
    let real = PRESETS.iter().filter(|p| !(p.spec)().uses_intermediaries() && (p.spec)().selection.is_none());
    real.map(|p| strategy(p.name))
}

#[test]
fn every_strategy_moves_an_idle_and_a_busy_guest() {
    if !have_kvm() {
        return;
    }
    for workload in [Workload::Idle, busy()] {
        let world = world(workload);
        for strategy in real_strategies() {
            let migration = completes(&world, &strategy, &options());
            let metrics = &migration.metrics;
            let downtime = metrics.downtime.expect("it stood still").total;
            assert!(metrics.eviction_time.is_some() && metrics.total_migration_time >= Some(downtime), "{metrics:?}");
        }
    }
}

#[test]
fn a_guest_that_writes_without_pause_is_moved_or_runs_on() {
    if !have_kvm() {
        return;
    }
    let world = world(hot());
    for strategy in [strategy("stop-and-copy"), strategy("pre-copy"), strategy("post-copy"), strategy("hybrid")] {
        let migration = completes(&world, &strategy, &options());
        if strategy.spec.live.is_none() && strategy.spec.push.is_some() {
            assert!(migration.metrics.remote_faults > 0, "{:?}", migration.metrics);
        }
    }
}

#[test]
fn streams_carry_the_same_bytes() {
    if !have_kvm() {
        return;
    }
    let world = world(busy());
    for name in ["pre-copy", "post-copy"] {
        completes(&world, &with(name, |spec| spec.transfer.streams = 4), &options());
    }
}

#[test]
fn a_limit_holds_before_and_after_the_switch() {
    if !have_kvm() {
        return;
    }
    let world = world(Workload::Idle);
    for name in ["pre-copy", "post-copy"] {
        let limited = with(name, |spec| spec.transfer.limit = Some(Rate(50e6)));
        let metrics = completes(&world, &limited, &options()).metrics;
        let sent = metrics.bytes.first + metrics.bytes.resent + metrics.bytes.demand;
        let rate = sent.0 as f64 / metrics.total_migration_time.expect("it completed").as_secs_f64();
        // On a machine that is busy it may be less.
        assert!(rate < 51e6 && rate > 10e6, "{name}: {rate} B/s");
    }
}

#[test]
fn rounds_are_what_the_rule_wants() {
    if !have_kvm() {
        return;
    }
    let fixed = with("pre-copy", |spec| {
        let live = spec.live.as_mut().expect("pre-copy copies live");
        live.stop = StopRule::FixedRounds(FixedRounds { rounds: 3 });
    });
    let metrics = completes(&world(busy()), &fixed, &options()).metrics;
    assert_eq!(metrics.rounds, 4, "three and the stopped one: {metrics:?}");

    let qemu = with("pre-copy", |spec| {
        let live = spec.live.as_mut().expect("pre-copy copies live");
        live.stop = StopRule::Qemu(Qemu::default());
    });
    completes(&world(busy()), &qemu, &options());
}

#[test]
fn a_migration_that_is_called_off_leaves_the_guest_running() {
    if !have_kvm() {
        return;
    }
    for name in ["pre-copy", "quick-eviction", "hybrid"] {
        let mut world = world(busy());
        // So slow that it is not over when it is called off.
        let slow = with(name, |spec| spec.transfer.limit = Some(Rate(10e6)));
        let vm = world.moves[0].vm;
        let at = world.moves[0].at + Span::from_millis(500);
        world.events.push(ScheduledEvent { at, what: Incident::Cancel(vm) });
        let (migration, result) = made(&world, &slow, &options());
        assert_eq!(migration.metrics.outcome, Outcome::Cancelled, "{name}: {:?}", result.warnings);
        assert!(migration.report.is_some(), "{name}: it runs at the source");
    }
}

#[test]
fn a_destination_that_dies_before_the_switch_costs_nothing_but_time() {
    if !have_kvm() {
        return;
    }
    let mut world = world(busy());
    let slow = with("pre-copy", |spec| spec.transfer.limit = Some(Rate(10e6)));
    let (to, at) = (world.moves[0].to, world.moves[0].at + Span::from_millis(500));
    world.events.push(ScheduledEvent { at, what: Incident::Fail(to) });
    let (migration, result) = made(&world, &slow, &options());
    assert_eq!(migration.metrics.outcome, Outcome::Aborted, "{:?}", result.warnings);
    assert!(migration.report.is_some(), "it runs at the source");
}

#[test]
fn what_is_lost_with_a_source_is_declared_soon() {
    if !have_kvm() {
        return;
    }
    let mut world = world(busy());
    let slow = with("post-copy", |spec| spec.transfer.limit = Some(Rate(10e6)));
    let (from, at) = (world.vms[0].host, world.moves[0].at + Span::from_millis(1000));
    world.events.push(ScheduledEvent { at, what: Incident::Fail(from) });
    let (migration, result) = made(&world, &slow, &Options { observe: Span::from_millis(500), ..options() });
    assert_eq!(migration.metrics.outcome, Outcome::Lost, "{:?}", result.warnings);
    assert!(migration.lost_pages > 0 && migration.report.is_none(), "{migration:?}");
    assert!(result.ended < Span::from_millis(300 + 1000 + 3000 + 2000), "{}", result.ended);
}

#[test]
fn a_destination_without_room_refuses() {
    if !have_kvm() {
        return;
    }
    let mut world = world(Workload::Idle);
    let to = world.moves[0].to.0 as usize;
    world.hosts[to].memory = Some(Bytes::from_mib(32));
    let (migration, result) = made(&world, &strategy("pre-copy"), &options());
    assert_eq!(migration.metrics.outcome, Outcome::Aborted);
    assert!(migration.report.is_some() && result.warnings.iter().any(|w| w.contains("do not fit")), "{:?}", result.warnings);
}

#[test]
fn agents_do_not_outlive_their_run() {
    if !have_kvm() {
        return;
    }
    completes(&world(Workload::Idle), &strategy("pre-copy"), &options());
    // Children of this process that are agents: none may be left when no other test is running, which only a while can tell.
    let children = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("children")).ok()).any(|c| !c.trim().is_empty())
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while children() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!children(), "a process of an agent is left");
}
