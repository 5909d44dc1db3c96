//! The event loop: takes what is due, lets migrations act on it, and settles the network once per instant.

use crate::carry::differs_little;
use crate::cores::HostCores;
use crate::dedup::Stored;
use crate::drain::Draining;
use crate::drive::{Drive, Task};
use crate::drives::Drives;
use crate::fidelity::{Fidelity, Lanes};
use crate::intermediaries::Stage;
use crate::memory::HostMemory;
use crate::network::{FlowId, Network};
use crate::placed::Placed;
use crate::queue::EventQueue;
use crate::traffic::TrafficFlow;
use crate::wiring::Wiring;
use crate::{FlowResult, MigrationResult, RunResult, Settings};
use livemig_core::dedup::ContentIndex;
use livemig_core::ledger::Observation;
use livemig_core::machine::Migration;
use livemig_core::policy::selection::Measured;
use livemig_core::strategy::Technique;
use livemig_core::units::{Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Event, Region};
use livemig_models::world::{HostId, Strategy, VmId, World};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::cell::RefCell;
use std::rc::Rc;

/// How long the application is observed after a migration has ended, so that perceived downtime can be told.
const OBSERVED_AFTER: Span = Span::from_secs(10);

/// How often, at one instant, the ways of migrations are weighed against each other.
const MOST_BALANCINGS: u32 = 16;

/// Something that is due.
#[derive(Debug)]
pub(crate) enum Happening<S> {
    /// A migration is requested.
    Request(u32),
    /// A migration that will be requested is announced.
    Announce(u32),
    /// A command of a migration has been carried out.
    Due(u32, CmdId, Task<S>),
    /// A migration's transfer is over.
    Arrived(u32),
    /// A condition that a migration watches for holds.
    Watch(u32),
    /// A migration wants to be woken.
    Wake(u32),
    /// A migration has been observed long enough.
    Observed(u32),
    /// A host has no free memory left.
    MemoryFull(HostId),
    /// An intermediary has no room left for pages.
    StageFull(HostId),
    /// What a migration can fetch from one of its intermediaries has been fetched.
    BacklogEmpty(u32),
    /// What a guest does with its memory or its disk enters the next phase.
    NextPhase(VmId, Region),
    /// Something of the scenario's `[[event]]` list.
    Incident(u32),
    /// Rates are measured from now on.
    Measure,
    /// The time over which the mean rate of a flow is taken is over.
    MeanOver(u32),
    /// The drain is requested.
    DrainRequested,
    /// A host that was drained takes guests again.
    HostReturns(HostId),
}

/// Who uses a flow of the network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Nobody,
    Migration(u32),
    Traffic(u32),
}

/// A flow of the network, as the engine sees it.
///
/// One event may change the rates of thousands of flows by next to nothing. For those whose migration need not act on that
/// ([`Engine::follow`]) everything that is needed stands here, side by side, and the migration is not looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    owner: Owner,
    /// The rate that the migration reckons with, in bytes per second; no number while it wants to know of every change.
    planned: f64,
    /// While it need not know: the rate, bytes carried until `noted`, and when that was.
    pub(crate) rate: f64,
    pub(crate) carried: f64,
    pub(crate) noted: Time,
}

impl Line {
    const UNUSED: Line = Line { owner: Owner::Nobody, planned: f64::NAN, rate: 0.0, carried: 0.0, noted: Time::ZERO };

    /// Takes a rate that makes little difference; false when the owner has to be told.
    fn takes(&mut self, now: Time, rate: f64) -> bool {
        let little = differs_little(rate, self.planned);
        if little {
            self.carried += self.rate * now.since(self.noted).as_secs_f64();
            (self.noted, self.rate) = (now, rate);
        }
        little
    }

    /// From now on it takes what makes little difference.
    pub(crate) fn follow(&mut self, planned: f64, rate: f64, carried: f64, noted: Time) {
        *self = Line { planned, rate, carried, noted, ..*self };
    }

    /// From now on it takes nothing.
    pub(crate) fn stop_following(&mut self) -> Line {
        std::mem::replace(self, Line { owner: self.owner, ..Line::UNUSED })
    }
}

