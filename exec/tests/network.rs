//! Migrations between hosts with a network: NICs hold their rates in namespaces, and cables can be pulled, there and on loopback.

mod migrations;

use livemig_core::machine::Outcome;
use livemig_core::strategy::Scatter;
use livemig_core::units::{Bytes, Rate, Span};
use livemig_exec::Net;
use livemig_exec::run::{MigrationResult, Options};
use livemig_models::world::{HostId, Incident, Move, Nic, Role, ScheduledEvent, Strategy, VmId, Workload, World};
use migrations::{busy, completes, have_kvm, made, options, strategy, with, world};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

/// Whether networks can be made here; says that the test is skipped, and why, when not.
fn have_networks() -> bool {
    let can = have_kvm().then(livemig_exec::doctor::network_namespaces);
    if let Some(Err(why)) = &can {
        println!("skipped: {why}");
    }
    matches!(can, Some(Ok(())))
}

/// Whether a test can run here; it runs alone, because others that write and send make rates less than networks allow.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    have_networks().then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn in_namespaces() -> Options {
    Options { net: Net::Namespaces, ..options() }
}

fn mbit(rate: f64) -> Rate {
    Rate(rate * 1e6 / 8.0)
}

/// Two hosts with so many NICs of this rate each.
fn wired(workload: Workload, nics: usize, rate: Rate) -> World {
    let mut world = world(workload);
    for host in &mut world.hosts {
        host.nics = vec![Nic { rate, goodput: 1.0 }; nics];
    }
    world
}

/// Bytes per second from the request to the end.
fn speed(migration: &MigrationResult) -> f64 {
    let bytes = migration.metrics.bytes;
    let all = bytes.first + bytes.resent + bytes.demand + bytes.state;
    all.0 as f64 / migration.metrics.total_migration_time.expect("it completed").as_secs_f64()
}

/// Not above the rate, but for what may go at once; and not far below it, however busy the machine is.
fn assert_held(migration: &MigrationResult, rate: Rate, what: &str) {
    let speed = speed(migration);
    assert!(speed < rate.0 * 1.02 && speed > rate.0 * 0.4, "{what}: {speed} B/s where {} are allowed", rate.0);
}

#[test]
fn a_nic_is_as_fast_as_the_scenario_says() {
    let Some(_alone) = alone() else { return };
    let world = wired(Workload::Idle, 1, mbit(200.0));
    for name in ["pre-copy", "post-copy"] {
        assert_held(&completes(&world, &strategy(name), &in_namespaces()), mbit(200.0), name);
    }
}

#[test]
fn a_destination_receives_no_faster_than_it_wants_to() {
    let Some(_alone) = alone() else { return };
    let mut world = wired(busy(), 2, mbit(1000.0));
    world.hosts[1].reception = Some(mbit(160.0));
    let strategy = with("post-copy", |spec| spec.transfer.streams = 2);
    assert_held(&completes(&world, &strategy, &in_namespaces()), mbit(160.0), "reception over two NICs");
}

#[test]
fn streams_are_spread_over_interfaces_as_far_as_the_strategy_wants() {
    let Some(_alone) = alone() else { return };
    let world = wired(Workload::Idle, 2, mbit(120.0));
    let over = |nics| {
        let streams = with("pre-copy", |spec| {
            spec.transfer.streams = 2;
            spec.transfer.channels.nics = nics;
        });
        completes(&world, &streams, &in_namespaces())
    };
    assert_held(&over(Some(1)), mbit(120.0), "one of two NICs");
    let both = over(None);
    assert_held(&both, mbit(240.0), "two NICs");
    assert!(speed(&both) > mbit(130.0).0, "{} B/s are no more than one NIC carries", speed(&both));
}

#[test]
fn guests_that_leave_one_host_together_share_its_nic() {
    let Some(_alone) = alone() else { return };
    let mut world = wired(Workload::Idle, 1, mbit(300.0));
    let mut third = world.hosts[1].clone();
    third.name = "dst2".to_owned();
    world.hosts.push(third);
    let mut other = world.vms[0].clone();
    other.name = "vm2".to_owned();
    world.vms.push(other);
    world.moves.push(Move { vm: VmId(1), to: HostId(2), ..world.moves[0].clone() });
    let (_, result) = made(&world, &strategy("pre-copy"), &in_namespaces());
    let all: u64 = result.migrations.iter().map(|m| (m.metrics.bytes.first + m.metrics.bytes.resent).0).sum();
    let last = result.migrations.iter().map(|m| m.metrics.total_migration_time.expect("both complete")).max().unwrap();
    let together = all as f64 / last.as_secs_f64();
    assert!(all > Bytes::from_mib(100).0 && together < mbit(300.0).0 * 1.02, "{together} B/s by one NIC");
}

