//! The coordinator: it starts agents, orders what the scenario wants, and follows what happens.

use super::cast::{Cast, Mishap, Move};
use super::draining::Draining;
use super::launch::{Agent, News, set_clock, unexpected};
use super::shadow::Shadow;
use super::traffic::Flows;
use super::work::Work;
use super::{MigrationResult, Options, RunResult};
use crate::agent::message::{FromAgent, Migrate, ToAgent};
use crate::clock::Clock;
use crate::error::ExecError;
use crate::net::{Fabric, cables};
use crate::wire::auth::Key;
use crate::wire::dial::Way;
use livemig_core::drain::{self, VmIndex};
use livemig_core::ledger::Observation;
use livemig_core::machine::Phase;
use livemig_core::strategy::Technique;
use livemig_core::units::{Span, Time};
use livemig_models::world::{Strategy, World};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// One migration of the run.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) order: Move,
    /// The hosts that stage its pages.
    pub(super) via: Vec<usize>,
    /// 1; more when the drain makes it again.
    pub(super) attempt: u32,
    pub(super) shadow: Shadow,
    /// The source agent knows of it.
    pub(super) begun: bool,
    requested: bool,
    /// It goes on at the destination, without the source.
    pub(super) handed_over: bool,
    /// What the destination has said of how it goes on, before all was heard that the source has to say.
    pub(super) early: Vec<FromAgent>,
    baseline_gap: Option<Span>,
    /// Since when it is known to have ended, and whether the guest's gap has been taken.
    pub(super) ended_at: Option<Instant>,
    pub(super) gap_taken: bool,
    /// The guest has been seen at the destination: what the source counts is not its progress any more.
    pub(super) moved: bool,
    pub(super) lost_pages: u64,
    /// What a selection has chosen.
    pub(super) technique: Option<Technique>,
}

impl Course {
    /// The guest's longest gap since the migration began.
    pub(super) fn take_gap(&mut self, gap: Span) {
        self.gap_taken = true;
        self.shadow.observe(Observation::GuestGap(gap));
    }
}

/// A run under way.
#[derive(Debug)]
pub(super) struct Coordinator<'a> {
    pub(super) world: &'a World,
    pub(super) cast: &'a Cast,
    pub(super) strategy: &'a Strategy,
    pub(super) options: &'a Options,
    pub(super) clock: Clock,
    pub(super) agents: Vec<Agent>,
    /// The network that hosts are in, unless it is this machine's loopback.
    pub(super) fabric: Option<Fabric>,
    pub(super) news: mpsc::Receiver<(usize, News)>,
    pub(super) courses: Vec<Course>,
    /// The progress of every guest, of which migrations take their baselines.
    pub(super) progress: Vec<Work>,
    pub(super) draining: Option<Draining>,
    mishaps: usize,
    pub(super) warnings: Vec<String>,
    clock_error: Span,
    /// Hosts that are killed when a migration is first seen in a phase.
    pub(super) strikes: Vec<(Phase, usize)>,
    /// Where hosts that take guests in are reached, and those that stage pages, and the key that they ask for.
    destinations: Vec<Option<Way>>,
    stages: Vec<Option<Way>>,
    pub(super) key: Option<Key>,
    /// Where hosts are reached, those that take anything in, whatever route migrations take.
    pub(super) doors: Vec<Option<Way>>,
    pub(super) flows: Flows,
    /// Since when every guest runs.
    pub(super) began: Time,
}