pub(crate) struct Engine<'a, F: Fidelity> {
    pub(crate) world: &'a World,
    pub(crate) strategy: &'a Strategy,
    pub(crate) settings: Settings,
    pub(crate) now: Time,
    pub(crate) queue: EventQueue<Happening<F::Set>>,
    pub(crate) net: Network,
    pub(crate) wiring: Wiring,
    pub(crate) lines: Vec<Line>,
    pub(crate) guests: Vec<Placed<F::Guest>>,
    pub(crate) memory: Vec<HostMemory>,
    pub(crate) stages: Vec<Stage>,
    /// What intermediaries store, by content, where pages have an identity.
    pub(crate) stored: Stored,
    pub(crate) cores: Vec<HostCores>,
    pub(crate) down: Vec<HostState>,
    pub(crate) drives: Drives<F>,
    /// The migration of each VM that has one whose result is still to come.
    pub(crate) drive_of: Vec<Option<u32>>,
    pub(crate) traffic: Vec<TrafficFlow>,
    /// Since when its rates are measured.
    pub(crate) measured_since: Time,
    /// What was measured in the last whole window; in drains.
    pub(crate) last_measured: Measured,
    /// Which of them are the scenario's flows.
    pub(crate) listed: std::ops::Range<usize>,
    /// The traffic flows of each VM.
    pub(crate) traffic_of: Vec<Vec<u32>>,
    /// Migrations whose flows have nothing to carry at this instant.
    pub(crate) loose: Vec<u32>,
    /// Migrations with several ways whose rates have changed.
    pub(crate) unbalanced: Vec<u32>,
    /// Hosts short of cores whose migrations send at other rates.
    pub(crate) strained: Vec<HostId>,
    pub(crate) net_changed: bool,
    pub(crate) rng: Pcg64Mcg,
    pub(crate) draining: Option<Draining>,
    /// Takes the results, each with the migration's number.
    take: &'a mut dyn FnMut(u32, MigrationResult),
    changed: Vec<(FlowId, f64)>,
    /// Whether a migration has been requested.
    pub(crate) requested: bool,
    /// Flows whose own time of measurement has begun and is not over.
    pub(crate) means_under_way: usize,
    /// Migrations whose results are still to come.
    unfinished: usize,
    events: u64,
}

/// Whether a host can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostState {
    pub(crate) dead: bool,
    pub(crate) cut: bool,
}

