//! Small drains, step by step.

use crate::drain::*;
use crate::policy::order::Order;
use crate::policy::placement::Placement;
use crate::units::{Bytes, Rate, Time};

const GIB: u64 = 1 << 30;

fn vm(host: u32, gib: u64) -> PlannedVm {
    PlannedVm { host: HostIndex(host), memory: Bytes(gib * GIB), to: None }
}

fn hosts(gib: &[u64]) -> Vec<Option<Bytes>> {
    gib.iter().map(|&g| Some(Bytes(g * GIB))).collect()
}

/// Host 0 is drained onto all others.
fn plan(gib: &[u64], vms: &[u64]) -> Plan {
    Plan {
        hosts: hosts(gib),
        vms: vms.iter().map(|&m| vm(0, m)).collect(),
        drained: vec![HostIndex(0)],
        candidates: (1..gib.len() as u32).map(HostIndex).collect(),
        ..Plan::default()
    }
}

fn requested(plan: Plan) -> Drain {
    let mut drain = Drain::new(plan).unwrap();
    assert_eq!(drain.poll(), None);
    drain.handle(Time(0), Event::Requested);
    drain
}

/// What is started now: (VM, destination).
fn started(drain: &mut Drain) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    while let Some(command) = drain.poll() {
        match command {
            Command::Start { vm, destination, .. } => all.push((vm.0, destination.0)),
            Command::SetRate { .. } | Command::Cancel(_) => panic!("{command:?}"),
        }
    }
    all
}

fn fates(drain: &mut Drain) -> Vec<(u32, Fate)> {
    let mut all = Vec::new();
    while let Some(report) = drain.poll_report() {
        if let Report::Vm { vm, fate, .. } = report {
            all.push((vm.0, fate));
        }
    }
    all
}

fn done(drain: &mut Drain, at: u64, vm: u32) -> Vec<(u32, u32)> {
    drain.handle(Time(at), Event::Done(VmIndex(vm)));
    started(drain)
}

fn host_state(drain: &mut Drain, host: u32, state: HostState) {
    drain.handle(Time(1), Event::HostState { host: HostIndex(host), state });
}

#[test]
fn one_host_goes_in_the_order_of_the_list_as_far_as_slots_allow() {
    let mut p = plan(&[64, 8, 64], &[4, 8, 4, 4]);
    p.limits.per_host = 2;
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 1), (1, 2)]);
    assert_eq!(done(&mut drain, 5, 1), [(2, 1)]);
    assert_eq!(done(&mut drain, 6, 0), [(3, 2)]);
    assert_eq!(done(&mut drain, 7, 2), []);
    assert!(!drain.is_over());
    drain.handle(Time(8), Event::Evicted(VmIndex(3)));
    assert!(!drain.is_over());
    drain.handle(Time(9), Event::Done(VmIndex(3)));
    assert!(drain.is_over());
    assert_eq!(drain.whole().drain_time().unwrap().0, 8);
    assert_eq!((drain.whole().moved, drain.whole().not_moved), (4, 0));
}

#[test]
fn orders_and_placements_are_those_of_the_plan() {
    for (order, first) in
        [(Order::AsListed, 0), (Order::SmallestFirst, 1), (Order::LargestFirst, 2), (Order::LeastDirtyingFirst, 3)]
    {
        let mut drain = Drain::new(Plan { order, ..plan(&[64, 64], &[2, 1, 3, 2]) }).unwrap();
        for (vm, dirty) in [(0, 9.0), (1, 8.0), (2, 7.0), (3, 6.0)] {
            drain.handle(Time(0), Event::Rates { vm: VmIndex(vm), rates: Rates { dirty: Rate(dirty), ..Rates::default() } });
        }
        drain.handle(Time(0), Event::Requested);
        assert_eq!(started(&mut drain), [(first, 1)], "{order:?}");
    }
    let spread = Plan { placement: Placement::MostRoom, ..plan(&[64, 7, 8], &[2, 1]) };
    let mut drain = requested(spread);
    assert_eq!(started(&mut drain), [(0, 2)]);
    assert_eq!(done(&mut drain, 1, 0), [(1, 1)]);
}

#[test]
fn a_slot_at_the_source_is_free_at_eviction_and_one_at_the_destination_at_the_end() {
    let mut p = plan(&[64, 64, 64], &[1, 1, 1]);
    p.limits.per_destination = Some(1);
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 1)]);
    drain.handle(Time(1), Event::Evicted(VmIndex(0)));
    assert_eq!(started(&mut drain), [(1, 2)]);
    drain.handle(Time(2), Event::Evicted(VmIndex(1)));
    assert_eq!(started(&mut drain), []);
    assert_eq!(done(&mut drain, 3, 1), [(2, 2)]);
}