impl<'a> Coordinator<'a> {
    /// Starts agents and guests.
    pub(super) fn start(
        (world, cast): (&'a World, &'a Cast),
        strategy: &'a Strategy,
        options: &'a Options,
        fabric: Option<Fabric>,
    ) -> Result<Coordinator<'a>, ExecError> {
        let (sender, news) = mpsc::channel();
        let mut agents = Vec::new();
        for (index, host) in cast.hosts.iter().enumerate() {
            let place = fabric.as_ref().map(|fabric| fabric.namespace(index));
            agents.push(match &options.lab {
                Some(lab) => Agent::reach(&host.name, lab, index, &sender)?,
                None => Agent::start(&host.name, &options.launch, index, &sender, place)?,
            });
        }
        let placement = world.drain.as_ref().and_then(|drain| drain.placement.window());
        let selection = strategy.spec.selection.map(|policy| policy.window());
        let window = placement.max(selection).unwrap_or(Span::ZERO);
        let strikes = options.strikes.iter().filter_map(|&(phase, host)| Some((phase, cast.index(host)?)));
        let mut coordinator = Coordinator {
            world,
            cast,
            strategy,
            options,
            clock: Clock::starting_now(),
            agents,
            fabric,
            news,
            courses: Vec::new(),
            progress: vec![Work::default(); cast.guests.len()],
            draining: Draining::of(world),
            mishaps: 0,
            warnings: Vec::new(),
            clock_error: Span::ZERO,
            strikes: strikes.collect(),
            destinations: Vec::new(),
            stages: Vec::new(),
            key: None,
            doors: Vec::new(),
            flows: Flows::of(cast, window),
            began: Time::ZERO,
        };
        for (&order, via) in cast.moves.iter().zip(&cast.via) {
            coordinator.add_course(order, via.clone(), 1);
        }
        coordinator.set_up()?;
        Ok(coordinator)
    }

    /// There is one more migration to be made.
    pub(super) fn add_course(&mut self, order: Move, via: Vec<usize>, attempt: u32) -> &mut Course {
        let memory = self.cast.guests[order.vm.0 as usize].spec.memory;
        let spec = self.strategy.spec.clone();
        self.courses.push(Course {
            shadow: Shadow::new(spec, (memory, via.len()), self.options.timeline),
            order,
            via,
            attempt,
            begun: false,
            requested: false,
            handed_over: false,
            early: Vec::new(),
            baseline_gap: None,
            ended_at: None,
            gap_taken: false,
            moved: false,
            lost_pages: 0,
            technique: None,
        });
        self.courses.last_mut().expect("it was added")
    }

    fn set_up(&mut self) -> Result<(), ExecError> {
        let clock = self.clock;
        for index in 0..self.agents.len() {
            let error = set_clock(clock, |message| self.ask(index, message))?;
            // Two clocks may be wrong in opposite directions.
            self.clock_error = self.clock_error.max(Span(error.0 * 2));
        }
        let key = Key::generate().map_err(|source| ExecError::Kernel { call: "reading random bytes", source })?;
        self.destinations = vec![None; self.agents.len()];
        self.stages = vec![None; self.agents.len()];
        self.doors = vec![None; self.agents.len()];
        let through = |route: Option<&super::Route>, way: &Way| match route {
            Some(route) => Way { to: route(way.to), ..way.clone() },
            None => way.clone(),
        };
        for index in 0..self.agents.len() {
            let (takes_in, stages) = (self.cast.takes_in(index), self.cast.stages(index));
            if takes_in || stages || self.cast.is_reached_by_traffic(index) {
                let way = self.listen_at(index, key)?;
                self.doors[index] = Some(way.clone());
                self.destinations[index] = takes_in.then(|| through(self.options.route.as_ref(), &way));
                self.stages[index] = stages.then(|| through(self.options.via_route.as_ref(), &way));
            }
        }
        for guest in &self.cast.guests {
            self.ask(guest.host, &ToAgent::Host { vm: guest.vm.0, spec: guest.spec.to_bytes(), windows: self.cast.windows })?;
        }
        self.key = Some(key);
        self.began = self.clock.now();
        self.flows.begin(self.began);
        self.open_flows()
    }

    /// Follows the run to its end.
    pub(super) fn run(mut self) -> Result<RunResult, ExecError> {
        let horizon = self.began + self.options.horizon;
        while (self.drains() || self.ended() < self.courses.len() || self.flows.end_means(&self.cast.flows, self.clock.now()))
            && self.clock.now() < horizon
        {
            let ended = self.ended();
            self.act()?;
            self.listen(self.patience(horizon))?;
            self.take_gaps()?;
            if self.ended() > ended {
                self.flows.extend_means(&self.cast.flows, self.clock.now());
            }
        }
        self.take_last_gaps()?;
        let until = self.clock.now() + self.options.observe;
        while self.clock.now() < until {
            self.listen(Duration::from_nanos(until.since(self.clock.now()).0))?;
        }
        let ended = self.clock.now();
        let reports = self.verify()?;
        let mut migrations = Vec::new();
        for (course, report) in self.courses.iter_mut().zip(reports) {
            let m = course.order;
            let (metrics, rounds, timeline) = course.shadow.finish(ended);
            migrations.push(MigrationResult {
                vm: m.vm,
                source: self.cast.hosts[m.from].id,
                destination: self.cast.hosts[m.to].id,
                attempt: course.attempt,
                technique: course.technique.map_or(self.strategy.preset, Technique::name),
                metrics,
                rounds,
                timeline,
                baseline_gap: course.baseline_gap,
                report,
                lost_pages: course.lost_pages,
                commands: course.shadow.compared,
            });
        }
        let (clock_error, warnings) = (self.clock_error, std::mem::take(&mut self.warnings));
        let flows = self.flows.results(&self.cast.flows, ended);
        let drain = self.drain_result(ended);
        Ok(RunResult { migrations, drain, flows, ended: ended.since(self.began), clock_error, warnings })
    }

    /// How many migrations have ended.
    fn ended(&self) -> usize {
        self.courses.iter().filter(|course| course.shadow.ended).count()
    }

    /// How long nothing needs to be done unless an agent says something.
    fn patience(&self, horizon: Time) -> Duration {
        let open = |&index: &usize| !self.courses[index].requested && !self.must_wait(index);
        let requests = (0..self.courses.len()).filter(open).map(|index| self.began + self.courses[index].order.at);
        let mishap = self.cast.mishaps.get(self.mishaps).map(|(at, _)| self.began + *at);
        let next = requests.chain(mishap).chain(self.drain_is_due()).min().unwrap_or(horizon);
        Duration::from_nanos(next.since(self.clock.now()).0)
    }

    /// Whether a migration is to be requested, so long after the beginning.
    pub(super) fn is_due(&self, index: usize, elapsed: Span) -> bool {
        let course = &self.courses[index];
        !course.requested && !course.shadow.ended && elapsed >= self.courses[index].order.at && !self.must_wait(index)
    }

    /// Whether an earlier migration of the same VM has not ended.
    fn must_wait(&self, index: usize) -> bool {
        let same = |earlier: &usize| self.courses[*earlier].order.vm == self.courses[index].order.vm;
        (0..index).filter(same).any(|earlier| !self.courses[earlier].shadow.ended)
    }

    /// Does what is due.
    fn act(&mut self) -> Result<(), ExecError> {
        let elapsed = self.clock.now().since(self.began);
        self.serve_drain(elapsed)?;
        self.select_due(elapsed);
        for index in 0..self.courses.len() {
            let m = self.courses[index].order;
            let session = session(index);
            if self.courses[index].shadow.ended || self.must_wait(index) {
                continue;
            }
            if !self.courses[index].begun && self.strategy.spec.ahead.is_some() {
                // Preparation has all the time there is before the request, but for a moment that gives a baseline.
                if elapsed >= Span(m.at.0 / 5) {
                    self.begin(index)?;
                    self.agents[m.from].tell(&ToAgent::Prepare { session })?;
                }
            }
            if self.is_due(index, elapsed) {
                self.request(index)?;
            }
        }
        while let Some(&(at, mishap)) = self.cast.mishaps.get(self.mishaps).filter(|(at, _)| *at <= elapsed) {
            debug_assert!(at <= elapsed);
            self.mishaps += 1;
            match mishap {
                Mishap::Kill(host) => self.agents[host].kill(),
                Mishap::Cut(host) => self.pull_cables(host, true)?,
                Mishap::Restore(host) => self.pull_cables(host, false)?,
                Mishap::Offer(flow, rate) => self.offer(flow, rate)?,
                Mishap::Cancel(index) => {
                    let from = self.courses[index].order.from;
                    self.agents[from].tell(&ToAgent::Cancel { session: session(index) })?;
                }
                Mishap::Withdraw(vm) => self.tell_drain(drain::Event::Withdrawn(VmIndex(vm.0))),
                Mishap::Load(guest, phase) => self.change_load(guest, phase),
            }
        }
        Ok(())
    }

    /// Requests a migration, unless that has been done.
    pub(super) fn request(&mut self, index: usize) -> Result<(), ExecError> {
        if !self.courses.iter().any(|course| course.requested) {
            self.flows.begin_means(self.clock.now());
        }
        if std::mem::replace(&mut self.courses[index].requested, true) {
            return Ok(());
        }
        if !self.courses[index].begun {
            self.begin(index)?;
        }
        self.tell_allowance(index)?;
        self.tell_technique(index)?;
        self.agents[self.courses[index].order.from].tell(&ToAgent::Request { session: session(index) })
    }

    /// The source agent gets ready, and the guest is observed from now on; what it did so far is the baseline.
    fn begin(&mut self, index: usize) -> Result<(), ExecError> {
        let m = self.courses[index].order;
        let destination = self.destinations[m.to].as_ref().ok_or_else(unexpected)?;
        let (ways, key) = (self.ways(m, destination), self.key.ok_or_else(unexpected)?);
        let stage = |&host: &usize| {
            let way = self.stages[host].as_ref().ok_or_else(unexpected)?;
            Ok((self.leaving(m.from, way), self.leaving(m.to, way)))
        };
        let via = self.courses[index].via.iter().map(stage).collect::<Result<_, _>>()?;
        let migrate = Migrate { session: session(index), vm: m.vm.0, spec: self.strategy.spec.clone(), ways, key, via };
        self.ask(m.from, &ToAgent::Migrate(Box::new(migrate)))?;
        self.courses[index].begun = true;
        if let FromAgent::Gap { gap } = self.ask(m.from, &ToAgent::TakeGap { vm: m.vm.0 })? {
            // Right after another migration of the same guest it is that one's.
            let mut before = self.courses[..index].iter_mut().rev().filter(|course| course.order.vm == m.vm && course.begun);
            match before.next().filter(|before| !before.gap_taken) {
                Some(before) => before.take_gap(gap),
                None => self.courses[index].baseline_gap = Some(gap),
            }
        }
        let now = self.clock.now();
        let shadow = &mut self.courses[index].shadow;
        shadow.work = self.progress[m.vm.0 as usize].clone();
        if let Some(begins) = shadow.work.begin(now) {
            shadow.observe(begins);
        }
        Ok(())
    }

    /// Has a host listen for those who know the key; where others reach it.
    fn listen_at(&mut self, host: usize, key: Key) -> Result<Way, ExecError> {
        let mut limits = self.cast.hosts[host].limits;
        let mut any = SocketAddr::new(IpAddr::V4(cables::address(host)), 0);
        if self.fabric.is_some() {
            // The network holds the limit of what it receives.
            limits.reception = None;
            any.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        let FromAgent::Listening { mut address } = self.ask(host, &ToAgent::Listen { address: any, key, limits })? else {
            return Err(unexpected());
        };
        if let Some(fabric) = &self.fabric {
            address.set_ip(fabric.address(host));
        }
        Ok(self.agents[host].found_at(address))
    }

    /// The way of one connection between hosts, to where the other one listens; `choice` says by which NICs.
    pub(super) fn one_way(&self, hosts: (usize, usize), door: &Way, choice: usize) -> Way {
        let over_nics = self.fabric.as_ref().and_then(|fabric| fabric.ways(hosts, door.to.port(), 1, choice).pop());
        over_nics.unwrap_or_else(|| self.leaving(hosts.0, door))
    }

    /// A way, as a host takes it: on loopback it leaves from the host's own address.
    fn leaving(&self, host: usize, way: &Way) -> Way {
        let own = (self.fabric.is_none() && self.options.lab.is_none()).then(|| cables::address(host).into());
        Way { from: own.or(way.from), ..way.clone() }
    }

    /// By which ways a migration's connections go.
    fn ways(&self, m: Move, destination: &Way) -> Vec<Way> {
        let transfer = &self.strategy.spec.transfer;
        let most = transfer.channels.nics.unwrap_or(u16::MAX).min(transfer.streams);
        self.fabric.as_ref().map_or_else(
            || vec![self.leaving(m.from, destination)],
            |fabric| fabric.ways((m.from, m.to), destination.to.port(), usize::from(most), m.vm.0 as usize),
        )
    }
}

pub(super) fn session(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX - 1) + 1
}
