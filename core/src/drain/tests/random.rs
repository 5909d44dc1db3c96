//! Drains of every kind, with every kind of event, against the oracle; and what must hold whatever happens.

use super::oracle::{Oracle, Vm};
use crate::drain::*;
use crate::policy::order::Order;
use crate::policy::placement::Placement;
use crate::units::{Bytes, Rate, Time};
use proptest::prelude::*;

fn limit() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1..4u32)
}

fn plan() -> impl Strategy<Value = Plan> {
    (2..7usize, 0..14usize).prop_flat_map(|(hosts, vms)| {
        let host = 0..hosts as u32;
        let vm = (host.clone(), 1..5u64, prop::option::weighted(0.3, host)).prop_map(|(host, memory, to)| PlannedVm {
            host: HostIndex(host),
            memory: Bytes(memory),
            to: to.filter(|&to| to != host).map(HostIndex),
        });
        let list = || prop::sample::subsequence((0..hosts as u32).map(HostIndex).collect::<Vec<_>>(), 0..=hosts).prop_shuffle();
        let sizes = prop::collection::vec(prop::option::weighted(0.9, (0..14u64).prop_map(Bytes)), hosts);
        let order = prop_oneof![Just(Order::AsListed), Just(Order::SmallestFirst), Just(Order::LargestFirst)];
        let limits = (1..4u32, limit(), limit(), limit()).prop_map(|(per_host, per_destination, per_cluster, hosts_at_once)| {
            Limits { per_host, per_destination, per_cluster, hosts_at_once }
        });
        let placement = prop::sample::select(vec![Placement::FirstFit, Placement::MostRoom, Placement::LeastTraffic]);
        let flags = (any::<bool>(), any::<bool>(), 0..3u8, placement);
        (sizes, prop::collection::vec(vm, vms), list(), list(), order, limits, flags).prop_map(
            |(hosts, vms, drained, candidates, order, limits, (onto_waiting, returns, retries, placement))| Plan {
                hosts,
                vms,
                drained,
                candidates,
                order,
                placement,
                limits,
                onto_waiting,
                returns,
                retries,
                ..Plan::default()
            },
        )
    })
}

/// A drain and its oracle, told the same.
struct Pair {
    drain: Drain,
    oracle: Oracle,
    /// Results by VM and host, in the order in which they came.
    fates: Vec<(u32, u32, Fate)>,
    hosts: Vec<HostReport>,
    /// The bytes by which a host holds more than it has, at the beginning.
    excess: Vec<u64>,
    now: u64,
}

impl Pair {
    fn new(plan: Plan) -> Pair {
        let oracle = Oracle::new(plan.clone());
        let excess =
            plan.hosts.iter().enumerate().map(|(h, c)| c.map_or(0, |c| oracle.used(h as u32).saturating_sub(c.0))).collect();
        Pair { drain: Drain::new(plan).unwrap(), oracle, fates: Vec::new(), hosts: Vec::new(), excess, now: 0 }
    }

    fn tell(&mut self, event: Event) {
        self.now += 1;
        self.drain.handle(Time(self.now), event);
        let mut starts = Vec::new();
        while let Some(command) = self.drain.poll() {
            match command {
                Command::Start { vm, destination, .. } => starts.push((vm.0, destination.0)),
                Command::Cancel(vm) => assert!(self.oracle.withdrawn[vm.0 as usize]),
                Command::SetRate { .. } => panic!("no limit is given"),
            }
        }
        assert_eq!(starts, self.oracle.starts());
        self.take_reports();
        self.check_limits();
    }

    fn take_reports(&mut self) {
        while let Some(report) = self.drain.poll_report() {
            match report {
                Report::Vm { vm, host, fate } => self.fates.push((vm.0, host.0, fate)),
                Report::Host(report) => self.hosts.push(report),
            }
        }
    }

    /// Never more at once than allowed, and never more memory than there is.
    fn check_limits(&self) {
        let (o, limits) = (&self.oracle, self.oracle.plan.limits);
        for h in 0..o.dead.len() as u32 {
            assert!(o.outgoing(h) <= limits.per_host);
            assert!(limits.per_destination.is_none_or(|l| o.incoming(h) <= l));
            let capacity = o.plan.hosts[h as usize].map_or(u64::MAX, |c| c.0 + self.excess[h as usize]);
            assert!(o.used(h) <= capacity, "host {h} holds {} of {capacity}", o.used(h));
        }
        assert!(limits.per_cluster.is_none_or(|l| o.running() <= l));
        assert!(limits.hosts_at_once.is_none_or(|l| o.in_wave() <= l));
    }

