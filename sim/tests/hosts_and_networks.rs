//! What hosts, links, traffic and incidents do to a migration, against figures that can be computed by hand.

mod common;

use common::{constant, one_vm, run, run_for, strategy, vm};
use livemig_core::machine::Outcome;
use livemig_core::policy::stop::{FixedRounds, SimGrid, StopRule};
use livemig_core::policy::timeout::{CompletionTimeout, OnTimeout};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_models::world::{
    Endpoint, Flow, HostId, Incident, Move, Nic, Rack, ScheduledEvent, Strategy, Traffic, VmId, Workload, World,
};
use livemig_sim::MigrationResult;

const GIB: f64 = 1_073_741_824.0;

fn pre_copy() -> Strategy {
    strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::SimGrid(SimGrid::default());
        live.skip_redirtied = false;
    })
}

fn idle() -> World {
    one_vm(Bytes::from_gib(1), Workload::Idle, GIB / 10.0)
}

fn total(world: &World, strategy: &Strategy) -> f64 {
    run(world, strategy).migrations[0].metrics.total_migration_time.unwrap().as_secs_f64()
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6 * b.max(1.0), "{a} is not {b}");
}

#[test]
fn an_idle_guest_is_copied_once() {
    let m = run(&idle(), &pre_copy()).migrations.remove(0);
    close(m.metrics.total_migration_time.unwrap().as_secs_f64(), 10.0);
    assert_eq!(m.metrics.bytes.total(), Bytes::from_gib(1));
    assert_eq!(m.metrics.downtime.unwrap().total, Span::ZERO);
}

#[test]
fn a_destination_with_limited_reception_is_the_bottleneck() {
    let mut world = idle();
    world.hosts[1].reception = Some(Rate(GIB / 40.0));
    close(total(&world, &pre_copy()), 40.0);
}

#[test]
fn a_destination_without_memory_takes_pages_at_its_swap_rate() {
    let mut world = idle();
    world.hosts[1].memory = Some(Bytes::from_mib(256));
    world.hosts[1].swap = Rate(GIB / 100.0);
    close(total(&world, &pre_copy()), 2.5 + 75.0);
}

#[test]
fn a_guest_that_has_left_makes_room() {
    let mut world = idle();
    world.hosts[1].memory = Some(Bytes::from_gib(1));
    world.vms.push(vm(1, Bytes::from_gib(1), Workload::Idle));
    world.moves.insert(0, Move { vm: VmId(1), to: HostId(0), at: Time::ZERO, via: Vec::new() });
    world.moves[1].at = Time(20_000_000_000);
    let r = run(&world, &pre_copy());
    close(r.migrations[1].metrics.total_migration_time.unwrap().as_secs_f64(), 10.0);
}

#[test]
fn streams_spread_over_nics() {
    let mut world = idle();
    for h in &mut world.hosts {
        h.nics = vec![Nic { rate: Rate(GIB / 10.0), goodput: 1.0 }; 4];
    }
    close(total(&world, &pre_copy()), 10.0);
    let mut four = pre_copy();
    four.spec.transfer.streams = 4;
    close(total(&world, &four), 2.5);
}

#[test]
fn racks_share_their_uplinks() {
    let mut world = idle();
    world.racks =
        vec![Rack { name: "a".into(), uplink: Some(Rate(GIB / 50.0)) }, Rack { name: "b".into(), uplink: Some(Rate(GIB / 10.0)) }];
    world.hosts[0].rack = Some(0);
    world.hosts[1].rack = Some(0);
    close(total(&world, &pre_copy()), 10.0);
    world.hosts[1].rack = Some(1);
    close(total(&world, &pre_copy()), 50.0);
}

#[test]
fn the_goodput_is_what_a_nic_carries() {
    let mut world = idle();
    world.hosts[1].nics[0].goodput = 0.8;
    close(total(&world, &pre_copy()), 12.5);
}

#[test]
fn a_limit_holds_in_every_phase() {
    for preset in livemig_core::strategy::PRESETS {
        let mut s = strategy(preset.name, |_| {});
        s.spec.transfer.limit = Some(Rate(GIB / 20.0));
        close(total(&idle(), &s), 20.0);
    }
}

