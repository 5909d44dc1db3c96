//! A drain of real hosts: its commands begin migrations, and what becomes of them and of hosts is told to it.

use super::cast::Move;
use super::coordinator::{Coordinator, session};
use crate::agent::message::ToAgent;
use crate::error::ExecError;
use livemig_core::drain::{Command, Drain, Event, HostIndex, HostReport, HostState, Rates, Report, VmIndex};
use livemig_core::ledger::Observation;
use livemig_core::machine::{Outcome, Phase};
use livemig_core::policy::order::Order;
use livemig_core::units::{Rate, Span, Time};
use livemig_models::world::{DrainResult, HostId, VmId, World};
use std::collections::{BTreeMap, VecDeque};

/// The drain of a run and what it has shown so far. Its times are counted from the moment at which every guest runs.
#[derive(Debug)]
pub(super) struct Draining {
    machine: Drain,
    requested: bool,
    inbox: VecDeque<Event>,
    /// Its migrations under way, and whether it knows that the source is free.
    running: BTreeMap<usize, bool>,
    /// How often migrations of VMs have failed in a row.
    failed: BTreeMap<VmId, u32>,
    /// What migrations may send at most, by their number.
    allowances: BTreeMap<usize, Rate>,
    /// Hosts that are empty and take guests again at these times.
    returning: Vec<(Time, HostId)>,
    result: DrainResult,
}

impl Draining {
    /// The drain that the scenario asks for.
    ///
    /// # Panics
    /// When it makes no sense, which reading a scenario finds out.
    pub(super) fn of(world: &World) -> Option<Draining> {
        let drain = world.drain.as_ref()?;
        Some(Draining {
            machine: Drain::new(drain.plan(world)).expect("a drain that makes sense"),
            requested: false,
            inbox: VecDeque::new(),
            running: BTreeMap::new(),
            failed: BTreeMap::new(),
            allowances: BTreeMap::new(),
            returning: Vec::new(),
            result: DrainResult::default(),
        })
    }
}

