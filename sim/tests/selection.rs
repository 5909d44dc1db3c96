//! Techniques chosen by measured traffic: the paper's example (Deshpande and Keahey, CCGrid 2015), and what is measured.

mod common;

use common::{host, one_vm, run, strategy, vm};
use livemig_core::machine::Outcome;
use livemig_core::policy::selection::{SelectionPolicy, TrafficSensitive};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_models::world::{Endpoint, Flow, HostId, Incident, Move, ScheduledEvent, Strategy, Traffic, VmId, Workload, World};
use livemig_sim::RunResult;

const GBIT: f64 = 125e6;

fn traffic(tx: f64, rx: f64) -> Traffic {
    Traffic { tx: Rate::from_bits(tx * 1e6), rx: Rate::from_bits(rx * 1e6) }
}

/// Guests of 1 GiB with this traffic in Mbit/s on one host, all to another.
fn one_host(guests: &[(f64, f64)]) -> World {
    let mut world = one_vm(Bytes::from_gib(1), Workload::Idle, 10.0 * GBIT);
    world.vms = guests.iter().map(|_| vm(0, Bytes::from_gib(1), Workload::Idle)).collect();
    for (vm, &(tx, rx)) in world.vms.iter_mut().zip(guests) {
        vm.traffic = traffic(tx, rx);
    }
    let at = Time::ZERO + Span::from_secs(20);
    world.moves = (0..guests.len() as u32).map(|vm| Move { vm: VmId(vm), to: HostId(1), at, via: Vec::new() }).collect();
    world
}

fn sensitive() -> Strategy {
    strategy("traffic-sensitive", |_| {})
}

fn techniques(result: &RunResult) -> Vec<&'static str> {
    result.migrations.iter().map(|m| m.technique).collect()
}

#[test]
fn the_papers_example_is_chosen_from_what_is_measured() {
    let result = run(&one_host(&[(200.0, 400.0), (300.0, 500.0)]), &sensitive());
    assert_eq!(techniques(&result), ["post-copy", "pre-copy"]);
}

#[test]
fn a_strategy_without_a_selection_shows_its_preset() {
    let result = run(&one_host(&[(200.0, 400.0)]), &strategy("hybrid", |_| {}));
    assert_eq!(techniques(&result), ["hybrid"]);
}

#[test]
fn at_the_beginning_of_a_run_the_rates_in_force_count() {
    let mut world = one_host(&[(200.0, 400.0), (300.0, 500.0)]);
    world.moves.iter_mut().for_each(|m| m.at = Time::ZERO);
    assert_eq!(techniques(&run(&world, &sensitive())), ["post-copy", "pre-copy"]);
}

#[test]
fn only_the_window_counts() {
    // It sends much until 15 s, and receives from then on; the request comes at 20 s.
    let mut world = one_host(&[(300.0, 0.0)]);
    let change = Incident::Traffic(VmId(0), traffic(0.0, 100.0));
    world.events = vec![ScheduledEvent { at: Time::ZERO + Span::from_secs(15), what: change }];
    let window = |seconds| {
        let window = Span::from_secs(seconds);
        strategy("traffic-sensitive", |s| s.selection = Some(SelectionPolicy::Traffic(TrafficSensitive { window })))
    };
    assert_eq!(techniques(&run(&world, &window(4))), ["pre-copy"]);
    // 15 s at 300 of 20 s are 225 Mbit/s sent, against 25 received.
    assert_eq!(techniques(&run(&world, &window(20))), ["post-copy"]);
}

#[test]
fn what_stays_at_the_source_and_what_lives_at_the_destination_is_in_the_background() {
    let two = [(100.0, 100.0), (60.0, 0.0)];
    let mut world = one_host(&two);
    world.moves.truncate(1);
    assert_eq!(techniques(&run(&world, &sensitive())), ["post-copy"], "the guest that stays sends");
    world.vms[1].host = HostId(1);
    world.vms[1].traffic = traffic(0.0, 60.0);
    assert_eq!(techniques(&run(&world, &sensitive())), ["pre-copy"], "a guest there receives");
    world.vms.truncate(1);
    let outward = Flow { name: "backup".into(), from: Endpoint::Host(HostId(0)), to: Endpoint::Outside, ..flow(60.0) };
    world.flows = vec![outward];
    assert_eq!(techniques(&run(&world, &sensitive())), ["post-copy"], "the host itself sends");
}

fn flow(mbit: f64) -> Flow {
    let rate = Some(Rate::from_bits(mbit * 1e6));
    Flow { name: "flow".into(), from: Endpoint::Outside, to: Endpoint::Outside, rate, weight: 1.0, measured_for: None }
}

#[test]
fn traffic_inside_a_host_does_not_count() {
    let mut world = one_host(&[(0.0, 10.0), (0.0, 0.0)]);
    world.flows = vec![Flow { from: Endpoint::Vm(VmId(0)), to: Endpoint::Vm(VmId(1)), ..flow(500.0) }];
    assert_eq!(techniques(&run(&world, &sensitive())), ["pre-copy"; 2]);
    // Against a guest elsewhere it does.
    world.hosts.push(host("third", 10.0 * GBIT));
    world.vms[1].host = HostId(2);
    world.moves.truncate(1);
    assert_eq!(techniques(&run(&world, &sensitive())), ["post-copy"]);
}

#[test]
fn snapshots_go_before_either_technique() {
    let quick = strategy("traffic-sensitive", |s| s.ahead = Some(livemig_core::strategy::Ahead::default()));
    let world = one_host(&[(200.0, 400.0), (300.0, 500.0)]);
    let result = run(&world, &quick);
    assert_eq!(techniques(&result), ["post-copy", "pre-copy"]);
    let plain = run(&world, &sensitive());
    for (quick, plain) in result.migrations.iter().zip(&plain.migrations) {
        assert!(quick.metrics.bytes.snapshot >= Bytes::from_gib(1));
        assert!(quick.metrics.eviction_time.unwrap().times(10) < plain.metrics.eviction_time.unwrap());
    }
}

#[test]
fn who_is_cancelled_or_fails_before_the_request_is_in_the_background() {
    // Together, the second receives nothing and so is post-copied. When it stays, what it sends makes the difference for the first.
    let quick = strategy("traffic-sensitive", |s| s.ahead = Some(livemig_core::strategy::Ahead::default()));
    let mut world = one_host(&[(100.0, 150.0), (60.0, 0.0)]);
    assert_eq!(techniques(&run(&world, &quick)), ["pre-copy", "post-copy"]);
    world.hosts.push(host("third", 10.0 * GBIT));
    world.moves[1].to = HostId(2);
    for what in [Incident::Cancel(VmId(1)), Incident::Fail(HostId(2))] {
        world.events = vec![ScheduledEvent { at: Time::ZERO + Span::from_secs(10), what }];
        let result = run(&world, &quick);
        assert_eq!(result.migrations[0].technique, "post-copy");
        assert_eq!(result.migrations[0].metrics.outcome, Outcome::Completed);
        assert_ne!(result.migrations[1].metrics.outcome, Outcome::Completed);
    }
}

#[test]
fn a_later_request_sees_where_the_earlier_have_gone() {
    // The first sends; once it has left, the host that both leave is free, and the one that both go to sends, which is no matter.
    let mut world = one_host(&[(200.0, 300.0), (50.0, 100.0)]);
    assert_eq!(techniques(&run(&world, &sensitive())), ["pre-copy", "post-copy"]);
    world.moves[1].at = Time::ZERO + Span::from_secs(60);
    assert_eq!(techniques(&run(&world, &sensitive())), ["pre-copy", "pre-copy"]);
}
