//! Guests' network traffic over real sockets, and techniques chosen by it.

mod migrations;

use livemig_core::policy::selection::{SelectionPolicy, TrafficSensitive};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_exec::Net;
use livemig_exec::run::{Options, RunResult, run};
use livemig_models::world::{
    Endpoint, Flow, HostId, Incident, Move, Nic, ScheduledEvent, Strategy, Traffic, VmId, Workload, World,
};
use migrations::{busy, completes, have_kvm, options, strategy, with, world};

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

/// Whether a test in namespaces can run here; says that it is skipped, and why, when not.
fn have_namespaces() -> bool {
    let can = have_kvm().then(livemig_exec::doctor::network_namespaces);
    if let Some(Err(why)) = &can {
        println!("skipped: {why}");
    }
    matches!(can, Some(Ok(())))
}

fn mbit(rate: f64) -> Rate {
    Rate(rate * 1e6 / 8.0)
}

fn flow(name: &str, from: Endpoint, to: Endpoint, rate: Option<Rate>) -> Flow {
    Flow { name: name.to_owned(), from, to, rate, weight: 1.0, measured_for: None }
}

/// So many guests on the first host, all to the second.
fn leaving(guests: u32, workload: Workload) -> World {
    let mut world = world(workload);
    for number in 1..guests {
        let name = format!("vm{}", number + 1);
        world.vms.push(livemig_models::world::Vm { name, ..world.vms[0].clone() });
        world.moves.push(Move { vm: VmId(number), ..world.moves[0].clone() });
    }
    world
}

/// A run whose migrations all complete with the right bytes.
fn good(world: &World, strategy: &Strategy, options: &Options) -> RunResult {
    let result = run(world, strategy, 7, options).unwrap_or_else(|e| panic!("{}: {e}", strategy.name));
    for migration in &result.migrations {
        assert!(migration.is_good() && migration.report.is_some(), "{:?} {:?}", migration.metrics, result.warnings);
        assert!(migration.commands > 4, "{migration:?}");
    }
    result
}

/// Not above what is offered, but for what an earlier wait has left over; and not far below it, however busy the machine is.
fn assert_about(rate: Rate, offered: Rate, what: &str) {
    assert!(rate.0 < offered.0 * 1.1 && rate.0 > offered.0 * 0.3, "{what}: {rate:?} where {offered:?} is offered");
}

#[test]
fn traffic_goes_at_its_rate_and_on_where_its_guest_has_gone() {
    if !have_kvm() {
        return;
    }
    let mut world = leaving(2, Workload::Idle);
    world.vms[0].traffic = Traffic { tx: mbit(16.0), rx: mbit(24.0) };
    world.flows = vec![
        flow("between", Endpoint::Vm(VmId(0)), Endpoint::Vm(VmId(1)), Some(mbit(40.0))),
        flow("backup", Endpoint::Host(HostId(0)), Endpoint::Host(HostId(1)), Some(mbit(8.0))),
    ];
    // Longer than the migrations by far: what stopped with them would be missed. The run goes on until then.
    world.flows.iter_mut().for_each(|flow| flow.measured_for = Some(Span::from_secs(2)));
    for name in ["pre-copy", "post-copy"] {
        let started = std::time::Instant::now();
        let result = good(&world, &strategy(name), &options());
        assert!(started.elapsed().as_secs_f64() > 2.0);
        let named: Vec<&str> = result.flows.iter().map(|flow| flow.name.as_str()).collect();
        assert_eq!(named, ["vm1 tx", "vm1 rx", "between", "backup"], "{name}");
        for (flow, offered) in result.flows.iter().zip([16.0, 24.0, 40.0, 8.0]) {
            let what = format!("{name}, {}", flow.name);
            if flow.listed {
                assert_about(flow.mean, mbit(offered), &what);
            }
            let before = flow.before.expect("guests ran before the request");
            assert!(before.0 < mbit(offered).0 * 1.1 && before.0 > 0.0, "{what}: {before:?}");
        }
    }
}

#[test]
fn a_guest_that_stands_still_neither_sends_nor_receives() {
    if !have_kvm() {
        return;
    }
    // 51 MiB at 160 Mbit/s take 2.7 seconds, in which the guest is stopped.
    let mut world = leaving(1, Workload::Idle);
    world.vms[0].traffic = Traffic { tx: mbit(40.0), rx: mbit(40.0) };
    let slow = with("stop-and-copy", |spec| spec.transfer.limit = Some(mbit(160.0)));
    let result = good(&world, &slow, &Options { lead: Span::from_secs(1), ..options() });
    let (downtime, total) = (result.migrations[0].metrics.downtime.expect("it stopped"), result.ended);
    assert!(downtime.total > Span::from_secs(2), "{downtime:?} of {total}");
    for flow in &result.flows {
        // A twentieth of a second's worth may have been on its way.
        assert!(flow.mean.0 < mbit(40.0).0 * 0.1, "{flow:?}");
        assert!(flow.before.is_some_and(|before| before.0 > mbit(40.0).0 * 0.2), "{flow:?}");
    }
}

