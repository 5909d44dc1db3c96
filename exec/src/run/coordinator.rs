//! The coordinator: it starts agents, orders what the scenario wants, and follows what happens.

use super::cast::{Cast, Mishap};
use super::launch::{Agent, News, set_clock, unexpected};
use super::shadow::Shadow;
use super::work::Work;
use super::{MigrationResult, Options, RunResult};
use crate::agent::message::{FromAgent, Migrate, ToAgent};
use crate::clock::Clock;
use crate::error::ExecError;
use crate::verify::Report;
use crate::wire::auth::Key;
use crate::wire::frame::SILENCE;
use livemig_core::ledger::Observation;
use livemig_core::machine::{Outcome, Phase};
use livemig_core::units::{Span, Time};
use livemig_core::vocabulary::Peer;
use livemig_models::world::Strategy;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for an agent to do what takes longest: fill a large guest's memory, or compare it.
const PATIENCE: Duration = Duration::from_secs(300);
/// After a migration has ended the guest's gap is taken this much later, so that a delayed first stamp is part of it.
const SETTLE: Duration = Duration::from_millis(200);

/// One migration of the run.
#[derive(Debug)]
struct Course {
    shadow: Shadow,
    prepared: bool,
    requested: bool,
    baseline_gap: Option<Span>,
    /// The guest has been seen at the destination: what the source counts is not its progress any more.
    moved: bool,
    lost_pages: u64,
}

/// A run under way.
#[derive(Debug)]
pub(super) struct Coordinator<'a> {
    cast: &'a Cast,
    strategy: &'a Strategy,
    options: &'a Options,
    clock: Clock,
    agents: Vec<Agent>,
    news: mpsc::Receiver<(usize, News)>,
    courses: Vec<Course>,
    mishaps: usize,
    warnings: Vec<String>,
    clock_error: Span,
    /// Where hosts that take guests in are reached, and the key that they ask for.
    destinations: Vec<Option<SocketAddr>>,
    key: Option<Key>,
    /// Since when every guest runs.
    began: Time,
}