#[test]
fn intermediaries_free_a_source_whose_destination_takes_little() {
    let Some(_alone) = alone() else { return };
    let mut world = wired(busy(), 1, mbit(400.0));
    for name in ["mid1", "mid2"] {
        let mut host = world.hosts[1].clone();
        (host.name, host.role) = (name.to_owned(), Role::Intermediary);
        world.moves[0].via.push(HostId(world.hosts.len() as u32));
        world.hosts.push(host);
    }
    world.hosts[1].reception = Some(mbit(80.0));
    let metrics = completes(&world, &strategy("scatter-gather"), &in_namespaces()).metrics;
    let (eviction, total) = (metrics.eviction_time.expect("it completed"), metrics.total_migration_time.expect("it completed"));
    // 64 MiB, of which a fifth is zero: 1 s by the source's NIC, 5.4 s by what the destination takes.
    assert!(eviction.0 * 4 < total.0 * 3 && total > Span::from_millis(5000), "{metrics:?}");
}

/// Cables of the destination are pulled for a time, counted from the request.
fn cut(world: &mut World, after: u64, length: Option<u64>) {
    let host = world.moves[0].to;
    let at = world.moves[0].at + Span::from_millis(after);
    world.events.push(ScheduledEvent { at, what: Incident::Cut(host) });
    if let Some(length) = length {
        world.events.push(ScheduledEvent { at: at + Span::from_millis(length), what: Incident::Restore(host) });
    }
}

/// Where cables can be pulled here.
fn nets() -> Vec<Options> {
    let mut nets = Vec::new();
    if have_kvm() {
        nets.push(options());
    }
    if have_networks() {
        nets.push(in_namespaces());
    }
    nets
}

/// With the rate that hosts are wired for, which nothing holds on loopback.
fn at_200_mbit(name: &str) -> Strategy {
    with(name, |spec| spec.transfer.limit = Some(mbit(200.0)))
}

#[test]
fn a_cut_link_costs_time_before_and_after_the_switch() {
    // Short enough that the connections live through it, and so long that they do not.
    let cases = [("pre-copy", 500), ("pre-copy", 4000), ("post-copy", 4000)];
    for (net, (name, length)) in nets().iter().flat_map(|net| cases.map(|case| (net, case))) {
        let mut world = wired(busy(), 1, mbit(200.0));
        cut(&mut world, 400, Some(length));
        let (migration, result) = made(&world, &at_200_mbit(name), net);
        let told = format!("{name}, {length} ms, {:?}: {:?} {:?}", net.net, migration.metrics, result.warnings);
        assert_eq!(migration.metrics.outcome, Outcome::Completed, "{told}");
        assert!(migration.report.is_some(), "{told}");
        assert!(migration.metrics.total_migration_time > Some(Span::from_millis(length + 500)), "{told}");
        assert_eq!(result.warnings.iter().any(|w| w.contains("connection lost")), length > 3000, "{told}");
    }
}

#[test]
fn patience_with_a_cut_link_ends_before_the_switch_and_the_guest_runs_on() {
    for net in nets() {
        let mut world = wired(busy(), 1, mbit(200.0));
        cut(&mut world, 400, None);
        let mut impatient = at_200_mbit("pre-copy");
        impatient.spec.link_patience = Span::from_secs(1);
        let (migration, result) = made(&world, &impatient, &net);
        assert_eq!(migration.metrics.outcome, Outcome::Aborted, "{:?}", result.warnings);
        assert!(migration.report.is_some(), "it runs at the source");
        // Silence for 3 s, patience for 1 s, and what can be taken back only at the destination for 3 s.
        assert!(result.ended < Span::from_secs(15), "{}", result.ended);
    }
}

#[test]
fn what_is_lost_with_a_source_that_is_cut_off_is_declared_soon() {
    for net in nets() {
        let mut world = wired(busy(), 1, mbit(200.0));
        let (from, at) = (world.vms[0].host, world.moves[0].at);
        for (after_ms, what) in [(400, Incident::Cut(from)), (1400, Incident::Fail(from))] {
            world.events.push(ScheduledEvent { at: at + Span::from_millis(after_ms), what });
        }
        let (migration, result) = made(&world, &at_200_mbit("post-copy"), &net);
        assert_eq!(migration.metrics.outcome, Outcome::Lost, "{:?}", result.warnings);
        assert!(migration.lost_pages > 0 && migration.report.is_none(), "{migration:?}");
        assert!(result.ended < Span::from_millis(300 + 1400 + 3000 + 500), "{}", result.ended);
    }
}

#[test]
fn an_intermediary_that_was_cut_off_is_fetched_from_when_it_is_back() {
    for net in nets() {
        let mut world = wired(busy(), 1, mbit(200.0));
        let mut host = world.hosts[1].clone();
        (host.name, host.role) = ("mid".to_owned(), Role::Intermediary);
        world.moves[0].via.push(HostId(2));
        world.hosts.push(host);
        world.hosts[1].reception = Some(mbit(80.0));
        for (after_ms, what) in [(2000, Incident::Cut(HostId(2))), (6000, Incident::Restore(HostId(2)))] {
            let at = world.moves[0].at + Span::from_millis(after_ms);
            world.events.push(ScheduledEvent { at, what });
        }
        let scattered = with("scatter-gather", |spec| spec.push.as_mut().expect("it pushes").scatter = Some(Scatter::new(false)));
        let migration = completes(&world, &scattered, &net);
        assert!(migration.metrics.total_migration_time > Some(Span::from_secs(6)), "{:?}: {:?}", net.net, migration.metrics);
    }
}
