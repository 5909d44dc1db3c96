//! Rates measured before migrations are requested, and the techniques that are chosen by them.

use crate::engine::{Engine, Happening};
use crate::fidelity::Fidelity;
use livemig_core::machine::{Migration, Phase};
use livemig_core::policy::selection::{End, Interfaces, Leaving, Measured, Moving};
use livemig_core::units::{Span, Time};
use livemig_core::vocabulary::Event;
use livemig_models::world::{Endpoint, HostId};

impl<F: Fidelity> Engine<'_, F> {
    /// Schedules the beginnings of the windows in which rates are measured.
    pub(crate) fn schedule_measuring(&mut self) {
        let Some(window) = self.window() else { return };
        let mut requests: Vec<Time> = self.world.moves.iter().map(|m| m.at).collect();
        requests.sort_unstable();
        requests.dedup();
        if let Some(drain) = &self.world.drain {
            requests = vec![drain.at];
            if drain.at > Time::ZERO {
                self.queue.push(drain.at, Happening::Measure);
            }
        }
        for at in requests {
            self.queue.push(Time(at.0.saturating_sub(window.0)), Happening::Measure);
        }
    }

    /// Over which time rates are measured, if they are.
    fn window(&self) -> Option<Span> {
        let placement = || self.world.drain.as_ref().and_then(|drain| drain.placement.window());
        self.strategy.spec.selection.map(|policy| policy.window()).or_else(placement)
    }

    /// A window begins. In a drain, whose migrations begin at any moment, it is one after the other from the window before the request on.
    pub(crate) fn begin_measuring(&mut self) {
        if self.world.drain.is_some() {
            self.last_measured = self.measured();
        }
        let now = self.now;
        self.measured_since = now;
        for flow in &mut self.traffic {
            flow.begin_measuring(now);
        }
        let (Some(drain), Some(window)) = (&self.world.drain, self.window()) else { return };
        if now >= drain.at {
            self.queue.push(now + window, Happening::Measure);
            self.tell_drain_of_traffic();
        }
    }

    /// The rates since the window began.
    fn measured(&self) -> Measured {
        let mut measured = Measured::default();
        for flow in &self.traffic {
            let (from, to) = (self.host_of(flow.from), self.host_of(flow.to));
            let rate = flow.measured(self.measured_since, self.now);
            if from == to || rate <= 0.0 {
                continue;
            }
            measured.add(end(flow.from), end(flow.to), rate);
        }
        measured
    }

    fn host_of(&self, end: Endpoint) -> Option<HostId> {
        match end {
            Endpoint::Vm(vm) => Some(self.guests[vm.0 as usize].host),
            Endpoint::Host(host) => Some(host),
            Endpoint::Outside => None,
        }
    }

    /// Chooses the techniques of all migrations that are requested at this instant, unless that has been done.
    ///
    /// `m` is one of them. Looking for the others costs as much as there are migrations, and is done once per instant.
    pub(crate) fn select_together(&mut self, m: u32) {
        if self.strategy.spec.selection.is_none() || self.drives[m as usize].session.migration().selection().is_none() {
            return;
        }
        let requested = (0_u32..).zip(&self.world.moves).filter(|(_, order)| order.at == self.now).map(|(m, _)| m);
        let requested: Vec<u32> = requested.collect();
        self.select_of(&requested);
    }

    /// Chooses the techniques of those of these migrations that are still open, unless that has been done.
    pub(crate) fn select_of(&mut self, requested: &[u32]) {
        let Some(policy) = self.strategy.spec.selection else { return };
        let open = |&m: &u32| {
            self.drives.has(m) && {
                let session = &self.drives[m as usize].session;
                session.migration().selection().is_some() && !matches!(session.phase(), Phase::Rollback | Phase::Ended)
            }
        };
        let together: Vec<u32> = requested.iter().copied().filter(|m| open(m)).collect();
        if together.is_empty() {
            return;
        }
        let (moving, interfaces) = self.situation(&together);
        let chosen = policy.choose(&moving, &interfaces);
        for (m, technique) in together.into_iter().zip(chosen.techniques) {
            self.tell(m, Event::Selected(technique));
        }
    }

    /// What the choice between techniques depends on: the migrations' guests, and what else uses the NICs.
    fn situation(&self, together: &[u32]) -> (Vec<Moving>, Interfaces) {
        let leaving = |&m: &u32| {
            let drive = &self.drives[m as usize];
            Leaving { guest: drive.vm.0, source: drive.source.0, destination: drive.destination.0 }
        };
        let leaving: Vec<Leaving> = together.iter().map(leaving).collect();
        // Migrations of a drain begin at any time: the last whole window counts, and is summed up once.
        let until_now;
        let measured = if self.world.drain.is_some() {
            &self.last_measured
        } else {
            until_now = self.measured();
            &until_now
        };
        measured.situation(&leaving, |host| self.cores[host as usize].guests().iter().map(|vm| vm.0))
    }
}

/// The end of a flow, as the core counts them.
fn end(of: Endpoint) -> End {
    match of {
        Endpoint::Vm(vm) => End::Guest(vm.0),
        Endpoint::Host(host) => End::Host(host.0),
        Endpoint::Outside => End::Outside,
    }
}
