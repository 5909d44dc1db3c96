//! A drain: hosts are emptied by many migrations at once.
//!
//! A drain decides which VM goes next, where to, and how many go at a time. It never sees a page: each migration is a machine of its
//! own, and the driver tells the drain how they end. A driver calls [`Drain::handle`] with every event, then [`Drain::poll`] until it
//! returns `None` and carries the commands out, and takes the results from [`Drain::poll_report`]; at the end of its observation it
//! calls [`Drain::finish`]. Each `Start` is answered by `Done`, `Failed` or `Refused`, and by `Evicted` before `Done` when the
//! source is free earlier than that.
//!
//! # Which VM is next
//! Hosts are drained in the order of the list, at most `hosts_at_once` of them; the guests of a host leave in the plan's order. Whenever
//! something has changed, the first VM in this order that *can* start is started, again and again: its host has a slot, the cluster has
//! one, and a host that takes guests has a slot and the memory, which is reserved. So a VM for which there is no room now does not hold
//! up those behind it, and is first when there is.
//!
//! When nothing is under way and no host is expected back, those for which there is no place keep their turn, but their hosts give up
//! their places in the wave, and the next hosts begin. At the end they are reported as unplaced: that is a result, not an error.
//!
//! # Which host takes it
//! The one that was given, or the candidate that the placement chooses. Never a host that is dead, cut off, being drained, or drained
//! and not back. A host whose own turn is still to come takes guests only if the plan says so, and only those for which there is no other
//! place. Memory is the only limit: vCPUs share cores, and a simulation shows what that costs; memory cannot be shared.
//!
//! # Cost
//! An event costs a number of steps that grows with the logarithm of the number of hosts and of guests per host, times the number of
//! different hosts that a source's guests *must* go to, if that is given. Memory: 24 bytes per VM, some 100 per host, and some 50 more per
//! guest of the hosts that are being drained at the moment. Rates take 24 bytes per VM if they are told at all. A placement that
//! asks for traffic looks at hosts in its order until one has room.

mod admission;
mod events;
mod hosts;
mod loads;
mod plan;
mod rooms;
mod source;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use loads::Loads;
pub use plan::{HostIndex, Limits, Plan, PlanError, PlannedVm, VmIndex};
pub use rooms::Rooms;
pub use vocabulary::{Command, Event, Fate, HostReport, HostState, Left, NoPlace, Rates, Report, Whole};

use crate::policy::order::Order;
use crate::policy::placement::Placement;
use crate::units::{Rate, Time};
use hosts::{Candidates, Duty, Host};
use source::Source;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// In place of an index.
const NONE: u32 = u32::MAX;

/// In place of a number of failures: the VM is not to be moved any more.
const WITHDRAWN: u8 = u8::MAX;

/// Where a VM's migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is where it is, and its host's turn has not come.
    Rests,
    /// Its host is being drained and it waits.
    Pending,
    /// It migrates.
    Running,
    /// It migrates, and its source is released.
    Evicted,
    /// It is where it is, and has had its result.
    GivenUp,
}

/// A VM. Kept small: there are many.
#[derive(Clone, Debug)]
struct Guest {
    memory: u64,
    host: u32,
    /// Where it must go, or goes.
    to: u32,
    /// Its place in its source while that is drained; before, the next guest of the same host.
    link: u32,
    step: Step,
    /// `to` was given.
    given: bool,
    /// How often it has failed, or [`WITHDRAWN`].
    failures: u8,
}