    fn migrating(&self) -> Vec<(u32, u32, bool)> {
        let state = |(vm, s): (usize, &Vm)| match *s {
            Vm::Running(to) => Some((vm as u32, to, false)),
            Vm::Evicted(to) => Some((vm as u32, to, true)),
            Vm::Rests | Vm::Pending | Vm::Over => None,
        };
        self.oracle.state.iter().enumerate().filter_map(state).collect()
    }

    /// One of the migrations under way goes on; what happens is chosen by `what`.
    fn go_on(&mut self, which: usize, what: u8) -> bool {
        let migrating = self.migrating();
        if migrating.is_empty() {
            return false;
        }
        let (vm, to, evicted) = migrating[which % migrating.len()];
        let v = vm as usize;
        let from = self.oracle.host_of[v];
        match (what, evicted) {
            (0..4, false) => {
                self.oracle.state[v] = Vm::Evicted(to);
                self.tell(Event::Evicted(VmIndex(vm)));
            }
            (4..6, false) => self.fail(vm, true),
            (6, false) => {
                self.fail(vm, false);
            }
            (7, _) => {
                self.oracle.end(vm, Fate::Lost);
                if evicted {
                    self.oracle.host_of[v] = u32::MAX;
                }
                self.oracle.plan.vms[v].memory = Bytes(0);
                self.oracle.rx[v] = 0;
                self.tell(Event::Failed { vm: VmIndex(vm), left: Left::Nothing });
            }
            _ => {
                self.oracle.fates.push((vm, from, Fate::Moved { to: HostIndex(to) }));
                self.oracle.state[v] = Vm::Rests;
                self.oracle.host_of[v] = to;
                (self.oracle.given[v], self.oracle.failures[v], self.oracle.withdrawn[v]) = (None, 0, false);
                self.tell(Event::Done(VmIndex(vm)));
            }
        }
        true
    }

    /// A migration ends and its VM is where it was: it has failed, or was refused.
    fn fail(&mut self, vm: u32, failed: bool) {
        let v = vm as usize;
        let Vm::Running(to) = self.oracle.state[v] else { panic!() };
        self.oracle.failures[v] += u8::from(failed);
        match () {
            () if self.oracle.dead[self.oracle.host_of[v] as usize] => self.oracle.end(vm, Fate::Lost),
            () if self.oracle.withdrawn[v] => self.oracle.end(vm, Fate::Cancelled),
            () if self.oracle.failures[v] > self.oracle.plan.retries => self.oracle.end(vm, Fate::Failed),
            () => self.oracle.state[v] = Vm::Pending,
        }
        if failed {
            self.tell(Event::Failed { vm: VmIndex(vm), left: Left::AtSource });
        } else {
            let ceiling = &mut self.oracle.ceiling[to as usize];
            *ceiling = (*ceiling).min(self.oracle.plan.vms[v].memory.0 - 1);
            self.tell(Event::Refused(VmIndex(vm)));
        }
    }

    fn withdraw(&mut self, vm: usize) {
        if self.oracle.state.is_empty() {
            return;
        }
        let vm = vm % self.oracle.state.len();
        let host = self.oracle.host_of[vm];
        self.oracle.withdrawn[vm] = self.oracle.state[vm] != Vm::Over && self.oracle.is_listed(host);
        self.tell(Event::Withdrawn(VmIndex(vm as u32)));
    }

    fn rates(&mut self, vm: usize, rx: u16) {
        let vms = self.oracle.plan.vms.len();
        if vms > 0 {
            let vm = vm % vms;
            if self.oracle.state[vm] != Vm::Over {
                self.oracle.rx[vm] = rx.into();
            }
            let rates = Rates { rx: Rate(rx.into()), ..Rates::default() };
            self.tell(Event::Rates { vm: VmIndex(vm as u32), rates });
        }
    }

    fn host_traffic(&mut self, host: usize, received: u16) {
        let host = host % self.oracle.plan.hosts.len();
        self.oracle.beside[host] = received.into();
        self.tell(Event::HostTraffic { host: HostIndex(host as u32), received: Rate(received.into()) });
    }

    fn host_event(&mut self, host: usize, what: u8) {
        let host = (host % self.oracle.dead.len()) as u32;
        let h = host as usize;
        let state = match what {
            0 if !self.oracle.dead[h] => {
                self.oracle.dead[h] = true;
                HostState::Dead
            }
            1..4 => {
                self.oracle.cut[h] = true;
                HostState::Cut
            }
            4..8 => {
                self.oracle.cut[h] = false;
                if !self.oracle.dead[h] {
                    self.oracle.ceiling[h] = u64::MAX;
                }
                HostState::Reachable
            }
            _ if self.oracle.awaited(host) => {
                self.oracle.turns[h].returned = true;
                self.oracle.ceiling[h] = u64::MAX;
                HostState::Returned
            }
            _ => return,
        };
        self.tell(Event::HostState { host: HostIndex(host), state });
    }

