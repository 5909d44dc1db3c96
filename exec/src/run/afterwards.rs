//! What is asked of agents when the migrations are over: gaps, and the comparison of every guest's memory.

use super::coordinator::Coordinator;
use crate::agent::message::{FromAgent, ToAgent};
use crate::error::ExecError;
use crate::verify::Report;
use livemig_core::machine::{Outcome, Phase};
use std::time::{Duration, Instant};

/// After a migration has ended the guest's gap is taken this much later, so that a delayed first stamp is part of it.
const SETTLE: Duration = Duration::from_millis(200);

impl Coordinator<'_> {
    /// Where a migration's guest runs, if it does: the index of its host.
    fn whereabouts(&self, index: usize) -> Option<usize> {
        let m = self.courses[index].order;
        // Of a VM that is migrated again, the last migration knows.
        if self.courses[index + 1..].iter().any(|later| later.begun && later.order.vm == m.vm) {
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

    /// Takes the gaps of guests whose migrations ended a moment ago.
    pub(super) fn take_gaps(&mut self) -> Result<(), ExecError> {
        for index in 0..self.courses.len() {
            let course = &mut self.courses[index];
            if course.gap_taken || !course.shadow.ended {
                continue;
            }
            if course.ended_at.get_or_insert_with(Instant::now).elapsed() >= SETTLE {
                self.take_gap(index)?;
            }
        }
        Ok(())
    }

    /// Takes all that have not been taken.
    pub(super) fn take_last_gaps(&mut self) -> Result<(), ExecError> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            self.listen(until.saturating_duration_since(Instant::now()))?;
        }
        (0..self.courses.len())
            .filter(|&index| !self.courses[index].gap_taken)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|index| self.take_gap(index))
    }

    fn take_gap(&mut self, index: usize) -> Result<(), ExecError> {
        let Some(host) = self.whereabouts(index) else { return Ok(()) };
        let vm = self.courses[index].order.vm.0;
        if let FromAgent::Gap { gap } = self.ask(host, &ToAgent::TakeGap { vm })? {
            self.courses[index].take_gap(gap);
        }
        Ok(())
    }

    /// Compares every byte of every guest that is known to run.
    pub(super) fn verify(&mut self) -> Result<Vec<Option<Report>>, ExecError> {
        let mut reports = vec![None; self.courses.len()];
        if self.options.verify {
            for (index, report) in reports.iter_mut().enumerate() {
                // A push that has not ended would be part of the comparison.
                if !self.courses[index].shadow.ended {
                    continue;
                }
                let Some(host) = self.whereabouts(index) else { continue };
                let vm = self.courses[index].order.vm.0;
                if let FromAgent::Verified { report: found } = self.ask(host, &ToAgent::Verify { vm })? {
                    *report = Some(found);
                }
            }
        }
        Ok(reports)
    }
}