impl<'a> Coordinator<'a> {
    /// Starts agents and guests.
    pub(super) fn start(cast: &'a Cast, strategy: &'a Strategy, options: &'a Options) -> Result<Coordinator<'a>, ExecError> {
        let (sender, news) = mpsc::channel();
        let mut agents = Vec::new();
        for (index, host) in cast.hosts.iter().enumerate() {
            agents.push(Agent::start(&host.name, &options.launch, index, &sender)?);
        }
        let courses = cast.moves.iter().map(|m| {
            let memory = cast.guests[m.vm.0 as usize].spec.memory;
            let shadow = Shadow::new(strategy.spec.clone(), memory, options.timeline, Work::default());
            Course { shadow, prepared: false, requested: false, baseline_gap: None, moved: false, lost_pages: 0 }
        });
        let mut coordinator = Coordinator {
            cast,
            strategy,
            options,
            clock: Clock::starting_now(),
            agents,
            news,
            courses: courses.collect(),
            mishaps: 0,
            warnings: Vec::new(),
            clock_error: Span::ZERO,
            destinations: Vec::new(),
            key: None,
            began: Time::ZERO,
        };
        coordinator.set_up()?;
        Ok(coordinator)
    }

    fn set_up(&mut self) -> Result<(), ExecError> {
        let clock = self.clock;
        for index in 0..self.agents.len() {
            let error = set_clock(clock, |message| self.ask(index, message))?;
            // Two clocks may be wrong in opposite directions.
            self.clock_error = self.clock_error.max(Span(error.0 * 2));
        }
        let key = Key::generate().map_err(|source| ExecError::Kernel { call: "reading random bytes", source })?;
        let mut addresses = vec![None; self.agents.len()];
        for to in self.cast.moves.iter().map(|m| m.to) {
            if addresses[to].is_none() {
                let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
                let listen = ToAgent::Listen { address: any, key, room: self.cast.hosts[to].room };
                let FromAgent::Listening { address } = self.ask(to, &listen)? else { return Err(unexpected()) };
                addresses[to] = Some(self.options.route.as_ref().map_or(address, |route| route(address)));
            }
        }
        for guest in &self.cast.guests {
            self.ask(guest.host, &ToAgent::Host { vm: guest.vm.0, spec: guest.spec.to_bytes() })?;
        }
        self.destinations = addresses;
        self.key = Some(key);
        self.began = self.clock.now();
        Ok(())
    }

    /// Follows the run to its end.
    pub(super) fn run(mut self) -> Result<RunResult, ExecError> {
        let horizon = self.began + self.options.horizon;
        while self.courses.iter().any(|c| !c.shadow.ended) && self.clock.now() < horizon {
            self.act()?;
            self.listen(self.patience(horizon))?;
        }
        self.take_gaps()?;
        let until = self.clock.now() + self.options.observe;
        while self.clock.now() < until {
            self.listen(Duration::from_nanos(until.since(self.clock.now()).0))?;
        }
        let ended = self.clock.now();
        let reports = self.verify()?;
        let mut migrations = Vec::new();
        for (index, m) in self.cast.moves.iter().enumerate() {
            let course = &mut self.courses[index];
            let (metrics, rounds, timeline) = course.shadow.finish(ended);
            migrations.push(MigrationResult {
                vm: m.vm,
                source: self.cast.hosts[m.from].id,
                destination: self.cast.hosts[m.to].id,
                technique: self.strategy.preset,
                metrics,
                rounds,
                timeline,
                baseline_gap: course.baseline_gap,
                report: reports[index].clone(),
                lost_pages: course.lost_pages,
                commands: course.shadow.compared,
            });
        }
        let (clock_error, warnings) = (self.clock_error, std::mem::take(&mut self.warnings));
        Ok(RunResult { migrations, ended: ended.since(self.began), clock_error, warnings })
    }

    /// How long nothing needs to be done unless an agent says something.
    fn patience(&self, horizon: Time) -> Duration {
        let open = |&index: &usize| !self.courses[index].requested && !self.must_wait(index);
        let requests = (0..self.courses.len()).filter(open).map(|index| self.began + self.cast.moves[index].at);
        let mishap = self.cast.mishaps.get(self.mishaps).map(|(at, _)| self.began + *at);
        let next = requests.chain(mishap).min().unwrap_or(horizon);
        Duration::from_nanos(next.since(self.clock.now()).0)
    }

    /// Whether an earlier migration of the same VM has not ended.
    fn must_wait(&self, index: usize) -> bool {
        let same = |earlier: &usize| self.cast.moves[*earlier].vm == self.cast.moves[index].vm;
        (0..index).filter(same).any(|earlier| !self.courses[earlier].shadow.ended)
    }

    /// Does what is due.
    fn act(&mut self) -> Result<(), ExecError> {
        let elapsed = self.clock.now().since(self.began);
        for index in 0..self.courses.len() {
            let m = self.cast.moves[index];
            let session = session(index);
            if self.courses[index].shadow.ended || self.must_wait(index) {
                continue;
            }
            if !self.courses[index].prepared && self.strategy.spec.ahead.is_some() {
                // Preparation has all the time there is before the request, but for a moment that gives a baseline.
                if elapsed >= Span(m.at.0 / 5) {
                    self.courses[index].prepared = true;
                    self.begin(index)?;
                    self.agents[m.from].tell(&ToAgent::Prepare { session })?;
                }
            }
            if !self.courses[index].requested && elapsed >= m.at {
                self.courses[index].requested = true;
                if !self.courses[index].prepared {
                    self.begin(index)?;
                }
                self.agents[m.from].tell(&ToAgent::Request { session })?;
            }
        }
        while let Some(&(at, mishap)) = self.cast.mishaps.get(self.mishaps).filter(|(at, _)| *at <= elapsed) {
            debug_assert!(at <= elapsed);
            self.mishaps += 1;
            match mishap {
                Mishap::Kill(host) => self.agents[host].kill(),
                Mishap::Cancel(index) => {
                    let from = self.cast.moves[index].from;
                    self.agents[from].tell(&ToAgent::Cancel { session: session(index) })?;
                }
            }
        }
        Ok(())
    }

    /// The source agent gets ready, and the guest is observed from now on; what it did so far is the baseline.
    fn begin(&mut self, index: usize) -> Result<(), ExecError> {
        let m = self.cast.moves[index];
        let (destination, key) = (self.destinations[m.to].ok_or_else(unexpected)?, self.key.ok_or_else(unexpected)?);
        let migrate = Migrate { session: session(index), vm: m.vm.0, spec: self.strategy.spec.clone(), destination, key };
        self.ask(m.from, &ToAgent::Migrate(Box::new(migrate)))?;
        if let FromAgent::Gap { gap } = self.ask(m.from, &ToAgent::TakeGap { vm: m.vm.0 })? {
            self.courses[index].baseline_gap = Some(gap);
        }
        let now = self.clock.now();
        let shadow = &mut self.courses[index].shadow;
        if let Some(begins) = shadow.work.begin(now) {
            shadow.observe(begins);
        }
        Ok(())
    }

    /// Where a migration's guest runs, if it does: the index of its host.
    fn whereabouts(&self, index: usize) -> Option<usize> {
        let m = self.cast.moves[index];
        // Of a VM that is migrated again, the last migration knows.
        if self.cast.moves[index + 1..].iter().any(|later| later.vm == m.vm) {
            return None;
        }
        let host = match self.courses[index].shadow.ending().map(|e| e.outcome) {
            Some(Outcome::Completed) => Some(m.to),
            Some(Outcome::Aborted | Outcome::Cancelled) => Some(m.from),
            // Nobody starts it again, and nobody can say where it is.
            Some(Outcome::Lost | Outcome::Undecided | Outcome::Unfinished) => None,
            // It has not ended: where it runs depends on how far it has come.
            None => match self.courses[index].shadow.phase() {
                Phase::Waiting | Phase::Preparation | Phase::Snapshots | Phase::LiveCopy | Phase::Rollback => Some(m.from),
                Phase::Push | Phase::Release | Phase::Gather | Phase::Ended => Some(m.to),
                Phase::Switch => None,
            },
        };
        host.filter(|&host| !self.agents[host].gone)
    }

    fn take_gaps(&mut self) -> Result<(), ExecError> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            self.listen(until.saturating_duration_since(Instant::now()))?;
        }
        for index in 0..self.courses.len() {
            let Some(host) = self.whereabouts(index) else { continue };
            let vm = self.cast.moves[index].vm.0;
            if let FromAgent::Gap { gap } = self.ask(host, &ToAgent::TakeGap { vm })? {
                self.courses[index].shadow.observe(Observation::GuestGap(gap));
            }
        }
        Ok(())
    }

    /// Compares every byte of every guest that is known to run.
    fn verify(&mut self) -> Result<Vec<Option<Report>>, ExecError> {
        let mut reports = vec![None; self.courses.len()];
        if self.options.verify {
            for (index, report) in reports.iter_mut().enumerate() {
                // A push that has not ended would be part of the comparison.
                if !self.courses[index].shadow.ended {
                    continue;
                }
                let Some(host) = self.whereabouts(index) else { continue };
                let vm = self.cast.moves[index].vm.0;
                if let FromAgent::Verified { report: found } = self.ask(host, &ToAgent::Verify { vm })? {
                    *report = Some(found);
                }
            }
        }
        Ok(reports)
    }

    /// Asks an agent and waits for its answer; everything else that comes meanwhile is taken.
    fn ask(&mut self, index: usize, message: &ToAgent) -> Result<FromAgent, ExecError> {
        self.agents[index].tell(message)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let fail = |agents: &[Agent], why: &str| Err(ExecError::Run(format!("agent of host `{}`: {why}", agents[index].name)));
            if left.is_zero() {
                return fail(&self.agents, "no answer");
            }
            match self.hear(left)? {
                Some((from, FromAgent::Failed { why })) if from == index => return fail(&self.agents, &why),
                Some((from, answer)) if from == index => return Ok(answer),
                Some(_) => return Err(unexpected()),
                None if self.agents[index].gone => return fail(&self.agents, "it has ended"),
                None => {}
            }
        }
    }

    /// Takes what agents say, for at most this long, if anything.
    fn listen(&mut self, patience: Duration) -> Result<(), ExecError> {
        match self.hear(patience)? {
            None => Ok(()),
            Some((from, FromAgent::Failed { why })) => {
                Err(ExecError::Run(format!("agent of host `{}`: {why}", self.agents[from].name)))
            }
            Some(_) => Err(unexpected()),
        }
    }

    /// The next thing that an agent says, if it is an answer; everything else is taken.
    fn hear(&mut self, patience: Duration) -> Result<Option<(usize, FromAgent)>, ExecError> {
        self.look_for_silence()?;
        let (index, news) = match self.news.recv_timeout(patience.min(Duration::from_millis(500))) {
            Ok(news) => news,
            // Without agents there is nothing to wait for.
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
        };
        match news {
            News::Gone(why) => {
                self.gone(index, &why)?;
                Ok(None)
            }
            News::Said(said) => {
                self.agents[index].heard = Instant::now();
                self.take(index, *said)
            }
        }
    }

    fn take(&mut self, index: usize, said: FromAgent) -> Result<Option<(usize, FromAgent)>, ExecError> {
        match said {
            FromAgent::Record { session, record } => self.course(session)?.shadow.follow(record)?,
            FromAgent::Ended { session } => self.course(session)?.shadow.agent_ended()?,
            FromAgent::Stalls { session, stalls } => self.course(session)?.shadow.stalls(stalls),
            FromAgent::Sample { vm, at, steps } => self.sampled(index, vm, at, steps),
            FromAgent::Lost { session, missing } => self.course(session)?.lost_pages = missing,
            FromAgent::Warning { text } => self.warnings.push(format!("{}: {text}", self.agents[index].name)),
            FromAgent::Alive => {}
            answer @ (FromAgent::Clock { .. }
            | FromAgent::Done
            | FromAgent::Listening { .. }
            | FromAgent::Failed { .. }
            | FromAgent::Gap { .. }
            | FromAgent::Verified { .. }) => return Ok(Some((index, answer))),
        }
        Ok(None)
    }

    fn course(&mut self, session: u32) -> Result<&mut Course, ExecError> {
        let index = (session as usize).wrapping_sub(1);
        self.courses.get_mut(index).ok_or_else(unexpected)
    }

    fn sampled(&mut self, host: usize, vm: u32, at: Time, steps: u64) {
        for (course, m) in self.courses.iter_mut().zip(&self.cast.moves).filter(|(_, m)| m.vm.0 == vm) {
            course.moved |= host == m.to;
            if host == m.to || !course.moved {
                course.shadow.sampled(at, steps);
            }
        }
    }

    /// An agent that says nothing for too long is as good as gone.
    fn look_for_silence(&mut self) -> Result<(), ExecError> {
        let silent = self.agents.iter().position(|a| !a.gone && a.heard.elapsed() > SILENCE);
        if let Some(index) = silent {
            // What it has said may be waiting here.
            if let Ok((from, news)) = self.news.try_recv() {
                self.agents[from].heard = Instant::now();
                match news {
                    News::Gone(why) => self.gone(from, &why)?,
                    News::Said(said) => {
                        if self.take(from, *said)?.is_some() {
                            return Err(unexpected());
                        }
                    }
                }
            } else {
                self.agents[index].kill();
                self.gone(index, "silence")?;
            }
        }
        Ok(())
    }

    /// A host has failed.
    fn gone(&mut self, host: usize, why: &str) -> Result<(), ExecError> {
        if std::mem::replace(&mut self.agents[host].gone, true) {
            return Ok(());
        }
        self.warnings.push(format!("{}: {why}", self.agents[host].name));
        for index in 0..self.courses.len() {
            let m = self.cast.moves[index];
            if self.courses[index].shadow.ended {
                continue;
            }
            if m.from == host {
                let now = self.clock.now();
                self.courses[index].shadow.source_dead(now)?;
                if !self.agents[m.to].gone {
                    self.agents[m.to].tell(&ToAgent::SourceDead { session: session(index) })?;
                }
            } else if m.to == host && !self.agents[m.from].gone {
                self.agents[m.from].tell(&ToAgent::PeerDead { session: session(index), peer: Peer::Destination })?;
            }
        }
        Ok(())
    }
}

fn session(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX - 1) + 1
}