#[test]
fn a_vm_without_a_place_holds_nobody_up_and_is_first_when_there_is_room() {
    let mut p = plan(&[64, 8, 0], &[6, 8, 2, 1]);
    p.limits.per_host = 2;
    p.retries = 1;
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 1), (2, 1)]);
    assert_eq!(done(&mut drain, 1, 2), []);
    // What failed gives its memory back, and is before the others again: VM 1 has still no room, VM 3 has some.
    drain.handle(Time(2), Event::Failed { vm: VmIndex(0), left: Left::AtSource });
    assert_eq!(started(&mut drain), [(0, 1)]);
    drain.handle(Time(3), Event::Failed { vm: VmIndex(0), left: Left::AtSource });
    assert_eq!(started(&mut drain), [(3, 1)]);
    assert_eq!(done(&mut drain, 4, 3), []);
    assert!(drain.is_over());
    let unplaced = Fate::Unplaced(NoPlace::NoRoom);
    let to = HostIndex(1);
    assert_eq!(fates(&mut drain), [(2, Fate::Moved { to }), (0, Fate::Failed), (3, Fate::Moved { to }), (1, unplaced)]);
    assert_eq!((drain.whole().emptied, drain.whole().hosts_left, drain.whole().retried), (None, 1, 1));
}

#[test]
fn a_given_destination_is_waited_for_while_others_go() {
    let mut p = plan(&[64, 8, 8, 8], &[4, 4, 4, 9]);
    p.vms[0].to = Some(HostIndex(3));
    p.vms[1].to = Some(HostIndex(3));
    p.vms[3].to = Some(HostIndex(2));
    p.candidates.truncate(1);
    p.limits = Limits { per_host: 3, per_destination: Some(1), ..Limits::default() };
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 3), (2, 1)]);
    assert_eq!(done(&mut drain, 1, 2), []);
    assert_eq!(done(&mut drain, 2, 0), [(1, 3)]);
    host_state(&mut drain, 3, HostState::Dead);
    drain.handle(Time(3), Event::Failed { vm: VmIndex(1), left: Left::AtSource });
    assert_eq!(started(&mut drain), []);
    let fates = fates(&mut drain);
    assert!(fates.contains(&(1, Fate::Failed)) && fates.contains(&(3, Fate::Unplaced(NoPlace::DestinationFull))), "{fates:?}");
}

#[test]
fn no_vm_goes_to_a_host_that_is_drained_itself_unless_the_plan_says_so() {
    // Two hosts are drained, one after the other; the third has room for one guest only.
    let two = |onto_waiting| Plan {
        hosts: hosts(&[8, 8, 2]),
        vms: vec![vm(0, 2), vm(0, 2), vm(1, 2)],
        drained: vec![HostIndex(0), HostIndex(1)],
        candidates: (0..3).map(HostIndex).collect(),
        onto_waiting,
        returns: true,
        limits: Limits { hosts_at_once: Some(1), ..Limits::default() },
        ..Plan::default()
    };
    let mut drain = requested(two(false));
    assert_eq!(started(&mut drain), [(0, 2)]);
    // There is no place for VM 1: host 0 gives way to host 1, for whose guest there is no place either.
    assert_eq!(done(&mut drain, 1, 0), []);
    assert!(drain.is_over());
    assert_eq!(drain.whole().not_moved, 2);

    let mut drain = requested(two(true));
    assert_eq!(started(&mut drain), [(0, 2)]);
    assert_eq!(done(&mut drain, 1, 0), [(1, 1)]);
    assert_eq!(done(&mut drain, 2, 1), []);
    host_state(&mut drain, 0, HostState::Returned);
    // Host 0 is back; host 1 leaves with its own guest and the one that it took.
    assert_eq!(started(&mut drain), [(1, 0)]);
    assert_eq!(done(&mut drain, 3, 1), [(2, 0)]);
    assert_eq!(done(&mut drain, 4, 2), []);
    host_state(&mut drain, 1, HostState::Returned);
    assert!(drain.is_over());
    assert_eq!((drain.whole().moved, drain.whole().hosts_emptied), (4, 2));
}

#[test]
fn hosts_are_drained_in_waves_and_a_host_that_fails_loses_its_guests() {
    let mut p = plan(&[8, 8, 8, 64], &[]);
    p.vms = vec![vm(0, 1), vm(1, 1), vm(2, 1), vm(2, 1)];
    p.drained = (0..3).map(HostIndex).collect();
    p.candidates = vec![HostIndex(3)];
    p.limits.hosts_at_once = Some(2);
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 3), (1, 3)]);
    host_state(&mut drain, 2, HostState::Dead);
    assert_eq!(done(&mut drain, 2, 1), []);
    assert_eq!(fates(&mut drain), [(1, Fate::Moved { to: HostIndex(3) }), (2, Fate::Lost), (3, Fate::Lost)]);
    assert_eq!(done(&mut drain, 3, 0), []);
    assert!(drain.is_over() && drain.whole().emptied.is_none());
}

#[test]
fn a_host_that_is_cut_off_is_waited_for() {
    let mut drain = requested(plan(&[8, 8], &[1, 1]));
    assert_eq!(started(&mut drain), [(0, 1)]);
    host_state(&mut drain, 1, HostState::Cut);
    assert_eq!(done(&mut drain, 1, 0), []);
    assert!(!drain.is_over());
    host_state(&mut drain, 1, HostState::Reachable);
    assert_eq!(started(&mut drain), [(1, 1)]);
}

