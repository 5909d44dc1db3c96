//! What agents say: taken as it comes, while an answer is waited for or nothing at all.

use super::coordinator::{Coordinator, Course};
use super::launch::{Agent, News, unexpected};
use crate::agent::message::{FromAgent, Record, ToAgent};
use crate::error::ExecError;
use crate::wire::frame::SILENCE;
use livemig_core::units::Time;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for an agent to do what takes longest: fill a large guest's memory, or compare it.
const PATIENCE: Duration = Duration::from_secs(300);

impl Coordinator<'_> {
    /// Asks an agent and waits for its answer; everything else that comes meanwhile is taken.
    pub(super) fn ask(&mut self, index: usize, message: &ToAgent) -> Result<FromAgent, ExecError> {
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
    pub(super) fn listen(&mut self, patience: Duration) -> Result<(), ExecError> {
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

    pub(super) fn take(&mut self, index: usize, said: FromAgent) -> Result<Option<(usize, FromAgent)>, ExecError> {
        match said {
            FromAgent::Record { session, record } => self.follow(index, session, record)?,
            FromAgent::Ended { session } => self.agent_ended(index, session)?,
            FromAgent::HandedOver { session } => self.handed_over(session)?,
            FromAgent::Stalls { session, stalls } => self.course(session)?.shadow.stalls(stalls),
            FromAgent::Sample { vm, at, steps, offered } => self.sampled(index, vm, at, (steps, offered))?,
            FromAgent::Arrived { at, flows } => self.arrived(index, at, &flows),
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

    pub(super) fn course(&mut self, session: u32) -> Result<&mut Course, ExecError> {
        let index = (session as usize).wrapping_sub(1);
        self.courses.get_mut(index).ok_or_else(unexpected)
    }

    /// A record of a migration. Those of the destination, where it goes on, come after all those of the source.
    fn follow(&mut self, from: usize, session: u32, record: Record) -> Result<(), ExecError> {
        let observed = matches!(record, Record::Observed(_));
        if !observed && self.is_early(from, session)? {
            self.course(session)?.early.push(FromAgent::Record { session, record });
            return Ok(());
        }
        self.course(session)?.shadow.follow(record)?;
        self.strike();
        Ok(())
    }

    fn agent_ended(&mut self, from: usize, session: u32) -> Result<(), ExecError> {
        if self.is_early(from, session)? {
            self.course(session)?.early.push(FromAgent::Ended { session });
            return Ok(());
        }
        self.course(session)?.shadow.agent_ended()
    }

    /// Whether this comes from the destination before the source has said that the migration goes on there.
    fn is_early(&mut self, from: usize, session: u32) -> Result<bool, ExecError> {
        let handed_over = self.course(session)?.handed_over;
        Ok(!handed_over && self.courses[session as usize - 1].order.to == from)
    }

    fn sampled(&mut self, host: usize, vm: u32, at: Time, progress: (u64, f64)) -> Result<(), ExecError> {
        let latest = self.courses.iter().rev().find(|course| course.begun && course.order.vm.0 == vm);
        if latest.is_some_and(|course| course.order.to == host) {
            self.follow_guest(vm, host)?;
        }
        if let Some(work) = self.progress.get_mut(vm as usize) {
            let _ = work.sampled(at, progress);
        }
        for course in self.courses.iter_mut().filter(|course| course.begun && course.order.vm.0 == vm) {
            let comes = host == course.order.to;
            course.moved |= comes;
            if comes || !course.moved {
                course.shadow.sampled(at, progress);
            }
        }
        Ok(())
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
}