#[test]
fn zero_pages_travel_as_marks() {
    let mut world = idle();
    world.vms[0].zero_share = 0.25;
    close(total(&world, &pre_copy()), 7.5);
    let mut all = pre_copy();
    all.spec.transfer.elide_zero_pages = false;
    close(total(&world, &all), 10.0);
}

#[test]
fn outgoing_traffic_competes_before_the_switch_and_incoming_after() {
    let post_copy = strategy("post-copy", |_| {});
    let mut world = idle();
    world.vms[0].traffic = Traffic { tx: Rate(GIB / 20.0), rx: Rate::ZERO };
    close(total(&world, &pre_copy()), 20.0);
    close(total(&world, &post_copy), 10.0);
    world.vms[0].traffic = Traffic { tx: Rate::ZERO, rx: Rate(GIB / 20.0) };
    close(total(&world, &pre_copy()), 10.0);
    close(total(&world, &post_copy), 20.0);
}

#[test]
fn a_flow_reports_what_it_has_carried() {
    let mut world = idle();
    let (from, to) = (Endpoint::Vm(VmId(0)), Endpoint::Outside);
    world.flows.push(Flow { name: "netperf".into(), from, to, rate: None, weight: 1.0, measured_for: None });
    let r = run(&world, &pre_copy());
    close(r.migrations[0].metrics.total_migration_time.unwrap().as_secs_f64(), 20.0);
    close(r.flows[0].mean.0, GIB / 20.0);
    assert_eq!(r.flows[0].before, None);
}

#[test]
fn a_flow_is_measured_for_its_own_time() {
    let mut world = idle();
    world.moves[0].at = Time(10_000_000_000);
    let (from, to) = (Endpoint::Vm(VmId(0)), Endpoint::Outside);
    // It shares the link for the 20 s of the migration and has it to itself before and after.
    for (seconds, mean) in [(10, GIB / 20.0), (60, (20.0 * GIB / 20.0 + 40.0 * GIB / 10.0) / 60.0)] {
        let measured_for = Some(Span::from_secs(seconds));
        world.flows = vec![Flow { name: "netperf".into(), from, to, rate: None, weight: 1.0, measured_for }];
        let r = run(&world, &pre_copy());
        close(r.flows[0].mean.0, mean);
        close(r.flows[0].before.unwrap().0, GIB / 10.0);
    }
    // Of what the horizon cuts off, there is no more than the run has shown.
    let cut = run_for(&world, &pre_copy(), Span::from_secs(40));
    close(cut.flows[0].mean.0, (20.0 * GIB / 20.0 + 10.0 * GIB / 10.0) / 30.0);
}

#[test]
fn overcommitted_cores_slow_the_guests_down() {
    let mut world = one_vm(Bytes::from_gib(1), constant(GIB / 20.0, Bytes::from_gib(1)), GIB / 10.0);
    let alone = run(&world, &pre_copy()).migrations[0].metrics.bytes.total();
    world.hosts[0].cores = 1;
    world.vms.push(vm(0, Bytes::from_gib(1), Workload::Idle));
    let shared = run(&world, &pre_copy()).migrations[0].metrics.bytes.total();
    assert!(shared < alone, "{shared} of a guest with half a core, {alone} of one with a core");
}

fn with_event(at_s: u64, what: Incident) -> World {
    let mut world = idle();
    world.events.push(ScheduledEvent { at: Time(at_s * 1_000_000_000), what });
    world
}

fn one(world: &World, strategy: &Strategy) -> MigrationResult {
    run(world, strategy).migrations.remove(0)
}

#[test]
fn a_cancel_leaves_the_guest_at_the_source() {
    let m = one(&with_event(4, Incident::Cancel(VmId(0))), &pre_copy());
    assert_eq!(m.metrics.outcome, Outcome::Cancelled);
    assert_eq!(m.metrics.eviction_time, None);
    close(m.metrics.bytes.total().0 as f64, 0.4 * GIB);
}