    /// Everything that can end well does.
    fn calm_down(&mut self) {
        for h in 0..self.oracle.dead.len() {
            if self.oracle.cut[h] {
                self.host_event(h, 4);
            }
        }
        for round in 0.. {
            assert!(round < 10_000, "a drain ends");
            for h in 0..self.oracle.dead.len() {
                self.host_event(h, 8);
            }
            if !self.go_on(0, 8) && !(0..self.oracle.dead.len()).any(|h| self.oracle.awaited(h as u32)) {
                return;
            }
        }
    }

    /// Every VM of a host that was to be drained has had exactly one result for it, that which the oracle expects.
    fn check_results(mut self) {
        let expected = &mut self.oracle.fates;
        let key = |f: &(u32, u32, Fate)| (f.0, f.1, f.2.name());
        expected.sort_by_key(key);
        self.fates.sort_by_key(key);
        assert_eq!(&self.fates, expected);
        let drained = &self.oracle.plan.drained;
        let mut once: Vec<(u32, u32)> = self.fates.iter().map(|f| (f.0, f.1)).collect();
        once.dedup();
        assert_eq!(once.len(), self.fates.len(), "one result for each");
        for (vm, planned) in self.oracle.plan.vms.iter().enumerate() {
            let results = self.fates.iter().filter(|f| (f.0, f.1) == (vm as u32, planned.host.0)).count();
            assert_eq!(results, usize::from(drained.contains(&planned.host)));
        }
        let mut hosts: Vec<u32> = self.hosts.iter().map(|h| h.host.0).collect();
        hosts.sort_unstable();
        let mut listed: Vec<u32> = drained.iter().map(|h| h.0).collect();
        listed.sort_unstable();
        assert_eq!(hosts, listed);
        for report in &self.hosts {
            let here = self.fates.iter().filter(|f| f.1 == report.host.0);
            let others = here.clone().filter(|f| !matches!(f.2, Fate::Moved { .. })).count();
            // A VM that was evicted may be lost before it has arrived.
            assert_eq!((report.evicted + report.left) as usize, here.count());
            assert!(report.left as usize <= others);
            assert_eq!(report.emptied.is_some(), report.left == 0);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    GoOn(usize, u8),
    Host(usize, u8),
    Withdraw(usize),
    Rates(usize, u16),
    HostTraffic(usize, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<usize>(), 0..14u8).prop_map(|(which, what)| Step::GoOn(which, what)),
        2 => (any::<usize>(), 0..12u8).prop_map(|(host, what)| Step::Host(host, what)),
        1 => any::<usize>().prop_map(Step::Withdraw),
        2 => (any::<usize>(), any::<u16>()).prop_map(|(vm, rx)| Step::Rates(vm, rx)),
        1 => (any::<usize>(), any::<u16>()).prop_map(|(host, rx)| Step::HostTraffic(host, rx)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_decision_is_that_of_a_search_through_everything(
        plan in plan(),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut pair = Pair::new(plan);
        pair.tell(Event::Requested);
        for step in steps {
            match step {
                Step::GoOn(which, what) => { pair.go_on(which, what); }
                Step::Host(host, what) => pair.host_event(host, what),
                Step::Withdraw(vm) => pair.withdraw(vm),
                Step::Rates(vm, rx) => pair.rates(vm, rx),
                Step::HostTraffic(host, rx) => pair.host_traffic(host, rx),
            }
        }
        pair.calm_down();
        assert!(pair.drain.is_over());
        pair.check_results();
    }

    #[test]
    fn at_the_end_of_the_observation_everyone_gets_a_result(
        plan in plan(),
        steps in prop::collection::vec((any::<usize>(), 0..14u8), 0..10),
    ) {
        let mut pair = Pair::new(plan);
        pair.tell(Event::Requested);
        for (which, what) in steps {
            pair.go_on(which, what);
        }
        pair.drain.finish(Time(1000));
        pair.take_reports();
        prop_assert_eq!(pair.drain.poll(), None);
        prop_assert!(pair.drain.is_over());
        for (vm, planned) in pair.oracle.plan.vms.iter().enumerate() {
            let results = pair.fates.iter().filter(|f| (f.0, f.1) == (vm as u32, planned.host.0)).count();
            prop_assert_eq!(results, usize::from(pair.oracle.plan.drained.contains(&planned.host)));
        }
        prop_assert_eq!(pair.hosts.len(), pair.oracle.plan.drained.len());
    }
}
