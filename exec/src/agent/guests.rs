//! The guests of a host.

use super::message::FromAgent;
use super::reports::Reports;
use crate::clock::Clock;
use crate::error::ExecError;
use crate::guest::Guest;
use crate::memory::GuestMemory;
use crate::traffic::Arrivals;
use livemig_core::units::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two samples of the step counters.
const SAMPLE: Duration = Duration::from_millis(10);

/// A guest's place: empty before it has come and after it has left.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) guest: Mutex<Option<Guest>>,
}

impl Hosted {
    pub(crate) fn memory(&self) -> Result<Arc<GuestMemory>, ExecError> {
        self.lock().as_ref().map(|guest| guest.memory().clone()).ok_or_else(not_here)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Guest>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All guests of a host, by number.
#[derive(Debug)]
pub(crate) struct Guests {
    all: Mutex<BTreeMap<u32, Arc<Hosted>>>,
    /// The phases that guests have been ordered to, also of those that have not come yet.
    phases: Mutex<BTreeMap<u32, usize>>,
    clock: Mutex<Clock>,
    reports: Reports,
    /// What has come for them, and for the host, over the network.
    pub(crate) arrivals: Arrivals,
}

impl Guests {
    pub(crate) fn new(reports: Reports) -> Guests {
        let (all, phases, clock) = (Mutex::default(), Mutex::default(), Mutex::new(Clock::starting_now()));
        Guests { all, phases, clock, reports, arrivals: Arrivals::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Hosted>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_clock(&self, clock: Clock) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
    }

    /// Starts a guest and keeps it.
    pub(crate) fn start(&self, vm: u32, guest: Guest) {
        guest.resume();
        self.lock().insert(vm, Arc::new(Hosted { guest: Mutex::new(Some(guest)) }));
        // Perhaps it was ordered when the guest had stopped elsewhere.
        let phase = self.phases.lock().unwrap_or_else(PoisonError::into_inner).get(&vm).copied();
        if let Some(phase) = phase {
            self.request_phase(vm, phase);
        }
    }

    /// Has a guest go to a phase, now if it is here, and otherwise when it comes, unless it has done so where it was before.
    pub(crate) fn order_phase(&self, vm: u32, phase: usize) {
        // First noted and then looked for, where a guest that comes is first kept and then its phase looked for.
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).insert(vm, phase);
        self.request_phase(vm, phase);
    }

    fn request_phase(&self, vm: u32, phase: usize) {
        // One that is not here, or has left, is told where it is.
        let Ok(hosted) = self.get(vm) else { return };
        if let Some(Err(error)) = hosted.lock().as_ref().map(|guest| guest.request_phase_once(phase)) {
            self.reports.warn(format!("guest {vm}: {error}"));
        }
    }

    pub(crate) fn get(&self, vm: u32) -> Result<Arc<Hosted>, ExecError> {
        self.lock().get(&vm).cloned().ok_or_else(not_here)
    }

    /// Does something with a guest.
    pub(crate) fn with<T>(&self, vm: u32, what: impl FnOnce(&Guest) -> Result<T, ExecError>) -> Result<T, ExecError> {
        let hosted = self.get(vm)?;
        let guest = hosted.lock();
        what(guest.as_ref().ok_or_else(not_here)?)
    }

    pub(crate) fn counters(&self, vm: u32) -> Vec<u64> {
        self.with(vm, |guest| Ok(guest.counters())).unwrap_or_default()
    }

    pub(crate) fn pause(&self, vm: u32, limit: Duration) -> Result<(), ExecError> {
        self.with(vm, |guest| guest.pause(limit))
    }

    /// Memory of all guests here together.
    pub(crate) fn memory(&self) -> Bytes {
        let all: Vec<Arc<Hosted>> = self.lock().values().cloned().collect();
        all.iter().filter_map(|hosted| hosted.memory().ok()).map(|m| Bytes::from_pages(m.pages())).sum()
    }

    /// The guests that are here.
    pub(crate) fn present(&self) -> Vec<u32> {
        self.lock().iter().filter(|(_, hosted)| hosted.lock().is_some()).map(|(&vm, _)| vm).collect()
    }

    pub(crate) fn forget(&self, vm: u32) {
        self.lock().remove(&vm);
    }

    /// Reports the step counters of all guests again and again, and with that that this agent is alive.
    pub(crate) fn sample_in_background(self: &Arc<Guests>, clock: Clock) -> io::Result<()> {
        self.set_clock(clock);
        let guests = Arc::downgrade(self);
        let body = move || {
            while let Some(guests) = guests.upgrade() {
                guests.sample();
                drop(guests);
                std::thread::sleep(SAMPLE);
            }
        };
        std::thread::Builder::new().name("samples".to_owned()).spawn(body).map(drop)
    }

    fn sample(&self) {
        let all: Vec<(u32, Arc<Hosted>)> = self.lock().iter().map(|(&vm, hosted)| (vm, hosted.clone())).collect();
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        for (vm, hosted) in all {
            // A guest that somebody is busy with is sampled the next time.
            let Ok(guest) = hosted.guest.try_lock() else { continue };
            if let Some(guest) = guest.as_ref() {
                let (at, steps) = (clock.now(), guest.counters().iter().sum());
                self.reports.send(FromAgent::Sample { vm, at, steps, offered: guest.offered_rate() });
            }
        }
        let (at, flows) = (clock.now(), self.arrivals.news());
        if !flows.is_empty() {
            self.reports.send(FromAgent::Arrived { at, flows });
        }
        self.reports.send(FromAgent::Alive);
    }
}

fn not_here() -> ExecError {
    ExecError::State("the guest is not here".to_owned())
}
