//! Techniques chosen by traffic, the moment migrations are requested: by what agents have counted, and by the core.

use super::coordinator::{Coordinator, session};
use crate::agent::message::ToAgent;
use crate::error::ExecError;
use livemig_core::machine::Phase;
use livemig_core::policy::selection::{Leaving, SelectionPolicy};
use livemig_core::units::Span;
use livemig_models::world::HostId;

impl Coordinator<'_> {
    /// Chooses the techniques of the migrations whose requests are due, so long after the beginning, unless that has been done: together of
    /// those that are requested at the same moment.
    pub(super) fn select_due(&mut self, elapsed: Span) {
        let Some(policy) = self.strategy.spec.selection else { return };
        let is_open = |index: &usize| {
            let course = &self.courses[*index];
            let runs = !matches!(course.shadow.phase(), Phase::Rollback | Phase::Ended);
            course.technique.is_none() && runs && self.is_due(*index, elapsed)
        };
        let mut due: Vec<usize> = (0..self.courses.len()).filter(is_open).collect();
        due.sort_by_key(|&index| self.courses[index].order.at);
        let at: Vec<_> = due.iter().map(|&index| (self.courses[index].order.at, index)).collect();
        for together in at.chunk_by(|a, b| a.0 == b.0) {
            let together: Vec<usize> = together.iter().map(|&(_, index)| index).collect();
            self.select(&policy, &together);
        }
    }

    fn select(&mut self, policy: &SelectionPolicy, together: &[usize]) {
        // By the scenario's numbers, as in the simulator, so that a choice between equals is the same one.
        let number = |host: usize| self.cast.hosts[host].id.0;
        let leaving = |&index: &usize| {
            let m = self.courses[index].order;
            Leaving { guest: m.vm.0, source: number(m.from), destination: number(m.to) }
        };
        let leaving: Vec<Leaving> = together.iter().map(leaving).collect();
        let guests_of = |host: u32| {
            let place = self.cast.index(HostId(host)).map(|place| self.flows.guests_of(place));
            place.into_iter().flatten().map(|guest| self.cast.guests[guest].vm.0)
        };
        let measured = self.flows.measured(self.cast, policy.window(), self.clock.now());
        let (moving, interfaces) = measured.situation(&leaving, guests_of);
        let chosen = policy.choose(&moving, &interfaces);
        for (&index, technique) in together.iter().zip(chosen.techniques) {
            self.courses[index].technique = Some(technique);
        }
    }

    /// Tells the agent that makes a migration what was chosen for it, if anything was.
    pub(super) fn tell_technique(&mut self, index: usize) -> Result<(), ExecError> {
        let Some(technique) = self.courses[index].technique else { return Ok(()) };
        self.tell(self.courses[index].order.from, &ToAgent::Selected { session: session(index), technique })
    }
}