impl<'a, F: Fidelity> Engine<'a, F> {
    pub(crate) fn new(
        world: &'a World,
        strategy: &'a Strategy,
        settings: Settings,
        take: &'a mut dyn FnMut(u32, MigrationResult),
    ) -> Engine<'a, F> {
        let mut net = Network::with_tolerance(settings.rate_tolerance);
        let wiring = Wiring::new(world, &mut net);
        let mut engine = Engine {
            world,
            strategy,
            settings,
            now: Time::ZERO,
            queue: EventQueue::new(),
            net,
            wiring,
            lines: Vec::new(),
            guests: Vec::with_capacity(world.vms.len()),
            memory: Vec::new(),
            stages: Stage::of(world),
            stored: Rc::new(RefCell::new(vec![ContentIndex::default(); world.hosts.len()])),
            cores: HostCores::of(world),
            down: vec![HostState::default(); world.hosts.len()],
            drives: Drives::with_capacity(world.moves.len()),
            drive_of: vec![None; world.vms.len()],
            traffic: Vec::new(),
            measured_since: Time::ZERO,
            last_measured: Measured::default(),
            listed: 0..0,
            traffic_of: vec![Vec::new(); world.vms.len()],
            loose: Vec::new(),
            unbalanced: Vec::new(),
            strained: Vec::new(),
            net_changed: false,
            rng: Pcg64Mcg::seed_from_u64(settings.seed),
            draining: Draining::of(world),
            take,
            changed: Vec::new(),
            requested: false,
            means_under_way: 0,
            unfinished: 0,
            events: 0,
        };
        engine.place_guests();
        engine.memory = HostMemory::of(world, &engine.wiring);
        engine.share_cores_at_start();
        engine.start_traffic();
        engine.schedule();
        engine
    }

    fn place_guests(&mut self) {
        for (i, vm) in self.world.vms.iter().enumerate() {
            let placed = Placed::new(vm, self.settings.seed.wrapping_add(i as u64));
            self.guests.push(placed);
            let disk = vm.disk.as_ref().map(|disk| (Region::Disk, &disk.workload));
            for (region, workload) in [(Region::Memory, &vm.workload)].into_iter().chain(disk) {
                if let (_, Some(change)) = workload.phase_at(Span::ZERO) {
                    self.queue.push(Time::ZERO + change, Happening::NextPhase(VmId(i as u32), region));
                }
            }
        }
    }

    fn schedule(&mut self) {
        for (i, m) in self.world.moves.iter().enumerate() {
            let source = self.world.vms[m.vm.0 as usize].host;
            let vm = &self.world.vms[m.vm.0 as usize];
            self.add_drive(Drive::new(m, source, vm, &self.strategy.spec, self.settings.timeline));
            if self.strategy.spec.ahead.is_some() && m.at > Time::ZERO {
                self.queue.push(Time::ZERO, Happening::Announce(i as u32));
            }
            self.queue.push(m.at, Happening::Request(i as u32));
        }
        for (i, event) in self.world.events.iter().enumerate() {
            self.queue.push(event.at, Happening::Incident(i as u32));
        }
        self.schedule_measuring();
        self.schedule_drain();
    }

    /// Takes a migration into the run.
    pub(crate) fn add_drive(&mut self, drive: Drive<F>) -> u32 {
        let vm = drive.vm.0 as usize;
        let m = self.drives.add(drive);
        self.drive_of[vm] = Some(m);
        self.unfinished += 1;
        m
    }

    /// Whether something is still to come: the result of a migration, a drain's next step, or the end of a flow's time.
    fn goes_on(&self) -> bool {
        self.unfinished > 0 || self.drains() || self.means_under_way > 0
    }

    /// Runs until every migration has ended and been observed and every flow has been measured, or until the horizon.
    pub(crate) fn run(mut self) -> RunResult {
        let horizon = Time::ZERO + self.settings.horizon;
        self.settle();
        while self.goes_on() {
            let Some(at) = self.queue.peek_time().filter(|&at| at <= horizon) else { break };
            debug_assert!(at >= self.now, "time goes forward");
            self.now = at;
            while self.queue.peek_time() == Some(at) {
                let Some((_, happening)) = self.queue.pop() else { break };
                self.events += 1;
                self.dispatch(happening);
                self.serve_drain();
            }
            self.settle();
        }
        if self.goes_on() {
            self.now = horizon;
        }
        self.results()
    }

    fn dispatch(&mut self, happening: Happening<F::Set>) {
        match happening {
            // What was announced may have failed before the request comes.
            Happening::Request(m) if !self.drives.has(m) || self.drives[m as usize].session.ending().is_some() => {}
            Happening::Request(m) => {
                self.select_together(m);
                self.begin_observation(m);
                self.tell(m, Event::Requested);
            }
            Happening::Announce(m) => {
                self.sync(m);
                self.tell(m, Event::Prepare);
            }
            Happening::Due(m, ..) | Happening::Observed(m) if !self.drives.has(m) => {}
            Happening::Due(m, id, task) => self.due(m, id, task),
            Happening::Arrived(m) => self.arrived(m),
            Happening::Watch(m) => self.watch_tick(m),
            Happening::Wake(m) => self.wake(m),
            Happening::Observed(m) => self.conclude(m),
            Happening::MemoryFull(host) => self.memory_full(host),
            Happening::StageFull(host) => self.stage_full(host),
            Happening::BacklogEmpty(m) => self.backlog_empty(m),
            Happening::NextPhase(vm, region) => self.next_phase(vm, region),
            Happening::Incident(i) => self.incident(i),
            Happening::Measure => self.begin_measuring(),
            Happening::MeanOver(t) => self.end_mean(t),
            Happening::DrainRequested => self.request_drain(),
            Happening::HostReturns(host) => self.host_returns(host),
        }
    }

    /// Gives unused flows back and spreads the new rates.
    fn settle(&mut self) {
        let mut balanced = 0;
        loop {
            while let Some(m) = self.loose.pop() {
                self.drop_unused_flows(m);
            }
            if !self.net_changed {
                while let Some(host) = self.strained.pop() {
                    self.feel_load(host);
                }
                return;
            }
            self.net_changed = false;
            let mut changed = std::mem::take(&mut self.changed);
            self.net.solve(|flow, _, new| changed.push((flow, new)));
            for (flow, rate) in changed.drain(..) {
                let line = &mut self.lines[flow.index()];
                if line.takes(self.now, rate) {
                    continue;
                }
                match line.owner {
                    Owner::Nobody => {}
                    Owner::Migration(m) => self.rate_changed(m, flow, rate),
                    Owner::Traffic(t) => self.traffic[t as usize].set_rate(self.now, rate),
                }
            }
            self.changed = changed;
            // Weights that are not at their fixed point by then are near it.
            balanced += 1;
            while let Some(m) = self.unbalanced.pop() {
                if balanced <= MOST_BALANCINGS {
                    self.balance_ways(m);
                }
            }
        }
    }

    /// Reserves a flow in the network.
    pub(crate) fn add_flow(&mut self, links: &[crate::network::LinkId], weight: f64, cap: Option<f64>, owner: Owner) -> FlowId {
        let flow = self.net.add_flow(links, weight, cap);
        if self.lines.len() <= flow.index() {
            self.lines.resize(flow.index() + 1, Line::UNUSED);
        }
        self.lines[flow.index()] = Line { owner, ..Line::UNUSED };
        self.net_changed = true;
        flow
    }

    pub(crate) fn remove_flow(&mut self, flow: FlowId) {
        self.net.remove_flow(flow);
        self.lines[flow.index()] = Line::UNUSED;
        self.net_changed = true;
    }

    /// Tells a migration what has happened and carries out what it says.
    pub(crate) fn tell(&mut self, m: u32, event: Event<F::Set>) {
        let drive = &mut self.drives[m as usize];
        let refused = drive.session.handle(self.now, event).is_err();
        // The simulated hosts keep to the protocol; what is refused is a cancel that comes too late.
        debug_assert!(!refused || drive.session.phase() > livemig_core::machine::Phase::LiveCopy);
        self.obey(m);
    }

    fn wake(&mut self, m: u32) {
        self.drives[m as usize].wake_key = None;
        self.drives[m as usize].session.wake(self.now);
        self.obey(m);
    }

    /// Carries out a migration's commands until it has no more.
    fn obey(&mut self, m: u32) {
        while let Some((id, command)) = self.drives[m as usize].session.poll() {
            self.execute(m, id, command);
        }
        self.set_alarm(m);
        let drive = &mut self.drives[m as usize];
        if let Some(ending) = drive.session.ending().filter(|_| !drive.over) {
            drive.over = true;
            self.tell_drain_of_ending(m, ending.outcome);
            self.abandon_transfers(m);
            self.extend_means();
            self.queue.push(self.now + OBSERVED_AFTER, Happening::Observed(m));
        }
    }

    fn set_alarm(&mut self, m: u32) {
        let drive = &mut self.drives[m as usize];
        let deadline = drive.session.deadline();
        if deadline == drive.wake_key.and_then(|key| self.queue.time_of(key)) {
            return;
        }
        if let Some(key) = drive.wake_key.take() {
            self.queue.cancel(key);
        }
        drive.wake_key = deadline.map(|at| self.queue.push(at.max(self.now), Happening::Wake(m)));
    }

    pub(crate) fn begin_observation(&mut self, m: u32) {
        self.sync(m);
        let now = self.now;
        self.drives[m as usize].observed = true;
        self.drives[m as usize].session.observe(Observation::WorkBegins(now));
        if !std::mem::replace(&mut self.requested, true) {
            self.begin_means();
        }
    }

    /// The observation of a migration is over: hands its result over and forgets it.
    pub(crate) fn conclude(&mut self, m: u32) {
        self.sync(m);
        self.drop_unused_flows(m);
        let now = self.now;
        let Some(mut drive) = self.drives.take(m) else { return };
        self.unfinished -= 1;
        let vm = drive.vm.0 as usize;
        self.drive_of[vm] = self.drive_of[vm].filter(|&current| current != m);
        for (send, sent) in drive.carrier.under_way(&self.guests[vm]) {
            drive.session.observe(Observation::Progress { send, sent });
        }
        let metrics = drive.session.finish(now);
        let result = MigrationResult {
            vm: drive.vm,
            source: drive.source,
            destination: drive.destination,
            attempt: drive.attempt,
            technique: drive.session.migration().technique().map_or(self.strategy.preset, Technique::name),
            rounds: drive.session.take_rounds(),
            timeline: drive.session.take_timeline(),
            metrics,
        };
        (self.take)(m, result);
    }

    fn results(mut self) -> RunResult {
        for m in self.drives.numbers().collect::<Vec<_>>() {
            self.conclude(m);
        }
        self.end_means_under_way();
        let drain = self.drain_result(self.now);
        RunResult { migrations: Vec::new(), flows: self.flow_results(), drain, ended: self.now, events: self.events }
    }

    /// What the scenario's flows have carried.
    fn flow_results(&self) -> Vec<FlowResult> {
        let listed = self.traffic[self.listed.clone()].iter().filter_map(|t| t.listed.map(|index| (index, t)));
        let result = |(i, t): (u32, &TrafficFlow)| FlowResult {
            name: self.world.flows[i as usize].name.clone(),
            mean: Rate(t.mean()),
            before: t.mean_before().map(Rate),
        };
        listed.map(result).collect()
    }

    /// A migration and its guest, brought to the present.
    pub(crate) fn sync(&mut self, m: u32) {
        self.stop_following(m);
        let drive = &mut self.drives[m as usize];
        let placed = &mut self.guests[drive.vm.0 as usize];
        let (observed, session) = (drive.observed, &mut drive.session);
        let (front, lanes) = drive.carrier.bring(drive.watcher.as_mut(), drive.gathering.lanes(), self.now);
        placed.advance::<F>(front, &lanes, self.now, &mut |o| {
            if observed {
                session.observe(o);
            }
        });
    }

    /// A guest, and its migration if it has one, brought to the present.
    pub(crate) fn sync_guest(&mut self, vm: VmId) {
        match self.drive_of[vm.0 as usize] {
            Some(m) => self.sync(m),
            None => self.guests[vm.0 as usize].advance::<F>(None, &Lanes::NONE, self.now, &mut |_| {}),
        }
    }
}
