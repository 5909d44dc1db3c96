//! Drains whose times can be computed by hand: idle guests of 1 GiB over NICs that carry one in ten seconds.

mod common;

use common::{host, one_vm, run, run_for, strategy, vm};
use livemig_core::drain::{Fate, Limits, NoPlace};
use livemig_core::machine::Outcome;
use livemig_core::policy::order::Order;
use livemig_core::policy::placement::Placement;
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_models::world::{
    Drain, Endpoint, Flow, Host, HostId, Incident, Rack, Role, ScheduledEvent, Strategy, Traffic, VmId, Workload, World,
};
use livemig_sim::{DrainResult, Fidelity, MigrationResult, RunResult, Settings};

const GIB: f64 = 1_073_741_824.0;

fn pre_copy() -> Strategy {
    strategy("pre-copy", |_| {})
}

fn drain(hosts: &[u32], candidates: &[u32]) -> Drain {
    let ids = |hosts: &[u32]| hosts.iter().map(|&h| HostId(h)).collect();
    Drain {
        hosts: ids(hosts),
        at: Time::ZERO,
        candidates: ids(candidates),
        given: Vec::new(),
        onto_waiting: false,
        returns_after: None,
        order: Order::AsListed,
        placement: Placement::FirstFit,
        limits: Limits::default(),
        retries: 0,
        rate_per_host: None,
        via: Vec::new(),
        via_is_chosen: false,
    }
}

/// Hosts with these idle guests, in GiB; host 0 is drained onto all others, which have `memory` GiB each.
fn world(guests: &[&[u64]], memory: u64) -> World {
    let mut world = one_vm(Bytes::from_gib(1), Workload::Idle, GIB / 10.0);
    world.moves.clear();
    world.hosts = (0..guests.len()).map(|h| host(&format!("h{h}"), GIB / 10.0)).collect();
    for h in &mut world.hosts[1..] {
        h.memory = Some(Bytes::from_gib(memory));
    }
    let there = guests.iter().zip(0..).flat_map(|(gib, h)| gib.iter().map(move |&g| vm(h, Bytes::from_gib(g), Workload::Idle)));
    world.vms = there.collect();
    let all: Vec<u32> = (1..guests.len() as u32).collect();
    world.drain = Some(drain(&[0], &all));
    world
}

fn drained(world: &World) -> (RunResult, DrainResult) {
    let result = run(world, &pre_copy());
    let drain = result.drain.clone().unwrap();
    (result, drain)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6 * b.max(1.0), "{a} is not {b}");
}

/// (VM, destination, queued, until eviction after admission), in seconds.
fn rows(result: &RunResult) -> Vec<(u32, u32, f64, f64)> {
    let row = |m: &MigrationResult| {
        let evicted = m.metrics.eviction_time.map_or(f64::NAN, Span::as_secs_f64);
        (m.vm.0, m.destination.0, m.metrics.queued.as_secs_f64(), evicted)
    };
    result.migrations.iter().map(row).collect()
}

fn assert_rows(result: &RunResult, expected: &[(u32, u32, f64, f64)]) {
    let rows = rows(result);
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!((row.0, row.1), (expected.0, expected.1), "{rows:?}");
        close(row.2, expected.2);
        close(row.3, expected.3);
    }
}

#[test]
fn one_after_the_other() {
    let mut w = world(&[&[1, 2, 1], &[]], 8);
    w.drain.as_mut().unwrap().at = Time(5_000_000_000);
    let (result, drain) = drained(&w);
    assert_rows(&result, &[(0, 1, 0.0, 10.0), (1, 1, 10.0, 20.0), (2, 1, 30.0, 10.0)]);
    close(drain.whole.drain_time().unwrap().as_secs_f64(), 40.0);
    close(drain.hosts[0].drain_time().unwrap().as_secs_f64(), 40.0);
    assert_eq!((drain.whole.moved, drain.not_moved.len()), (3, 0));
    close(livemig_core::ledger::whole(result.migrations.iter().map(|m| &m.metrics)).drain_time().unwrap().as_secs_f64(), 40.0);
    // Ten more seconds are observed.
    close(result.ended.0 as f64 / 1e9, 55.0);
}