#[test]
fn only_the_window_counts() {
    if !have_kvm() {
        return;
    }
    // It sends at first, and receives from 700 ms before the request on.
    let mut world = leaving(1, Workload::Idle);
    world.vms[0].traffic = Traffic { tx: mbit(40.0), rx: Rate::ZERO };
    let at = Time(world.moves[0].at.0 - Span::from_millis(700).0);
    let change = Incident::Traffic(VmId(0), Traffic { tx: Rate::ZERO, rx: mbit(20.0) });
    world.events = vec![ScheduledEvent { at, what: change }];
    for (window, technique) in [(400, "pre-copy"), (10_000, "post-copy")] {
        let window = Span::from_millis(window);
        let selection = SelectionPolicy::Traffic(TrafficSensitive { window });
        let strategy = with("traffic-sensitive", |spec| spec.selection = Some(selection));
        let result = good(&world, &strategy, &Options { lead: Span::from_millis(2200), ..options() });
        assert_eq!(result.migrations[0].technique, technique, "{:?}", result.flows);
    }
}

#[test]
fn a_peer_that_fails_is_no_harm() {
    if !have_kvm() {
        return;
    }
    let mut world = leaving(1, busy());
    let mut peer = world.hosts[1].clone();
    peer.name = "peer".to_owned();
    world.hosts.push(peer);
    world.flows = vec![flow("to the peer", Endpoint::Vm(VmId(0)), Endpoint::Host(HostId(2)), Some(mbit(8.0)))];
    // While it is migrated, and before it sends from its destination.
    world.events = vec![ScheduledEvent { at: world.moves[0].at, what: Incident::Fail(HostId(2)) }];
    completes(&world, &strategy("pre-copy"), &options());
}

/// Hosts in namespaces, with one NIC each.
fn wired(mut world: World, rate: Rate) -> (World, Options) {
    for host in &mut world.hosts {
        host.nics = vec![Nic { rate, goodput: 1.0 }];
    }
    (world, Options { net: Net::Namespaces, lead: Span::from_millis(1500), ..options() })
}

#[test]
fn traffic_and_migrations_share_the_nics() {
    if !have_namespaces() {
        return;
    }
    let (mut world, options) = wired(leaving(1, Workload::Idle), mbit(160.0));
    world.flows = vec![flow("bulk", Endpoint::Vm(VmId(0)), Endpoint::Outside, None)];
    let result = good(&world, &strategy("pre-copy"), &options);
    let bulk = &result.flows[0];
    let before = bulk.before.expect("it ran before the request");
    assert!(before.0 < mbit(160.0).0 && before.0 > mbit(80.0).0, "alone it has the NIC: {before:?}");
    let bytes = result.migrations[0].metrics.bytes;
    let migrated = (bytes.first + bytes.resent).0 as f64;
    let seconds = result.migrations[0].metrics.total_migration_time.expect("it completed").as_secs_f64();
    assert!(bulk.mean.0 < before.0 * 0.9, "beside the migration it has less: {bulk:?}");
    let together = bulk.mean.0 + migrated / seconds;
    assert!(together < mbit(160.0).0 * 1.05, "{bulk:?} and {} B/s", migrated / seconds);
}

#[test]
fn techniques_are_chosen_by_what_guests_send_and_receive() {
    if !have_kvm() {
        return;
    }
    let at = |world: &mut World, vm: usize, tx: f64, rx: f64| {
        world.vms[vm].traffic = Traffic { tx: mbit(tx), rx: mbit(rx) };
    };
    let options = Options { lead: Span::from_millis(1500), ..options() };
    // One sends and would be in the way of outgoing migrations; one receives and would be in the way of incoming ones.
    let mut world = leaving(3, Workload::Idle);
    at(&mut world, 0, 40.0, 4.0);
    at(&mut world, 1, 4.0, 40.0);
    let result = good(&world, &strategy("traffic-sensitive"), &options);
    let techniques: Vec<&str> = result.migrations.iter().map(|m| m.technique).collect();
    assert_eq!(techniques, ["post-copy", "pre-copy", "pre-copy"], "{:?}", result.flows);
    // The other way round the choice is, too, also after snapshots.
    at(&mut world, 0, 4.0, 40.0);
    at(&mut world, 1, 40.0, 4.0);
    let quick = with("traffic-sensitive", |spec| spec.ahead = Some(livemig_core::strategy::Ahead::default()));
    let result = good(&world, &quick, &options);
    let techniques: Vec<&str> = result.migrations.iter().map(|m| m.technique).collect();
    assert_eq!(techniques, ["pre-copy", "post-copy", "pre-copy"], "{:?}", result.flows);
    assert!(result.migrations.iter().all(|m| m.metrics.bytes.snapshot > Bytes::ZERO), "snapshots were sent before");
}