impl Coordinator<'_> {
    /// Whether the drain has still something to do.
    pub(super) fn drains(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| !draining.machine.is_over())
    }

    /// When the drain has something to do that nobody reports.
    pub(super) fn drain_is_due(&self) -> Option<Time> {
        let draining = self.draining.as_ref()?;
        let request = self.cast.drain_at.filter(|_| !draining.requested).map(|at| self.began + at);
        let returns = draining.returning.iter().map(|(at, _)| self.began + at.since(Time::ZERO));
        returns.chain(request).min()
    }

    pub(super) fn tell_drain(&mut self, event: Event) {
        if let Some(draining) = &mut self.draining {
            draining.inbox.push_back(event);
        }
    }

    pub(super) fn tell_drain_of_host(&mut self, host: usize, state: HostState) {
        let id = self.cast.hosts[host].id;
        if (id.0 as usize) < self.world.hosts.len() {
            self.tell_drain(Event::HostState { host: HostIndex(id.0), state });
        }
    }

    /// Tells the drain what has happened, so long after the beginning, and carries out what it says.
    pub(super) fn serve_drain(&mut self, elapsed: Span) -> Result<(), ExecError> {
        if self.draining.is_none() {
            return Ok(());
        }
        self.look_at_drained();
        self.look_at_returning(elapsed);
        self.request_drain(elapsed);
        if self.draining.as_ref().is_some_and(|draining| !draining.inbox.is_empty()) {
            self.tell_drain_of_traffic();
        }
        while let Some(draining) = &mut self.draining
            && let Some(event) = draining.inbox.pop_front()
        {
            draining.machine.handle(Time::ZERO + elapsed, event);
            while let Some(command) = self.draining.as_mut().and_then(|draining| draining.machine.poll()) {
                self.carry_out(&command, elapsed)?;
            }
            self.collect_reports();
        }
        Ok(())
    }

    /// Sees which sources are free and which migrations have ended.
    fn look_at_drained(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        let mut ended = Vec::new();
        for (&index, evicted) in &mut draining.running {
            let course = &self.courses[index];
            let vm = VmIndex(course.order.vm.0);
            // What is gathered is none of the source's business.
            if !*evicted && course.shadow.phase() == Phase::Gather {
                *evicted = true;
                draining.inbox.push_back(Event::Evicted(vm));
            }
            if course.shadow.ended {
                ended.push((index, vm, course.shadow.ending().map_or(Outcome::Undecided, |ending| ending.outcome)));
            }
        }
        for (index, vm, outcome) in ended {
            draining.running.remove(&index);
            draining.allowances.remove(&index);
            if outcome == Outcome::Completed {
                draining.failed.remove(&VmId(vm.0));
            } else {
                *draining.failed.entry(VmId(vm.0)).or_default() += 1;
            }
            draining.inbox.extend(Event::ended(vm, outcome));
        }
    }

    /// Hosts that were drained are back in service, unless something has happened to them in the meantime.
    fn look_at_returning(&mut self, elapsed: Span) {
        let Some(draining) = &mut self.draining else { return };
        let (due, later) = std::mem::take(&mut draining.returning).into_iter().partition(|(at, _)| *at <= Time::ZERO + elapsed);
        draining.returning = later;
        let due: Vec<(Time, HostId)> = due;
        for (_, host) in due {
            if let Some(index) = self.cast.index(host).filter(|&index| !self.agents[index].gone) {
                self.tell_drain_of_host(index, HostState::Returned);
            }
        }
    }

    fn request_drain(&mut self, elapsed: Span) {
        let (Some(draining), Some(drain), Some(at)) = (&mut self.draining, &self.world.drain, self.cast.drain_at) else { return };
        if draining.requested || elapsed < at {
            return;
        }
        draining.requested = true;
        if drain.order == Order::LeastDirtyingFirst {
            for (vm, guest) in (0..).map(VmIndex).zip(&self.world.vms) {
                let rates = Rates { dirty: guest.dirty_rate(), ..Rates::default() };
                draining.machine.handle(Time::ZERO + elapsed, Event::Rates { vm, rates });
            }
        }
        self.tell_drain(Event::Requested);
    }

    /// The drain is told what guests and hosts send and receive, before anything else, if it asks for that.
    fn tell_drain_of_traffic(&mut self) {
        let Some(window) = self.world.drain.as_ref().and_then(|drain| drain.placement.window()) else { return };
        let now = self.clock.now();
        let measured = self.flows.measured(self.cast, window, now);
        let Some(draining) = &mut self.draining else { return };
        let at = Time::ZERO + now.since(self.began);
        for vm in (0..self.world.vms.len() as u32).map(VmIndex) {
            let both = measured.guests.get(&vm.0).copied().unwrap_or_default();
            let rates = Rates { tx: Rate(both.tx), rx: Rate(both.rx), ..draining.machine.rates(vm) };
            draining.machine.handle(at, Event::Rates { vm, rates });
        }
        for host in 0..self.world.hosts.len() as u32 {
            let received = Rate(measured.hosts.get(&host).map_or(0.0, |both| both.rx));
            draining.machine.handle(at, Event::HostTraffic { host: HostIndex(host), received });
        }
    }

    fn collect_reports(&mut self) {
        let (Some(draining), Some(drain)) = (&mut self.draining, &self.world.drain) else { return };
        while let Some(report) = draining.machine.poll_report() {
            if let (Report::Host(HostReport { host, emptied: Some(at), .. }), Some(after)) = (&report, drain.returns_after) {
                draining.returning.push((*at + after, HostId(host.0)));
            }
            draining.result.note(report);
        }
    }

    fn carry_out(&mut self, command: &Command, elapsed: Span) -> Result<(), ExecError> {
        match *command {
            Command::Start { vm, destination, rate, .. } => self.start_drained(VmId(vm.0), HostId(destination.0), rate, elapsed),
            Command::SetRate { vm, limit } => {
                let Some(index) = self.drained(vm) else { return Ok(()) };
                if let Some(draining) = &mut self.draining {
                    draining.allowances.insert(index, limit);
                }
                // One that has not been requested is told when it is.
                if self.courses[index].begun { self.tell_allowance(index) } else { Ok(()) }
            }
            Command::Cancel(vm) => {
                let Some(index) = self.drained(vm) else { return Ok(()) };
                self.select_due(elapsed);
                self.request(index)?;
                self.tell(self.courses[index].order.from, &ToAgent::Cancel { session: session(index) })
            }
        }
    }

    /// The migration of a VM that the drain has under way.
    fn drained(&self, vm: VmIndex) -> Option<usize> {
        let running = &self.draining.as_ref()?.running;
        running.keys().copied().find(|&index| self.courses[index].order.vm.0 == vm.0)
    }

    /// It is requested as soon as all that begin now are known.
    fn start_drained(&mut self, vm: VmId, to: HostId, rate: Option<Rate>, at: Span) -> Result<(), ExecError> {
        let unknown = || ExecError::Run("the drain wants a host that does not take part".to_owned());
        let Some(drain) = &self.world.drain else { return Ok(()) };
        let from = self.place_of(vm);
        let to = self.cast.index(to).ok_or_else(unknown)?;
        let via = if self.strategy.spec.uses_intermediaries() {
            drain.stages(self.world, vm, self.cast.hosts[from].id)
        } else {
            Vec::new()
        };
        let via = via.into_iter().map(|host| self.cast.index(host).ok_or_else(unknown)).collect::<Result<_, _>>()?;
        let attempt = 1 + self.draining.as_ref().and_then(|draining| draining.failed.get(&vm).copied()).unwrap_or(0);
        let queued = (Time::ZERO + at).since(Time::ZERO + self.cast.drain_at.unwrap_or(at));
        self.add_course(Move { vm, from, to, at }, via, attempt).shadow.observe(Observation::Queued(queued));
        let index = self.courses.len() - 1;
        if let Some(draining) = &mut self.draining {
            draining.running.insert(index, false);
            draining.allowances.extend(rate.map(|rate| (index, rate)));
        }
        Ok(())
    }

    /// Where a guest is, by what has become of its migrations.
    fn place_of(&self, vm: VmId) -> usize {
        let completed = |course: &&super::coordinator::Course| {
            course.order.vm == vm && course.shadow.ending().is_some_and(|ending| ending.outcome == Outcome::Completed)
        };
        let last = self.courses.iter().rev().find(completed);
        last.map_or(self.cast.guests[vm.0 as usize].host, |course| course.order.to)
    }

    /// Tells the agent that makes a migration what it may send at most, if the drain limits that.
    pub(super) fn tell_allowance(&mut self, index: usize) -> Result<(), ExecError> {
        let allowed = self.draining.as_ref().and_then(|draining| draining.allowances.get(&index).copied());
        let Some(rate) = allowed else { return Ok(()) };
        self.tell(self.courses[index].order.from, &ToAgent::Allow { session: session(index), rate })
    }

    /// What the drain has shown.
    pub(super) fn drain_result(&mut self, now: Time) -> Option<DrainResult> {
        let at = Time::ZERO + now.since(self.began);
        if self.drains()
            && let Some(draining) = &mut self.draining
        {
            draining.machine.finish(at);
        }
        self.collect_reports();
        let draining = self.draining.take()?;
        Some(DrainResult { whole: draining.machine.whole(), ..draining.result })
    }
}
