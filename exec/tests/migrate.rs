//! Whole migrations of real guests between agent processes, every byte compared.

mod migrations;

use livemig_core::policy::stop::{FixedRounds, Qemu, StopRule};
use livemig_core::strategy::PRESETS;
use livemig_core::tasks::TaskSizes;
use livemig_core::units::{Bytes, Rate};
use livemig_models::world::{Strategy, Workload, World};
use migrations::{busy, completes, have_kvm, options, strategy, with, world};

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

fn hot() -> Workload {
    Workload::Uniform { working_set: Bytes::from_mib(16), writes: 1e9, reads: 0.0 }
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

/// Without range locks whoever sends a task maps it for that, also after the switch and while the guest writes.
#[test]
fn tasks_are_sent_through_windows_of_their_own() {
    if !have_kvm() {
        return;
    }
    let world = world(busy());
    for name in ["pre-copy", "hybrid"] {
        let windows = with(name, |spec| {
            spec.transfer.streams = 3;
            // Tasks that are no whole part of memory.
            spec.transfer.channels.tasks = Some(TaskSizes { memory: Bytes::from_pages(300), ..TaskSizes::default() });
        });
        completes(&world, &windows, &options());
    }
}

/// A guest whose pages with content can be compressed to 0.7 of their size.
fn compressible(workload: Workload) -> World {
    let mut world = world(workload);
    world.vms[0].compressed = 0.7;
    world
}

fn compressed(name: &str) -> Strategy {
    with(name, |spec| spec.transfer.channels.compress = true)
}

#[test]
fn compressed_pages_take_the_share_of_bytes_that_the_scenario_says() {
    if !have_kvm() {
        return;
    }
    let world = compressible(Workload::Idle);
    let first = |strategy: &Strategy| completes(&world, strategy, &options()).metrics.bytes.first.0 as f64;
    for name in ["stop-and-copy", "post-copy"] {
        let share = first(&compressed(name)) / first(&strategy(name));
        assert!((share - 0.7).abs() < 0.01, "{name}: {share}");
    }
}

#[test]
fn compressed_pages_of_a_busy_guest_arrive_by_every_strategy() {
    if !have_kvm() {
        return;
    }
    for strategy in real_strategies() {
        completes(&compressible(busy()), &compressed(&strategy.name), &options());
    }
    let windows = with("pre-copy", |spec| {
        spec.transfer.streams = 2;
        (spec.transfer.channels.compress, spec.transfer.channels.tasks) = (true, Some(TaskSizes::default()));
    });
    completes(&compressible(busy()), &windows, &options());
}

#[test]
fn pages_are_not_said_to_be_encrypted_where_they_are_not() {
    let encrypted = with("pre-copy", |spec| spec.transfer.channels.encrypt = true);
    let refused = livemig_exec::run::check(&world(Workload::Idle), &encrypted, &options()).unwrap_err().to_string();
    assert!(refused.contains("TLS"), "{refused}");
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
    let metrics = completes(&world(hot()), &fixed, &options()).metrics;
    assert_eq!(metrics.rounds, 4, "three and the stopped one: {metrics:?}");

    let qemu = with("pre-copy", |spec| {
        let live = spec.live.as_mut().expect("pre-copy copies live");
        live.stop = StopRule::Qemu(Qemu::default());
    });
    completes(&world(busy()), &qemu, &options());
}