#[test]
fn two_at_once_share_the_nic_and_the_next_begins_when_one_has_left() {
    let mut w = world(&[&[1, 2, 1], &[]], 8);
    w.drain.as_mut().unwrap().limits.per_host = 2;
    let (result, drain) = drained(&w);
    assert_rows(&result, &[(0, 1, 0.0, 20.0), (1, 1, 0.0, 40.0), (2, 1, 20.0, 20.0)]);
    close(drain.whole.drain_time().unwrap().as_secs_f64(), 40.0);
}

#[test]
fn the_order_is_that_of_the_plan() {
    let mut w = world(&[&[2, 1, 3], &[]], 8);
    w.drain.as_mut().unwrap().order = Order::SmallestFirst;
    assert_rows(&drained(&w).0, &[(1, 1, 0.0, 10.0), (0, 1, 10.0, 20.0), (2, 1, 30.0, 30.0)]);
    let writer = |mib: u64| Workload::Uniform { working_set: Bytes::from_mib(mib), writes: 1e6, reads: 0.0 };
    let mut w = world(&[&[1, 1], &[]], 8);
    (w.vms[0].workload, w.vms[1].workload) = (writer(2), writer(1));
    w.drain.as_mut().unwrap().order = Order::LeastDirtyingFirst;
    let order: Vec<u32> = drained(&w).0.migrations.iter().map(|m| m.vm.0).collect();
    assert_eq!(order, [1, 0]);
}

#[test]
fn limits_of_destination_and_cluster_hold() {
    let mut w = world(&[&[1, 1, 1], &[], &[]], 8);
    w.drain.as_mut().unwrap().limits = Limits { per_host: 3, per_destination: Some(1), ..Limits::default() };
    assert_rows(&drained(&w).0, &[(0, 1, 0.0, 20.0), (1, 2, 0.0, 20.0), (2, 1, 20.0, 10.0)]);
    let mut w = world(&[&[1], &[1], &[]], 8);
    w.drain = Some(Drain { limits: Limits { per_cluster: Some(1), ..Limits::default() }, ..drain(&[0, 1], &[2]) });
    assert_rows(&drained(&w).0, &[(0, 2, 0.0, 10.0), (1, 2, 10.0, 10.0)]);
}

#[test]
fn a_hosts_migrations_share_its_rate() {
    let mut w = world(&[&[1, 2], &[]], 8);
    let plan = w.drain.as_mut().unwrap();
    (plan.limits.per_host, plan.rate_per_host) = (2, Some(Rate(GIB / 20.0)));
    assert_rows(&drained(&w).0, &[(0, 1, 0.0, 40.0), (1, 1, 0.0, 60.0)]);
}

#[test]
fn a_vm_that_fits_nowhere_is_a_result() {
    let w = world(&[&[1, 9, 2], &[], &[6]], 8);
    let (result, drain) = drained(&w);
    assert_rows(&result, &[(0, 1, 0.0, 10.0), (2, 1, 10.0, 20.0)]);
    assert_eq!(drain.not_moved.len(), 1);
    assert_eq!((drain.not_moved[0].vm, drain.not_moved[0].fate), (VmId(1), Fate::Unplaced(NoPlace::NoRoom)));
    assert_eq!((drain.whole.emptied, drain.hosts[0].emptied, drain.hosts[0].left), (None, None, 1));
}

