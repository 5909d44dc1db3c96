//! Orders from the source: each is carried out once, and answered as often as it comes.

use super::places::Places;
use super::session::{Room, Session};
use crate::agent::Part;
use crate::error::ExecError;
use crate::guest::{Guest, GuestSpec, GuestState};
use crate::memory::{GuestMemory, Userfault, runs_of};
use crate::wire::message::{Answer, Order};
use livemig_core::pages::Bitmap;
use livemig_core::units::Time;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A guest that has been started is given this long to show a step; below the silence after which the source hangs up.
const FIRST_STEP: Duration = Duration::from_secs(2);
/// How long the vCPUs of a guest whose memory is lost may take to stop.
const STOP: Duration = Duration::from_secs(2);

/// What has been done, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Orders {
    answered: BTreeMap<u32, Answer>,
    vm: u32,
    /// The guest was started here.
    started: bool,
    /// It was promised that it will not be.
    never: bool,
}

impl Session {
    /// Carries out an order, unless that has been done: then the answer was lost and is given again.
    pub(super) fn obey(self: &Arc<Session>, id: u32, order: Order) -> Answer {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = orders.answered.get(&id) {
            return answer.clone();
        }
        if let Order::Gather { limit } = order {
            // It is done when it is done: until then it may be given again.
            return self.gather(id, limit);
        }
        let resumes = matches!(order, Order::Resume { .. });
        let answer = match self.carry_out(&mut orders, order) {
            Ok(answer) => answer,
            Err(_) if resumes && !orders.started => {
                orders.never = true;
                Answer::Never
            }
            Err(error) => Answer::Refused(error.to_string()),
        };
        orders.answered.insert(id, answer.clone());
        answer
    }

    fn carry_out(self: &Arc<Session>, orders: &mut Orders, order: Order) -> Result<Answer, ExecError> {
        match order {
            // An order that comes out of an old connection after the end of its session.
            _ if self.is_over() => return Ok(Answer::Never),
            Order::Reserve { vm, spec, via } => {
                orders.vm = vm;
                *self.gathering.places() = Places::of(via);
                return self.reserve(&spec);
            }
            Order::Prepare => {}
            Order::State { state, saved_at } => {
                let state = GuestState::from_bytes(&state)?;
                let room = self.room();
                guest(room.guest.as_ref())?.load(&state, self.setup.clock.instant(saved_at))?;
            }
            Order::Discard { pages } => self.discard(&pages)?,
            Order::Resume { .. } if orders.never => return Ok(Answer::Never),
            Order::Resume { faults } => return self.resume(orders, faults),
            Order::Locate { via, runs } => self.locate(orders.started, &via, &runs)?,
            Order::Redirect => return Ok(self.redirect()),
            Order::Serve => {
                self.gathering.places().redirected = false;
                self.request_again();
            }
            Order::Gather { .. } => return Err(ExecError::State("gathering is no order of this kind".to_owned())),
            Order::GoOn { remainder } => self.go_on(&remainder)?,
            Order::Abort => {
                self.close_gathering(false);
                self.room_alone().clear();
            }
        }
        Ok(Answer::Done)
    }

    fn reserve(&self, spec: &[u8]) -> Result<Answer, ExecError> {
        let spec = GuestSpec::from_bytes(spec)?;
        if let Some(room) = self.setup.room.filter(|room| self.setup.guests.memory() + spec.memory > *room) {
            return Ok(Answer::Refused(format!("{} do not fit into {room}", spec.memory)));
        }
        let memory = Arc::new(GuestMemory::allocate(spec.memory, false)?);
        let made = Guest::new(&spec, memory.clone())?;
        let mut room = self.room_alone();
        room.filler = Userfault::watch(memory.clone()).ok().map(Arc::new);
        room.memory = Some(memory);
        room.guest = Some(made);
        Ok(Answer::Done)
    }

    /// Drops pages. They must be missing afterwards, so the watch begins first.
    pub(super) fn discard(self: &Arc<Session>, pages: &Bitmap) -> Result<(), ExecError> {
        let mut room = self.room_alone();
        self.begin_watch(&mut room)?;
        let memory = memory(room.memory.as_ref())?;
        for run in runs_of(pages) {
            memory.discard(run.first, run.pages)?;
        }
        self.book().discard(pages);
        Ok(())
    }

