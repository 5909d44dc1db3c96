//! A drain in the simulator: its commands start migrations, and what becomes of them and of hosts is told to it.

use crate::drive::Drive;
use crate::engine::{Engine, Happening};
use crate::fidelity::Fidelity;
use livemig_core::drain::{Command, Drain, Event, HostIndex, HostReport, HostState, Rates, Report, VmIndex};
use livemig_core::ledger::Observation;
use livemig_core::machine::Outcome;
use livemig_core::policy::order::Order;
use livemig_core::units::{Rate, Span, Time};
use livemig_core::vocabulary;
use livemig_models::world::{DrainResult, HostId, Move, VmId, World};
use std::collections::{BTreeMap, VecDeque};

/// The drain of a run and what it has shown so far.
pub(crate) struct Draining {
    machine: Drain,
    /// What has happened at this instant and the drain was not yet told: it is told when everything else has been dealt with, so that a
    /// migration does not start in the middle of the end of another.
    inbox: VecDeque<Event>,
    /// How often migrations have failed of VMs that are to be moved again.
    failed: BTreeMap<VmId, u32>,
    /// Migrations that begin at this instant and whose techniques are chosen together.
    starting: Vec<u32>,
    returns_after: Option<Span>,
    result: DrainResult,
}

impl Draining {
    /// The drain that the scenario asks for.
    ///
    /// # Panics
    /// When it makes no sense, which reading a scenario finds out.
    pub(crate) fn of(world: &World) -> Option<Draining> {
        let drain = world.drain.as_ref()?;
        let machine = Drain::new(drain.plan(world)).expect("a drain that makes sense");
        Some(Draining {
            machine,
            inbox: VecDeque::new(),
            failed: BTreeMap::new(),
            starting: Vec::new(),
            returns_after: drain.returns_after,
            result: DrainResult::default(),
        })
    }
}