#[test]
fn a_destination_may_be_filled_to_the_last_byte() {
    // Zero pages travel as marks, at the end of memory: pages arrive faster and faster.
    let mut w = world(&[&[5, 3], &[]], 8);
    w.hosts[1].swap = Rate(1.0);
    w.drain.as_mut().unwrap().limits.per_host = 2;
    for guest in &mut w.vms {
        guest.zero_share = 0.25;
        guest.workload =
            Workload::HotCold { hot: Bytes::from_gib(1), hot_writes: 1.0, hot_reads: 0.0, cold_writes: 0.0, cold_reads: 0.0 };
    }
    assert_eq!(drained(&w).1.whole.not_moved, 0);
    close(drained(&w).1.whole.drain_time().unwrap().as_secs_f64().round(), 60.0);
}

#[test]
fn given_destinations_are_kept() {
    let mut w = world(&[&[1, 1, 1], &[], &[]], 8);
    let plan = w.drain.as_mut().unwrap();
    (plan.given, plan.limits.per_destination) = (vec![(VmId(0), HostId(2)), (VmId(2), HostId(2))], Some(1));
    plan.limits.per_host = 2;
    assert_rows(&drained(&w).0, &[(0, 2, 0.0, 20.0), (1, 1, 0.0, 20.0), (2, 2, 20.0, 10.0)]);
}

#[test]
fn a_destination_that_dies_gives_its_guests_to_another() {
    let mut w = world(&[&[1, 1], &[], &[]], 8);
    w.events = vec![ScheduledEvent { at: Time(15_000_000_000), what: Incident::Fail(HostId(1)) }];
    w.drain.as_mut().unwrap().retries = 1;
    let (result, drain) = drained(&w);
    let attempts: Vec<_> = result.migrations.iter().map(|m| (m.vm.0, m.destination.0, m.attempt, m.metrics.outcome)).collect();
    let (completed, aborted) = (Outcome::Completed, Outcome::Aborted);
    assert_eq!(attempts, [(0, 1, 1, completed), (1, 1, 1, aborted), (1, 2, 2, completed)]);
    close(result.migrations[2].metrics.queued.as_secs_f64(), 15.0);
    close(drain.whole.drain_time().unwrap().as_secs_f64(), 25.0);
    assert_eq!((drain.whole.retried, drain.not_moved.len()), (1, 0));
}

#[test]
fn without_retries_a_failure_is_final_and_a_dead_source_loses_who_waits() {
    let mut w = world(&[&[1, 1], &[]], 8);
    w.events = vec![ScheduledEvent { at: Time(5_000_000_000), what: Incident::Fail(HostId(1)) }];
    let fates: Vec<Fate> = drained(&w).1.not_moved.iter().map(|n| n.fate).collect();
    assert_eq!(fates, [Fate::Failed, Fate::Unplaced(NoPlace::NoRoom)]);
    w.events[0].what = Incident::Fail(HostId(0));
    let fates: Vec<Fate> = drained(&w).1.not_moved.iter().map(|n| n.fate).collect();
    assert_eq!(fates, [Fate::Lost, Fate::Lost]);
}

#[test]
fn a_cut_destination_is_waited_for_and_a_cancelled_vm_stays() {
    let mut w = world(&[&[1, 1, 1], &[]], 8);
    let at = |s: u64, what| ScheduledEvent { at: Time(s * 1_000_000_000), what };
    w.events = vec![at(5, Incident::Cancel(VmId(0))), at(15, Incident::Cut(HostId(1))), at(18, Incident::Restore(HostId(1)))];
    let (result, drain) = drained(&w);
    assert_eq!(result.migrations[0].metrics.outcome, Outcome::Cancelled);
    assert_eq!(drain.not_moved.iter().map(|n| (n.vm.0, n.fate)).collect::<Vec<_>>(), [(0, Fate::Cancelled)]);
    // VM 1 begins at 5 s and waits three seconds for the link; VM 2 follows.
    close(rows(&result)[1].3, 13.0);
    close(rows(&result)[2].2, 18.0);
}