#[test]
fn a_refusal_makes_a_host_smaller_until_it_says_otherwise() {
    let mut drain = requested(plan(&[8, 8, 8], &[4, 3]));
    assert_eq!(started(&mut drain), [(0, 1)]);
    drain.handle(Time(1), Event::Refused(VmIndex(0)));
    assert_eq!(started(&mut drain), [(0, 2)]);
    drain.handle(Time(1), Event::Refused(VmIndex(0)));
    assert_eq!(started(&mut drain), [(1, 1)]);
    host_state(&mut drain, 2, HostState::Reachable);
    assert_eq!(done(&mut drain, 2, 1), [(0, 2)]);
}

#[test]
fn a_hosts_rate_is_shared_by_its_migrations() {
    let mut p = plan(&[8, 8], &[1, 1]);
    (p.limits.per_host, p.rate_per_host) = (2, Some(Rate(100.0)));
    let mut drain = requested(p);
    let Some(Command::Start { vm: VmIndex(0), rate, .. }) = drain.poll() else { panic!() };
    assert_eq!(rate, Some(Rate(100.0)));
    assert_eq!(drain.poll(), Some(Command::SetRate { vm: VmIndex(0), limit: Rate(50.0) }));
    let Some(Command::Start { vm: VmIndex(1), rate, .. }) = drain.poll() else { panic!() };
    assert_eq!(rate, Some(Rate(50.0)));
    drain.handle(Time(1), Event::Evicted(VmIndex(0)));
    assert_eq!(drain.poll(), Some(Command::SetRate { vm: VmIndex(1), limit: Rate(100.0) }));
}

#[test]
fn a_cancel_calls_off_what_runs_and_forgets_what_waits() {
    let mut p = plan(&[8, 8, 8], &[1, 1]);
    p.vms.push(vm(1, 1));
    p.drained.push(HostIndex(1));
    p.limits.hosts_at_once = Some(1);
    p.candidates = vec![HostIndex(2)];
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 2)]);
    drain.handle(Time(1), Event::Cancel);
    assert_eq!((drain.poll(), drain.poll()), (Some(Command::Cancel(VmIndex(0))), None));
    drain.handle(Time(2), Event::Failed { vm: VmIndex(0), left: Left::AtSource });
    assert!(drain.is_over());
    let cancelled = Fate::Cancelled;
    assert_eq!(fates(&mut drain), [(1, cancelled), (2, cancelled), (0, cancelled)]);
}

#[test]
fn a_vm_that_is_withdrawn_stays_wherever_it_stands_in_the_drain() {
    let mut p = plan(&[8, 8, 8], &[1, 1, 1]);
    p.vms.push(vm(1, 1));
    p.drained.push(HostIndex(1));
    p.limits.hosts_at_once = Some(1);
    p.candidates = vec![HostIndex(2)];
    p.retries = 9;
    let mut drain = requested(p);
    assert_eq!(started(&mut drain), [(0, 2)]);
    for vm in [1, 3] {
        drain.handle(Time(1), Event::Withdrawn(VmIndex(vm)));
        assert_eq!(drain.poll(), None);
    }
    drain.handle(Time(1), Event::Withdrawn(VmIndex(0)));
    assert_eq!((drain.poll(), drain.poll()), (Some(Command::Cancel(VmIndex(0))), None));
    drain.handle(Time(2), Event::Failed { vm: VmIndex(0), left: Left::AtSource });
    assert_eq!(started(&mut drain), [(2, 2)]);
    assert_eq!(done(&mut drain, 3, 2), []);
    assert!(drain.is_over());
    let cancelled = Fate::Cancelled;
    assert_eq!(fates(&mut drain), [(1, cancelled), (0, cancelled), (2, Fate::Moved { to: HostIndex(2) }), (3, cancelled)]);
}

#[test]
fn plans_without_sense_are_refused() {
    let good = plan(&[8, 8], &[1]);
    let with = |change: fn(&mut Plan)| {
        let mut p = good.clone();
        change(&mut p);
        Drain::new(p).map(|_| ()).unwrap_err()
    };
    assert!(Drain::new(good.clone()).is_ok());
    assert_eq!(with(|p| p.limits.per_host = 0), PlanError::Zero("per_host"));
    assert_eq!(with(|p| p.limits.per_cluster = Some(0)), PlanError::Zero("per_cluster"));
    assert_eq!(with(|p| p.drained.push(HostIndex(0))), PlanError::Twice(HostIndex(0)));
    assert_eq!(with(|p| p.candidates.push(HostIndex(2))), PlanError::NoSuchHost(HostIndex(2)));
    assert_eq!(with(|p| p.vms[0].memory = Bytes::ZERO), PlanError::NoMemory(VmIndex(0)));
    assert_eq!(with(|p| p.vms[0].to = Some(HostIndex(0))), PlanError::AlreadyThere(VmIndex(0)));
    assert_eq!(with(|p| p.rate_per_host = Some(Rate(0.0))), PlanError::NoRate);
}

#[test]
fn a_vm_takes_little_memory() {
    assert!(size_of::<super::super::Guest>() <= 24);
}
