//! Migrations of real guests that go wrong: what is lost, what is not, and what a second attempt does.

#[path = "migrations/damage.rs"]
mod damage;
mod migrations;

use damage::{Damage, Kind, through};
use livemig_core::machine::Outcome;
use livemig_core::units::{Bytes, Rate, Span};
use livemig_exec::run::Options;
use livemig_exec::verify::Report;
use livemig_models::world::{Incident, ScheduledEvent, Workload, World};
use migrations::{busy, completes, have_kvm, made, options, strategy, with, world};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

/// The first migration is tried again 1.5 s later.
fn try_again(world: &mut World) {
    let mut again = world.moves[0].clone();
    again.at = again.at + Span::from_millis(1500);
    world.moves.push(again);
}

/// The second of two attempts.
fn second_succeeds(world: &World, name: &str, first: Outcome, options: &Options) {
    // So slow that the first is not over when something happens, and the second is in a while.
    let slow = with(name, |spec| spec.transfer.limit = Some(Rate(60e6)));
    let (_, result) = made(world, &slow, options);
    let outcomes: Vec<Outcome> = result.migrations.iter().map(|m| m.metrics.outcome).collect();
    assert_eq!(outcomes, [first, Outcome::Completed], "{name}: {:?}", result.warnings);
    assert!(result.migrations[1].report.as_ref().is_some_and(Report::is_clean), "{name}: {:?}", result.migrations[1].report);
}

#[test]
fn after_a_cancel_the_guest_runs_on_and_a_second_attempt_succeeds() {
    if !have_kvm() {
        return;
    }
    for name in ["pre-copy", "quick-eviction", "hybrid"] {
        let mut world = world(busy());
        let at = world.moves[0].at + Span::from_millis(200);
        world.events.push(ScheduledEvent { at, what: Incident::Cancel(world.moves[0].vm) });
        try_again(&mut world);
        second_succeeds(&world, name, Outcome::Cancelled, &options());
    }
}

#[test]
fn a_destination_that_dies_before_the_switch_costs_time_and_another_one_takes_the_guest() {
    if !have_kvm() {
        return;
    }
    let mut world = world(busy());
    let mut spare = world.hosts[1].clone();
    spare.name = "spare".to_owned();
    world.hosts.push(spare);
    try_again(&mut world);
    let (to, at) = (world.moves[0].to, world.moves[0].at + Span::from_millis(200));
    world.moves[1].to = livemig_models::world::HostId(2);
    world.events.push(ScheduledEvent { at, what: Incident::Fail(to) });
    second_succeeds(&world, "pre-copy", Outcome::Aborted, &options());
}

#[test]
fn a_refused_connection_leaves_the_guest_running() {
    if !have_kvm() {
        return;
    }
    // A port that was free a moment ago, and where nobody listens.
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let options = Options { route: Some(Arc::new(move |_| nobody)), ..options() };
    for name in ["pre-copy", "post-copy"] {
        let (migration, result) = made(&world(busy()), &strategy(name), &options);
        assert_eq!(migration.metrics.outcome, Outcome::Aborted, "{name}: {:?}", result.warnings);
        assert!(migration.report.is_some(), "{name}: it runs at the source");
    }
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
    assert!(result.ended < Span::from_millis(300 + 1000 + 3000), "{}", result.ended);
}

#[test]
fn damage_on_the_wire_is_found_and_made_up_for() {
    if !have_kvm() {
        return;
    }
    // Connections are numbered as they are opened: control, fault, then the streams.
    let cases = [
        ("pre-copy", Damage { connection: 2, forth: true, at: 1_000_003, kind: Kind::Flip }),
        ("pre-copy", Damage { connection: 2, forth: true, at: 30_000_000, kind: Kind::Flip }),
        ("pre-copy", Damage { connection: 2, forth: true, at: 5_000_000, kind: Kind::LeaveOut }),
        ("pre-copy", Damage { connection: 2, forth: true, at: 9_000_000, kind: Kind::Swap }),
        ("pre-copy", Damage { connection: 2, forth: true, at: 7_000_000, kind: Kind::Cut }),
        ("pre-copy", Damage { connection: 2, forth: false, at: 2000, kind: Kind::Flip }),
        ("pre-copy", Damage { connection: 0, forth: true, at: 150, kind: Kind::Flip }),
        ("pre-copy", Damage { connection: 0, forth: false, at: 110, kind: Kind::Flip }),
        ("post-copy", Damage { connection: 2, forth: true, at: 20_000_000, kind: Kind::Flip }),
        ("post-copy", Damage { connection: 2, forth: true, at: 10_000_000, kind: Kind::Swap }),
        ("post-copy", Damage { connection: 1, forth: true, at: 9000, kind: Kind::Flip }),
        ("post-copy", Damage { connection: 1, forth: false, at: 200, kind: Kind::LeaveOut }),
        ("stop-and-copy", Damage { connection: 2, forth: true, at: 12_345_678, kind: Kind::Flip }),
    ];
    for (name, damage) in cases {
        let (route, done) = through(damage);
        let world = world(busy());
        let options = Options { route: Some(route), ..options() };
        let (migration, result) = made(&world, &strategy(name), &options);
        let told = format!("{name} {damage:?}: {:?}", result.warnings);
        assert!(done.load(std::sync::atomic::Ordering::SeqCst), "nothing was damaged: {told}");
        assert_eq!(migration.metrics.outcome, Outcome::Completed, "{told}");
        assert!(migration.report.is_some() && result.warnings.iter().any(|w| w.contains("connection lost")), "{told}");
    }
}

#[test]
fn damage_to_a_handshake_is_a_refusal() {
    if !have_kvm() {
        return;
    }
    for (connection, forth, at) in [(0, true, 30), (0, false, 10), (0, false, 50), (2, true, 60)] {
        let (route, done) = through(Damage { connection, forth, at, kind: Kind::Flip });
        let (migration, result) = made(&world(busy()), &strategy("pre-copy"), &Options { route: Some(route), ..options() });
        assert!(done.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!(migration.metrics.outcome, Outcome::Aborted, "{:?}", result.warnings);
        assert!(migration.report.is_some(), "it runs at the source");
    }
}

#[test]
fn agents_do_not_outlive_their_run() {
    if !have_kvm() {
        return;
    }
    // The children that this thread has started, whatever other tests run.
    let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    assert_eq!(children().trim(), other.id().to_string(), "it is seen that a process is left");
    other.kill().unwrap();
    other.wait().unwrap();
    completes(&world(Workload::Idle), &strategy("pre-copy"), &options());
    assert_eq!(children(), "", "a process of an agent is left");
}