#[test]
fn waves_go_onto_hosts_that_are_back() {
    // Three hosts with one guest each and one spare: each wave needs the host that the one before has emptied.
    let mut w = world(&[&[4], &[4], &[4], &[]], 4);
    w.hosts[0].memory = Some(Bytes::from_gib(4));
    let limits = Limits { hosts_at_once: Some(1), ..Limits::default() };
    let back = Some(Span::from_secs(100));
    w.drain = Some(Drain { limits, returns_after: back, ..drain(&[0, 1, 2], &[0, 1, 2, 3]) });
    let (result, drain) = drained(&w);
    assert_rows(&result, &[(0, 3, 0.0, 40.0), (1, 0, 140.0, 40.0), (2, 1, 280.0, 40.0)]);
    close(drain.whole.drain_time().unwrap().as_secs_f64(), 320.0);
    // Without a way back, the second has no place.
    w.drain.as_mut().unwrap().returns_after = None;
    assert_eq!(drained(&w).1.whole.not_moved, 2);
}

#[test]
fn guests_move_again_from_hosts_that_were_still_to_be_drained() {
    let mut w = world(&[&[4], &[4]], 8);
    w.hosts[0].memory = Some(Bytes::from_gib(8));
    let limits = Limits { hosts_at_once: Some(1), ..Limits::default() };
    w.drain = Some(Drain { limits, onto_waiting: true, returns_after: Some(Span::ZERO), ..drain(&[0, 1], &[0, 1]) });
    let (result, drain) = drained(&w);
    assert_rows(&result, &[(0, 1, 0.0, 40.0), (0, 0, 40.0, 40.0), (1, 0, 80.0, 40.0)]);
    let ends: Vec<_> = result.migrations.iter().map(|m| (m.source.0, m.attempt, m.metrics.observed.as_secs_f64())).collect();
    // The observation of the first migration ends when the VM moves again.
    assert_eq!(ends, [(0, 1, 40.0), (1, 1, 50.0), (1, 1, 50.0)]);
    assert_eq!(drain.whole.moved, 3);
}

#[test]
fn at_the_horizon_everyone_has_a_result() {
    let w = world(&[&[1, 1, 1], &[]], 8);
    let result = run_for(&w, &pre_copy(), Span::from_secs(15));
    let fates: Vec<_> = result.drain.unwrap().not_moved.iter().map(|n| (n.vm.0, n.fate)).collect();
    assert_eq!(fates, [(1, Fate::Unfinished), (2, Fate::Waiting)]);
    assert_eq!(result.migrations[1].metrics.outcome, Outcome::Unfinished);
    assert_eq!(result.migrations.len(), 2);
}

/// Twelve hosts in three racks, 50 guests that write and talk, all drained in waves.
fn busy() -> World {
    let mut w = world(&[&[], &[], &[], &[], &[], &[], &[], &[], &[], &[], &[], &[]], 12);
    w.hosts[0].memory = Some(Bytes::from_gib(12));
    w.racks = (0..3).map(|r| Rack { name: format!("r{r}"), uplink: Some(Rate(GIB / 20.0)) }).collect();
    for (i, h) in w.hosts.iter_mut().enumerate() {
        h.rack = Some(i as u32 / 4);
    }
    for i in 0..50 {
        let mut guest = vm(i % 10, Bytes::from_gib(1 + u64::from(i % 3)), common::constant(2e6, Bytes::from_mib(64)));
        guest.traffic = Traffic { tx: Rate(1e5 * f64::from(1 + i % 7)), rx: Rate(2e5) };
        w.vms.push(guest);
    }
    let all: Vec<u32> = (0..12).collect();
    let limits = Limits { per_host: 2, per_destination: Some(3), per_cluster: Some(5), hosts_at_once: Some(3) };
    let plan = drain(&all[..10], &all);
    w.drain =
        Some(Drain { limits, onto_waiting: true, returns_after: Some(Span::from_secs(30)), order: Order::LargestFirst, ..plan });
    w
}