    /// From now on the guest may wait for missing pages.
    fn begin_watch(self: &Arc<Session>, room: &mut Room) -> Result<(), ExecError> {
        if !room.watched {
            let watch = match room.filler.take() {
                Some(filler) => filler,
                None => Arc::new(Userfault::watch(memory(room.memory.as_ref())?.clone())?),
            };
            self.watch_faults(&watch)?;
            room.filler = Some(watch);
            room.watched = true;
        }
        Ok(())
    }

    fn resume(self: &Arc<Session>, orders: &mut Orders, faults: bool) -> Result<Answer, ExecError> {
        let before = {
            let mut room = self.room_alone();
            if faults {
                self.begin_watch(&mut room)?;
            } else {
                room.end_watch();
            }
            let counters = guest(room.guest.as_ref())?.counters();
            let Some(ready) = room.guest.take() else { return Err(no_guest()) };
            drop(room);
            self.setup.guests.start(orders.vm, ready);
            orders.started = true;
            counters
        };
        let (vm, deadline) = (orders.vm, Instant::now() + FIRST_STEP);
        loop {
            let at = self.setup.clock.now();
            let now = self.setup.guests.counters(vm);
            if now.iter().zip(&before).all(|(now, before)| now > before) || Instant::now() >= deadline {
                return Ok(Answer::Started { at });
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Every page has come, or is staged: the source is asked no more.
    fn redirect(&self) -> Answer {
        let pages = self.room().memory.as_ref().map_or(0, |m| m.pages());
        let (missing, last) = {
            let mut places = self.gathering.places();
            let book = self.book();
            let missing = places.nowhere(pages, book.received());
            places.redirected = missing == 0;
            (missing, book.last_arrival())
        };
        self.check_gathered();
        self.report_stalls();
        let ago = last.map_or(Duration::ZERO, |last| last.elapsed());
        let now = self.setup.clock.now();
        Answer::Whole { at: Time(now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(0))), missing }
    }

    /// The source is gone. A guest that runs here and needs pages of it, or that is declared `lost`, is stopped: how many pages are
    /// lost. `None` when it was not started here.
    pub(super) fn source_dead(&self, lost: bool) -> Option<u64> {
        self.disconnect();
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if !orders.started {
            self.close_gathering(true);
            self.room_alone().clear();
            return None;
        }
        let missing = {
            let room = self.room();
            let pages = room.memory.as_ref().map_or(0, |m| m.pages());
            if room.watched { self.book().missing(pages) } else { 0 }
        };
        let vm = orders.vm;
        drop(orders);
        if missing > 0 || lost {
            self.pause(vm);
            self.close_gathering(true);
        }
        self.report_stalls();
        Some(missing)
    }

    /// How this migration stands. A guest that is whole needs nobody any more; the source may.
    pub(super) fn part(&self) -> Part {
        if self.is_connected() || self.gathering.is_connected() {
            Part::Connected
        } else if self.is_over() || self.is_whole() {
            Part::Over
        } else {
            Part::Alone
        }
    }

    /// Whether the guest runs here, and all of its memory is here.
    fn is_whole(&self) -> bool {
        let started = self.orders.lock().unwrap_or_else(PoisonError::into_inner).started;
        started && !self.room().watched
    }

    /// Stops a guest that is not whole: which, and how many of its pages are missing.
    pub(super) fn give_up(&self) -> Option<(u32, u64)> {
        if self.is_over() || self.is_whole() {
            return None;
        }
        let missing = self.source_dead(true)?;
        Some((self.orders.lock().unwrap_or_else(PoisonError::into_inner).vm, missing))
    }

    /// Stops a guest whose memory is lost.
    pub(super) fn stop_guest(&self) {
        let vm = self.orders.lock().unwrap_or_else(PoisonError::into_inner).vm;
        self.pause(vm);
    }

    fn pause(&self, vm: u32) {
        if let Err(error) = self.setup.guests.pause(vm, STOP) {
            self.setup.reports.warn(format!("stopping a guest whose memory is lost: {error}"));
        }
    }
}

fn memory(memory: Option<&Arc<GuestMemory>>) -> Result<&Arc<GuestMemory>, ExecError> {
    memory.ok_or_else(no_guest)
}

fn guest(guest: Option<&Guest>) -> Result<&Guest, ExecError> {
    guest.ok_or_else(no_guest)
}

fn no_guest() -> ExecError {
    ExecError::State("no room was reserved for a guest".to_owned())
}