#[test]
fn a_failed_destination_costs_nothing_before_the_switch_and_everything_after() {
    let fail = with_event(4, Incident::Fail(HostId(1)));
    assert_eq!(one(&fail, &pre_copy()).metrics.outcome, Outcome::Aborted);
    assert_eq!(one(&fail, &strategy("post-copy", |_| {})).metrics.outcome, Outcome::Lost);
}

#[test]
fn a_failed_source_loses_the_guest_unless_everything_is_there() {
    for preset in livemig_core::strategy::PRESETS {
        let m = one(&with_event(4, Incident::Fail(HostId(0))), &strategy(preset.name, |_| {}));
        assert_eq!(m.metrics.outcome, Outcome::Lost, "{}", preset.name);
    }
}

#[test]
fn a_cut_link_delays_and_a_long_cut_aborts() {
    let mut world = with_event(4, Incident::Cut(HostId(1)));
    world.events.push(ScheduledEvent { at: Time(9_000_000_000), what: Incident::Restore(HostId(1)) });
    for preset in livemig_core::strategy::PRESETS {
        close(total(&world, &strategy(preset.name, |_| {})), 15.0);
    }
    world.events.pop();
    assert_eq!(one(&world, &pre_copy()).metrics.outcome, Outcome::Aborted);
    // After the switch nobody else has the guest: it is waited for.
    assert_eq!(one(&world, &strategy("post-copy", |_| {})).metrics.outcome, Outcome::Unfinished);
}

#[test]
fn a_change_of_load_is_felt() {
    let busy = constant(GIB / 5.0, Bytes::from_gib(1));
    let mut world = with_event(4, Incident::Workload(VmId(0), busy));
    let fixed = strategy("pre-copy", |s| {
        s.live.as_mut().unwrap().stop = StopRule::FixedRounds(FixedRounds { rounds: 1 });
        s.live.as_mut().unwrap().skip_redirtied = false;
    });
    // All of memory is dirtied within the remaining six seconds, and copied again.
    close(total(&world, &fixed), 20.0);
    world.events[0].at = Time(9_000_000_000);
    close(total(&world, &fixed), 12.0);
}

#[test]
fn a_completion_timeout_ends_what_does_not_converge() {
    let world = one_vm(Bytes::from_gib(1), constant(GIB, Bytes::from_gib(1)), GIB / 10.0);
    for (then, outcome) in
        [(OnTimeout::Abort, Outcome::Aborted), (OnTimeout::PostCopy, Outcome::Completed), (OnTimeout::Pause, Outcome::Completed)]
    {
        let mut s = pre_copy();
        s.spec.timeout = Some(CompletionTimeout { per_gib: Span::from_secs(35), then });
        let m = one(&world, &s);
        assert_eq!(m.metrics.outcome, outcome, "{then:?}");
        assert!(!m.metrics.converged);
        if outcome == Outcome::Completed {
            close(m.metrics.total_migration_time.unwrap().as_secs_f64(), 45.0);
        }
    }
}

#[test]
fn a_migration_that_never_converges_is_unfinished_at_the_horizon() {
    let world = one_vm(Bytes::from_gib(1), constant(GIB, Bytes::from_gib(1)), GIB / 10.0);
    let m = one(&world, &pre_copy());
    assert_eq!(m.metrics.outcome, Outcome::Unfinished);
    assert!(!m.metrics.converged);
}

#[test]
fn more_bandwidth_is_never_slower() {
    let workload = Workload::Uniform { working_set: Bytes::from_mib(300), writes: 20_000.0, reads: 40_000.0 };
    for preset in livemig_core::strategy::PRESETS {
        let mut last = f64::INFINITY;
        for step in 1..20 {
            let world = one_vm(Bytes::from_gib(1), workload.clone(), 1e8 * f64::from(step));
            let now = total(&world, &strategy(preset.name, |_| {}));
            assert!(now <= last * (1.0 + 1e-9), "{} at step {step}: {now} after {last}", preset.name);
            last = now;
        }
    }
}