#[test]
fn limits_hold_over_time() {
    let (result, drain) = drained(&busy());
    assert_eq!((drain.whole.hosts_emptied, drain.whole.not_moved), (10, 0));
    // Everything that begins or ends, by time; at the same time, what ends is first.
    let mut changes: Vec<(Time, i32, u32, u32)> = Vec::new();
    for m in &result.migrations {
        let metrics = &m.metrics;
        changes.push((metrics.requested.unwrap(), 1, m.source.0, m.destination.0));
        changes.push((metrics.completed_at().unwrap().max(metrics.evicted_at().unwrap()), -1, m.source.0, m.destination.0));
    }
    changes.sort_unstable();
    let (mut from, mut to, mut all, mut most) = ([0; 12], [0; 12], 0, 0);
    for (_, change, source, destination) in changes {
        from[source as usize] += change;
        to[destination as usize] += change;
        all += change;
        most = most.max(all);
        assert!(from[source as usize] <= 2 && to[destination as usize] <= 3 && all <= 5);
    }
    assert_eq!(most, 5, "the limit was reached");
}

#[test]
fn streamed_results_are_the_same_and_runs_repeat() {
    let w = busy();
    let settings = Settings {
        horizon: Span::from_secs(86_400),
        seed: 1,
        timeline: false,
        sampled: false,
        fidelity: Fidelity::Class,
        rate_tolerance: 0.0,
    };
    let whole = run(&w, &pre_copy());
    let mut streamed = Vec::new();
    let end = livemig_sim::run_with(&w, &pre_copy(), settings, &mut |m| streamed.push(m));
    assert!(end.migrations.is_empty());
    assert_eq!((end.ended, end.events, &end.drain), (whole.ended, whole.events, &whole.drain));
    streamed.sort_by_key(|m| (m.metrics.requested, m.vm));
    let mut kept = whole.migrations;
    kept.sort_by_key(|m| (m.metrics.requested, m.vm));
    assert_eq!(format!("{streamed:?}"), format!("{kept:?}"));
}

fn traffic(tx: f64, rx: f64) -> Traffic {
    Traffic { tx: Rate::from_bits(tx * 1e6), rx: Rate::from_bits(rx * 1e6) }
}

fn sensitive() -> Strategy {
    strategy("traffic-sensitive", |_| {})
}

/// By VM: technique and destination.
fn choices(result: &RunResult) -> Vec<(u32, &'static str, u32)> {
    let mut all: Vec<_> = result.migrations.iter().map(|m| (m.vm.0, m.technique, m.destination.0)).collect();
    all.sort_unstable();
    all
}

#[test]
fn vms_that_start_together_get_their_techniques_together() {
    // The paper's example: sending 200 and 300 against receiving 400 and 500 Mbit/s; least is to post-copy the first.
    let mut world = world(&[&[1, 1], &[]], 64);
    (world.vms[0].traffic, world.vms[1].traffic) = (traffic(200.0, 400.0), traffic(300.0, 500.0));
    for at in [0, 25] {
        let drain = world.drain.as_mut().unwrap();
        (drain.limits.per_host, drain.at) = (2, Time::ZERO + Span::from_secs(at));
        assert_eq!(choices(&run(&world, &sensitive())), [(0, "post-copy", 1), (1, "pre-copy", 1)], "requested at {at} s");
    }
}

#[test]
fn vms_that_go_one_by_one_are_chosen_for_beside_those_that_are_there() {
    // The first sends 100 beside 60 of the one that waits, or receives 150 alone. The second finds 150 at the destination, where it adds
    // nothing.
    let mut world = world(&[&[1, 1], &[]], 64);
    (world.vms[0].traffic, world.vms[1].traffic) = (traffic(100.0, 150.0), traffic(60.0, 0.0));
    assert_eq!(choices(&run(&world, &sensitive())), [(0, "post-copy", 1), (1, "post-copy", 1)]);
    world.vms[1].traffic = traffic(40.0, 0.0);
    assert_eq!(choices(&run(&world, &sensitive()))[0], (0, "pre-copy", 1), "140 against 150");
}

