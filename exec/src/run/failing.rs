//! Hosts that fail, and migrations that go on without their source.

use super::coordinator::{Coordinator, session};
use crate::agent::message::ToAgent;
use crate::error::ExecError;
use crate::net::cables;
use livemig_core::conductor::Remainder;
use livemig_core::drain::HostState;
use livemig_core::machine::{Outcome, Phase};
use livemig_core::vocabulary::Peer;

impl Coordinator<'_> {
    /// A host has failed.
    pub(super) fn gone(&mut self, host: usize, why: &str) -> Result<(), ExecError> {
        if std::mem::replace(&mut self.agents[host].gone, true) {
            return Ok(());
        }
        self.warnings.push(format!("{}: {why}", self.agents[host].name));
        self.tell_drain_of_host(host, HostState::Dead);
        for index in 0..self.courses.len() {
            let course = &self.courses[index];
            let m = course.order;
            if course.shadow.ended {
                continue;
            }
            if m.from == host && !course.handed_over {
                self.source_gone(index)?;
            } else if m.to == host && (course.handed_over || course.begun && self.agents[m.from].gone) {
                self.destination_gone(index)?;
            } else if m.to == host && course.begun {
                self.tell(m.from, &ToAgent::PeerDead { session: session(index), peer: Peer::Destination })?;
            } else if let Some(via) = course.via.iter().position(|&v| v == host).and_then(|v| u16::try_from(v).ok()) {
                self.intermediary_gone(index, via)?;
            }
        }
        Ok(())
    }

    /// The cables of a host are pulled or plugged in again: it loses all others, and each of them loses it.
    pub(super) fn pull_cables(&mut self, host: usize, pulled: bool) -> Result<(), ExecError> {
        self.tell_drain_of_host(host, if pulled { HostState::Cut } else { HostState::Reachable });
        if let Some(fabric) = &self.fabric {
            return fabric.cut(host, pulled);
        }
        for index in 0..self.agents.len() {
            let of = (index != host).then(|| cables::address(host).into());
            // One that does not hear it has failed, and will be found to have.
            let _ = self.tell(index, &ToAgent::Cables { of, pulled });
        }
        Ok(())
    }

    /// A guest's load changes. Every host that it may be at is told, so that it is heard of in the middle of a switch as well: a guest
    /// that comes to a host brings along what it has taken up, and takes up there what it has not.
    pub(super) fn change_load(&mut self, guest: usize, phase: usize) {
        let (cast, vm) = (self.cast, self.cast.guests[guest].vm.0);
        for &host in cast.hosts_of(guest) {
            // One that does not hear it has failed, and will be found to have.
            let _ = self.tell(host, &ToAgent::Load { vm, phase });
        }
    }

    /// Tells an agent, if it is there.
    pub(super) fn tell(&mut self, agent: usize, message: &ToAgent) -> Result<(), ExecError> {
        if self.agents[agent].gone { Ok(()) } else { self.agents[agent].tell(message) }
    }

    /// The source is gone. If the guest runs at the destination that goes on, and says what is lost; otherwise the copy of the migration says
    /// what is left of it.
    fn source_gone(&mut self, index: usize) -> Result<(), ExecError> {
        let (session, to, now) = (session(index), self.courses[index].order.to, self.clock.now());
        let shadow = &mut self.courses[index].shadow;
        shadow.source_dead(now)?;
        let rest = (shadow.phase() == Phase::Gather).then(|| self.go_on(index)).transpose()?;
        if self.agents[to].gone && !self.courses[index].shadow.ended {
            // Nobody is left who would say what became of it.
            return self.destination_gone(index);
        }
        if let Some(remainder) = rest {
            return self.tell(to, &ToAgent::GoOn { session, remainder });
        }
        let shadow = &self.courses[index].shadow;
        let lost = shadow.ending().is_some_and(|ending| ending.outcome == Outcome::Lost);
        self.tell(to, &ToAgent::SourceDead { session, lost })?;
        if lost { self.unstage(index) } else { Ok(()) }
    }

    /// The destination is gone, on which alone the migration depended.
    fn destination_gone(&mut self, index: usize) -> Result<(), ExecError> {
        let now = self.clock.now();
        self.courses[index].shadow.destination_dead(now)?;
        self.unstage(index)
    }

    fn intermediary_gone(&mut self, index: usize, via: u16) -> Result<(), ExecError> {
        let (session, course) = (session(index), &self.courses[index]);
        let m = course.order;
        if !course.begun {
            // It will be found to be gone when it is asked for room.
            return Ok(());
        }
        if !course.handed_over {
            self.tell(m.from, &ToAgent::PeerDead { session, peer: Peer::Intermediary(via) })?;
        }
        self.tell(m.to, &ToAgent::StageDead { session, via })
    }

    /// Nobody will fetch what intermediaries keep of a migration.
    fn unstage(&mut self, index: usize) -> Result<(), ExecError> {
        let via = self.courses[index].via.clone();
        via.into_iter().try_for_each(|via| self.tell(via, &ToAgent::Unstage { session: session(index) }))
    }

    /// The source has said everything: the migration goes on at its destination.
    pub(super) fn handed_over(&mut self, session: u32) -> Result<(), ExecError> {
        self.course(session)?;
        let index = session as usize - 1;
        self.go_on(index)?;
        if self.agents[self.courses[index].order.to].gone && !self.courses[index].shadow.ended {
            self.destination_gone(index)?;
        }
        Ok(())
    }

    /// What the destination says of the migration from now on is what becomes of it.
    fn go_on(&mut self, index: usize) -> Result<Remainder, ExecError> {
        let course = &mut self.courses[index];
        let remainder = course.shadow.go_on()?;
        course.handed_over = true;
        for said in std::mem::take(&mut course.early) {
            self.take(self.courses[index].order.to, said)?;
        }
        Ok(remainder)
    }

    /// Kills hosts whose time has come.
    pub(super) fn strike(&mut self) {
        let due = |(phase, _): &(Phase, usize)| self.courses.iter().any(|course| course.shadow.phase() == *phase);
        while let Some(index) = self.strikes.iter().position(due) {
            let (_, host) = self.strikes.remove(index);
            self.agents[host].kill();
        }
    }
}