impl<F: Fidelity> Engine<'_, F> {
    /// Schedules the drain's request.
    pub(crate) fn schedule_drain(&mut self) {
        if let Some(drain) = &self.world.drain {
            self.queue.push(drain.at, Happening::DrainRequested);
        }
    }

    pub(crate) fn request_drain(&mut self) {
        let Some(drain) = &self.world.drain else { return };
        if drain.order == Order::LeastDirtyingFirst {
            for (i, vm) in self.world.vms.iter().enumerate() {
                let rates = Rates { dirty: vm.dirty_rate(), ..Rates::default() };
                self.tell_drain(Event::Rates { vm: VmIndex(i as u32), rates });
            }
        }
        self.tell_drain_of_traffic();
        self.tell_drain(Event::Requested);
    }

    /// The drain is told what guests and hosts send and receive, if it asks for that and as far as it is not what it knows.
    pub(crate) fn tell_drain_of_traffic(&mut self) {
        let Some(drain) = self.world.drain.as_ref().filter(|drain| drain.placement.window().is_some()) else { return };
        let measured = &self.last_measured;
        let Some(draining) = &mut self.draining else { return };
        for vm in 0..self.world.vms.len() as u32 {
            let both = measured.guests.get(&vm).copied().unwrap_or_default();
            let known = draining.machine.rates(VmIndex(vm));
            let rates = Rates {
                tx: Rate(both.tx),
                rx: Rate(both.rx),
                // What was told at the request is perhaps not heard yet.
                dirty: if drain.order == Order::LeastDirtyingFirst {
                    self.world.vms[vm as usize].dirty_rate()
                } else {
                    known.dirty
                },
            };
            if rates != known {
                draining.inbox.push_back(Event::Rates { vm: VmIndex(vm), rates });
            }
        }
        for host in 0..self.world.hosts.len() as u32 {
            let received = Rate(measured.hosts.get(&host).map_or(0.0, |both| both.rx));
            draining.inbox.push_back(Event::HostTraffic { host: HostIndex(host), received });
        }
    }

    /// Whether the drain has still something to do.
    pub(crate) fn drains(&self) -> bool {
        self.draining.as_ref().is_some_and(|d| !d.machine.is_over())
    }

    /// The drain is to be told something.
    pub(crate) fn tell_drain(&mut self, event: Event) {
        if let Some(draining) = &mut self.draining {
            draining.inbox.push_back(event);
        }
    }

    pub(crate) fn tell_drain_of_host(&mut self, host: HostId, state: HostState) {
        self.tell_drain(Event::HostState { host: HostIndex(host.0), state });
    }

    /// A migration has ended.
    pub(crate) fn tell_drain_of_ending(&mut self, m: u32, outcome: Outcome) {
        let (vm, drained) = (self.drives[m as usize].vm, self.drives[m as usize].drained);
        let Some(draining) = self.draining.as_mut().filter(|_| drained) else { return };
        if outcome == Outcome::Completed {
            draining.failed.remove(&vm);
        } else {
            *draining.failed.entry(vm).or_default() += 1;
        }
        draining.inbox.push_back(Event::ended(VmIndex(vm.0), outcome).expect("a migration that has ended is finished"));
    }

    /// Tells the drain what has happened and carries out what it says.
    pub(crate) fn serve_drain(&mut self) {
        let now = self.now;
        while let Some(draining) = &mut self.draining {
            let Some(event) = draining.inbox.pop_front() else {
                if self.request_starting() {
                    continue;
                }
                return;
            };
            draining.machine.handle(now, event);
            while let Some(command) = self.draining.as_mut().and_then(|d| d.machine.poll()) {
                self.execute_drain(&command);
            }
            self.collect_reports();
        }
    }

    fn collect_reports(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        while let Some(report) = draining.machine.poll_report() {
            if let (Report::Host(HostReport { host, emptied: Some(_), .. }), Some(after)) = (&report, draining.returns_after) {
                self.queue.push(self.now + after, Happening::HostReturns(HostId(host.0)));
            }
            draining.result.note(report);
        }
    }

    fn execute_drain(&mut self, command: &Command) {
        match command {
            Command::Start { vm, strategy: _, destination, via: _, rate } => {
                let source = self.guests[vm.0 as usize].host;
                let via = self.world.drain.as_ref().map(|drain| drain.stages(self.world, VmId(vm.0), source)).unwrap_or_default();
                let order = Move { vm: VmId(vm.0), to: HostId(destination.0), at: self.now, via };
                self.start_drained(&order, *rate);
            }
            Command::SetRate { vm, limit } => {
                if let Some(m) = self.drive_of[vm.0 as usize] {
                    self.drives[m as usize].allowance = Some(*limit);
                    self.cap_flows(m);
                }
            }
            Command::Cancel(vm) => {
                self.request_starting();
                if let Some(m) = self.drive_of[vm.0 as usize] {
                    self.tell(m, vocabulary::Event::Cancel);
                }
            }
        }
    }

    fn start_drained(&mut self, order: &Move, allowance: Option<Rate>) {
        let vm = order.vm.0 as usize;
        // A VM that is moved again is not observed any longer for the time before.
        if let Some(before) = self.drive_of[vm] {
            self.conclude(before);
        }
        let Some(drain) = &self.world.drain else { return };
        let source = self.guests[vm].host;
        let mut drive = Drive::new(order, source, &self.world.vms[vm], &self.strategy.spec, self.settings.timeline);
        drive.drained = true;
        drive.allowance = allowance;
        drive.attempt = 1 + self.draining.as_ref().and_then(|d| d.failed.get(&order.vm).copied()).unwrap_or(0);
        let m = self.add_drive(drive);
        self.begin_observation(m);
        self.drives[m as usize].session.observe(Observation::Queued(self.now.since(drain.at)));
        match &mut self.draining {
            Some(draining) if self.strategy.spec.selection.is_some() => draining.starting.push(m),
            _ => self.tell(m, vocabulary::Event::Requested),
        }
    }

    /// Requests the migrations that begin at this instant, when their techniques are chosen; false when there are none.
    fn request_starting(&mut self) -> bool {
        let Some(draining) = &mut self.draining else { return false };
        let starting = std::mem::take(&mut draining.starting);
        self.select_of(&starting);
        for &m in &starting {
            self.tell(m, vocabulary::Event::Requested);
        }
        !starting.is_empty()
    }

    /// A host that was drained is back in service, unless something has happened to it in the meantime.
    pub(crate) fn host_returns(&mut self, host: HostId) {
        if !self.down[host.0 as usize].dead {
            self.tell_drain_of_host(host, HostState::Returned);
        }
    }

    /// What the drain has shown.
    pub(crate) fn drain_result(&mut self, now: Time) -> Option<DrainResult> {
        if self.drains()
            && let Some(draining) = &mut self.draining
        {
            draining.machine.finish(now);
        }
        self.collect_reports();
        let draining = self.draining.take()?;
        Some(DrainResult { whole: draining.machine.whole(), ..draining.result })
    }
}