#[test]
fn a_drain_measures_again_and_again() {
    // The second starts after some 10 s of the first; from 3 s on it receives instead of sending.
    let mut world = world(&[&[4, 1], &[]], 64);
    world.vms[1].traffic = traffic(50.0, 0.0);
    assert_eq!(choices(&run(&world, &sensitive()))[1], (1, "post-copy", 1));
    let at = Time::ZERO + Span::from_secs(3);
    world.events.push(ScheduledEvent { at, what: Incident::Traffic(VmId(1), traffic(0.0, 50.0)) });
    assert_eq!(choices(&run(&world, &sensitive()))[1], (1, "pre-copy", 1));
}

#[test]
fn guests_go_where_the_least_is_received() {
    // Hosts 1 and 2 have a guest each; what host 3 receives is its own.
    let mut world = world(&[&[1, 1, 1], &[1], &[1], &[]], 64);
    for (vm, rx) in [(0, 100.0), (1, 1.0), (2, 1.0), (3, 60.0), (4, 40.0)] {
        world.vms[vm].traffic = traffic(0.0, rx);
    }
    let backup = Flow {
        name: "backup".into(),
        from: Endpoint::Outside,
        to: Endpoint::Host(HostId(3)),
        rate: Some(Rate::from_bits(50e6)),
        weight: 1.0,
        measured_for: None,
    };
    world.flows = vec![backup];
    world.drain.as_mut().unwrap().placement = Placement::LeastTraffic;
    // 40 and 100; then 50 and 1; then 51 and 1, which is still less than 60.
    let goes: Vec<u32> = choices(&run(&world, &pre_copy())).iter().map(|c| c.2).collect();
    assert_eq!(goes, [2, 3, 3]);
}

/// As many intermediaries as the source's uplink needs: two that take in half a line each, and not the third.
#[test]
fn intermediaries_are_chosen_for_every_vm_that_leaves() {
    for (chosen, used) in [(true, 2), (false, 3)] {
        let mut w = world(&[&[1, 1], &[]], 8);
        w.hosts[1].reception = Some(Rate(GIB / 100.0));
        for _ in 0..3 {
            let mid = host("mid", GIB / 10.0);
            w.hosts.push(Host { role: Role::Intermediary, reception: Some(Rate(GIB / 20.0)), ..mid });
        }
        let drain = w.drain.as_mut().unwrap();
        (drain.via, drain.via_is_chosen) = ((2..5).map(HostId).collect(), chosen);
        let result = run(&w, &strategy("scatter-gather", |_| {}));
        for m in &result.migrations {
            assert_eq!(m.metrics.outcome, Outcome::Completed);
            assert_eq!(m.metrics.intermediary_peaks.iter().filter(|p| !p.is_zero()).count(), used);
            // A line of the source: a tenth to the destination, the rest to the others.
            close(m.metrics.eviction_time.unwrap().as_secs_f64(), 10.0);
        }
    }
}

#[test]
fn a_drain_moves_disks_too() {
    let mut world = world(&[&[1, 1], &[]], 2);
    for vm in &mut world.vms {
        vm.disk = Some(Box::new(livemig_models::world::Disk {
            size: Bytes::from_gib(2),
            workload: Workload::Idle,
            zero_share: 0.0,
            compressed: 1.0,
        }));
    }
    world.drain = Some(drain(&[0], &[1]));
    let result = run(&world, &pre_copy());
    assert_eq!(result.migrations.len(), 2);
    assert!(result.migrations.iter().all(|m| m.metrics.bytes.disk == Bytes::from_gib(2)));
    let drained = result.drain.expect("a drain").whole.drain_time().expect("emptied").as_secs_f64();
    assert!((drained - 60.0).abs() < 1e-3, "{drained}");
}