/// The drain of some hosts; see the [module](self).
#[derive(Clone, Debug)]
pub struct Drain {
    hosts: Vec<Host>,
    guests: Vec<Guest>,
    rates: Vec<Rates>,
    drained: Vec<u32>,
    candidates: Candidates,
    /// The hosts that are being drained, by turn.
    sources: BTreeMap<u32, Source>,
    /// What hosts being drained could start, by turn: the least that a guest of theirs needs.
    startable: rooms::Needs,
    /// The turns with guests that must go to a host.
    bound_sources: BTreeMap<u32, Vec<u32>>,
    order: Order,
    placement: Placement,
    limits: Limits,
    onto_waiting: bool,
    returns: bool,
    retries: u8,
    rate_per_host: Option<Rate>,
    strategy: u16,
    via: Arc<[HostIndex]>,
    cancelled: bool,
    finished: bool,
    now: Time,
    /// The turn that comes next.
    next_turn: u32,
    /// Hosts that are being drained and have a place in the wave.
    in_wave: u32,
    /// Migrations under way.
    running: u32,
    /// Hosts that are expected to take guests again.
    expected: u32,
    whole: Whole,
    last_evicted: Option<Time>,
    commands: VecDeque<Command>,
    reports: VecDeque<Report>,
}

impl Drain {
    /// A drain that nothing has happened to.
    ///
    /// # Errors
    /// When the plan makes no sense.
    pub fn new(plan: Plan) -> Result<Drain, PlanError> {
        plan.check()?;
        let mut hosts: Vec<Host> = plan.hosts.iter().map(|&capacity| Host::new(capacity)).collect();
        let drained: Vec<u32> = plan.drained.iter().map(|h| h.0).collect();
        for (turn, &host) in drained.iter().enumerate() {
            let h = &mut hosts[host as usize];
            (h.turn, h.duty) = (turn as u32, Duty::Waits);
        }
        let guests = place(&plan.vms, &mut hosts);
        let listed = plan.candidates.iter().map(|h| h.0).collect();
        let candidates = Candidates::new(listed, drained.len(), &mut hosts, plan.placement.window().is_some());
        Ok(Drain {
            candidates,
            guests,
            rates: Vec::new(),
            sources: BTreeMap::new(),
            startable: rooms::Needs::none(drained.len()),
            bound_sources: BTreeMap::new(),
            drained,
            hosts,
            order: plan.order,
            placement: plan.placement,
            limits: plan.limits,
            onto_waiting: plan.onto_waiting,
            returns: plan.returns,
            retries: plan.retries,
            rate_per_host: plan.rate_per_host,
            strategy: plan.strategy,
            via: plan.via,
            cancelled: false,
            finished: false,
            now: Time::ZERO,
            next_turn: 0,
            in_wave: 0,
            running: 0,
            expected: 0,
            whole: Whole::default(),
            last_evicted: None,
            commands: VecDeque::new(),
            reports: VecDeque::new(),
        })
    }

    /// The next command, if there is one.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next result, if there is one.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Whether every turn is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.whole.requested.is_some()
            && self.next_turn as usize == self.drained.len()
            && self.sources.is_empty()
            && self.running == 0
    }

    /// The drain as a whole, so far.
    #[must_use]
    pub fn whole(&self) -> Whole {
        let all = self.whole.hosts_emptied as usize == self.drained.len();
        let emptied = self.last_evicted.or(self.whole.requested).filter(|_| all);
        Whole { emptied, ..self.whole }
    }

    /// A VM's rates as last told.
    #[must_use]
    pub fn rates(&self, vm: VmIndex) -> Rates {
        self.rates.get(vm.0 as usize).copied().unwrap_or_default()
    }
}

/// Enters the VMs in the books of their hosts.
fn place(vms: &[PlannedVm], hosts: &mut [Host]) -> Vec<Guest> {
    let mut guests = Vec::with_capacity(vms.len());
    for (i, vm) in vms.iter().enumerate() {
        let host = &mut hosts[vm.host.0 as usize];
        host.take(vm.memory.0);
        let link = if host.turn == NONE { NONE } else { std::mem::replace(&mut host.first, i as u32) };
        guests.push(Guest {
            memory: vm.memory.0,
            host: vm.host.0,
            to: vm.to.map_or(NONE, |to| to.0),
            link,
            step: Step::Rests,
            given: vm.to.is_some(),
            failures: 0,
        });
        if let Some(to) = vm.to {
            hosts[to.0 as usize].given = true;
        }
    }
    guests
}
