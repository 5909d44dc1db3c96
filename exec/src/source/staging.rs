//! Pages that go to intermediaries: batches on their way there, and the one map that says which of them has the newest version of a
//! page.
//!
//! A thread per intermediary takes batches of its own as long as that answers, so that who is faster gets more. Of a send that may also
//! go straight it gets what the destination does not take. With several copies a batch is queued for several threads, each of which
//! reads the pages itself: what a guest that runs writes in between is in the dirty log, and sent again.
//!
//! The map is kept here alone until the guest has stopped. A page that is collected from the dirty tracker leaves it, because what is
//! staged of it is old; so when the guest starts at the destination, and is told the map, every place in it is of the only version
//! that there is.

use super::Input;
use super::sender::{Batch, Next, Sender, State};
use super::sends::Lane;
use crate::error::ExecError;
use crate::memory::{DirtyTracker, runs_of};
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PageIndex};
use livemig_core::vocabulary::Event;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What the source knows of intermediaries.
#[derive(Debug, Default)]
pub(super) struct Staging {
    hosts: Vec<Host>,
    /// Batches that have not been answered by all intermediaries that they went to.
    flights: BTreeMap<u32, Flight>,
    next: u32,
}

#[derive(Debug, Default)]
struct Host {
    /// The connection of this epoch is in use; `None` when there is none.
    epoch: Option<u32>,
    gone: bool,
    /// Batches to be written, by flight.
    queue: VecDeque<(u32, Batch)>,
    /// Frames without an answer, with their flights.
    on_way: BTreeMap<u32, u32>,
    /// What it has in the newest version.
    pages: Bitmap,
}

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    holders: Vec<u16>,
    /// Those that have not answered.
    waits: Vec<u16>,
    /// Those that have no room.
    refused: Vec<u16>,
}

impl Host {
    fn load(&self) -> usize {
        self.queue.len() + self.on_way.len()
    }
}

impl Staging {
    /// Intermediaries 0 to `count` may be used.
    pub(super) fn of(count: usize) -> Staging {
        let hosts = std::iter::repeat_with(Host::default).take(count).collect();
        Staging { hosts, ..Staging::default() }
    }

    pub(super) fn is_used(&self) -> bool {
        !self.hosts.is_empty()
    }

    fn host(&self, via: u16) -> Option<&Host> {
        self.hosts.get(usize::from(via))
    }

    fn host_mut(&mut self, via: u16) -> Option<&mut Host> {
        self.hosts.get_mut(usize::from(via))
    }

    pub(super) fn is_gone(&self, via: u16) -> bool {
        self.host(via).is_none_or(|host| host.gone)
    }

    /// What is staged of these pages is not the newest version any more.
    pub(super) fn forget(&mut self, pages: &Bitmap) {
        for host in self.hosts.iter_mut().filter(|host| host.pages.count() > 0) {
            host.pages.remove_all(pages);
        }
    }

    /// An intermediary has answered: the flight, if all of its have.
    fn answered(&mut self, no: u32, via: u16, stored: bool) -> Option<Flight> {
        let flight = self.flights.get_mut(&no)?;
        flight.waits.retain(|&v| v != via);
        if !stored {
            flight.refused.push(via);
        }
        if flight.waits.is_empty() { self.flights.remove(&no) } else { None }
    }

    /// Where everything is that is staged.
    fn places(&self) -> Vec<(Vec<u16>, Vec<Extent>)> {
        let mut places: BTreeMap<Vec<u16>, Vec<Extent>> = BTreeMap::new();
        for (via, host) in (0..).zip(&self.hosts) {
            let others: Vec<(u16, &Bitmap)> =
                (0..).zip(&self.hosts).filter(|(v, _)| *v != via).map(|(v, h)| (v, &h.pages)).collect();
            for run in runs_of(&host.pages) {
                for (holders, extent) in split(via, run, &others) {
                    places.entry(holders).or_default().push(extent);
                }
            }
        }
        places.into_iter().collect()
    }
}

/// The parts of a run of pages that `via` has, by who else has them; those that an earlier one has are that one's to name.
fn split(via: u16, run: Extent, others: &[(u16, &Bitmap)]) -> Vec<(Vec<u16>, Extent)> {
    let (mut parts, mut at, end) = (Vec::new(), run.first.0, run.first.0 + run.pages);
    while at < end {
        let (mut holders, mut next) = (vec![via], end);
        for &(other, pages) in others {
            if pages.contains(PageIndex(at)) {
                holders.push(other);
                next = next.min(at + pages.run_from(PageIndex(at), end - at));
            } else if let Some(there) = pages.next_at(PageIndex(at)) {
                next = next.min(there.0);
            }
        }
        if holders.iter().all(|&holder| holder >= via) {
            parts.push((holders, Extent { first: PageIndex(at), pages: next - at }));
        }
        at = next;
    }
    parts
}

/// What a thread has to do.
enum Load {
    Again,
    Skipped,
    Wait(Duration),
}

impl Sender {
    /// The next batch for an intermediary; waits until there is one. `None` when its connection of this epoch is done with. The batch
    /// goes in the frame with this number.
    pub(super) fn next_staged(&self, via: u16, epoch: u32, seq: u32) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            let host = state.staging.host_mut(via).filter(|host| host.epoch == Some(epoch))?;
            if let Some((flight, batch)) = host.queue.pop_front() {
                host.on_way.insert(seq, flight);
                return Some(batch);
            }
            let wait = match state.load(via) {
                Load::Again => {
                    self.room.notify_all();
                    continue;
                }
                Load::Skipped => {
                    self.end_sends(&mut state);
                    continue;
                }
                Load::Wait(wait) => wait,
            };
            state = self.room.wait_timeout(state, wait).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// An intermediary has answered a frame; whether it was the last that it owed an answer.
    pub(super) fn stored(&self, via: u16, epoch: u32, seq: u32, stored: bool) -> bool {
        let mut state = self.lock();
        let Some(host) = state.staging.host_mut(via).filter(|host| host.epoch == Some(epoch)) else { return false };
        let Some(no) = host.on_way.remove(&seq) else { return false };
        let last = host.on_way.is_empty();
        if let Some(flight) = state.staging.answered(no, via, stored) {
            if flight.refused.is_empty() {
                self.landed(&mut state, no, &flight);
            } else {
                self.refused(&mut state, no, &flight);
            }
            self.end_sends(&mut state);
        }
        self.room.notify_all();
        last
    }

    /// A batch is kept by everybody that it went to. Pages that have joined their send again meanwhile are staged in an old version.
    fn landed(&self, state: &mut State, no: u32, flight: &Flight) {
        let Some((extents, _)) = state.sends.iter_mut().find_map(|send| send.acknowledged((Lane::Staged, no))) else { return };
        let mut there = Bitmap::default();
        for extent in extents {
            there.insert_run(extent.first, extent.pages);
            for page in extent.iter() {
                if state.sends.iter().any(|send| send.holds(page)) {
                    there.remove(page);
                } else {
                    state.wanted.remove(&page);
                }
            }
        }
        for &via in &flight.holders {
            if let Some(host) = state.staging.host_mut(via) {
                host.pages.insert_all(&there);
            }
        }
        self.complete(Input::Located { via: flight.holders.clone(), extents: runs_of(&there).collect() });
    }

    /// There was no room for a batch: the migration hears of it before it hears of the end of the send.
    fn refused(&self, state: &mut State, no: u32, flight: &Flight) {
        let refused = state.sends.iter_mut().find_map(|send| send.refuse((Lane::Staged, no), &flight.refused));
        let mut set = refused.unwrap_or_default();
        for &via in &flight.refused {
            self.complete(Input::Completed(Event::StageRefused { via, set: std::mem::take(&mut set) }));
        }
    }

    pub(super) fn use_intermediaries(&self, count: usize) {
        self.lock().staging = Staging::of(count);
    }

    /// A connection to an intermediary is in use.
    pub(super) fn stage_connected(&self, via: u16, epoch: u32) {
        if let Some(host) = self.lock().staging.host_mut(via) {
            host.epoch = Some(epoch);
        }
        self.room.notify_all();
    }

    /// A connection to an intermediary is done with, and with `gone` there will be no other: what was on its way there is to be sent
    /// again, somewhere.
    pub(super) fn stage_disconnected(&self, via: u16, gone: bool) {
        let mut state = self.lock();
        let Some(host) = state.staging.host_mut(via) else { return };
        host.epoch = None;
        host.gone |= gone;
        host.on_way.clear();
        host.queue.clear();
        let back: Vec<u32> =
            state.staging.flights.extract_if(.., |_, flight| flight.waits.contains(&via)).map(|(no, _)| no).collect();
        for host in &mut state.staging.hosts {
            host.queue.retain(|(no, _)| !back.contains(no));
        }
        for send in &mut state.sends {
            send.take_back(|(lane, no)| lane == Lane::Staged && back.contains(&no));
        }
        self.end_sends(&mut state);
        self.room.notify_all();
    }

    /// Whether an intermediary owes answers.
    pub(super) fn awaits(&self, via: u16) -> bool {
        self.lock().staging.host(via).is_some_and(|host| !host.on_way.is_empty())
    }

    /// Takes an intermediary out of the map: the pages that nobody else has, but for those that are dirty, of which it had no newest
    /// version.
    pub(super) fn reclaim(&self, via: u16) -> Result<Bitmap, ExecError> {
        let mut state = self.lock();
        let dirty = state.tracker.as_mut().map_or_else(|| Ok(Bitmap::default()), DirtyTracker::log)?;
        let Some(host) = state.staging.host_mut(via) else { return Ok(Bitmap::default()) };
        let mut alone = std::mem::take(&mut host.pages);
        alone.remove_all(&dirty);
        for host in &state.staging.hosts {
            alone.remove_all(&host.pages);
        }
        Ok(alone)
    }

    /// Where everything is that is staged.
    pub(super) fn places(&self) -> Vec<(Vec<u16>, Vec<Extent>)> {
        self.lock().staging.places()
    }
}

impl State {
    /// Puts a batch into the queue of an intermediary, and of others if several are to keep it.
    fn load(&mut self, via: u16) -> Load {
        let Some((index, holders)) = self.choose(via) else { return Load::Wait(self.look_again()) };
        let batch = match self.batch(index, None) {
            Next::Batch(batch, _) => batch,
            Next::Skipped => return Load::Skipped,
            Next::Wait(wait) => return Load::Wait(wait),
        };
        let no = self.staging.next;
        // After 2^32 batches numbers come again; none of those still on their way is that old.
        self.staging.next = no.wrapping_add(1);
        self.sends[index].launch((Lane::Staged, no), batch.extents.clone());
        for &holder in &holders {
            if let Some(host) = self.staging.host_mut(holder) {
                host.queue.push_back((no, batch.clone()));
            }
        }
        self.staging.flights.insert(no, Flight { waits: holders.clone(), holders, refused: Vec::new() });
        Load::Again
    }

    /// The first send of which an intermediary may get a batch, and who else gets it.
    fn choose(&self, via: u16) -> Option<(usize, Vec<u16>)> {
        let window = self.window();
        let load = |via: u16| self.staging.host(via).filter(|host| host.epoch.is_some() && !host.gone).map(Host::load);
        if load(via)? >= window {
            return None;
        }
        self.sends.iter().enumerate().find_map(|(index, send)| {
            if !send.has_more() || !send.via.contains(&via) || self.destination_takes(send) {
                return None;
            }
            let left = send.via.iter().filter(|&&v| !self.staging.is_gone(v)).count();
            let copies = usize::from(send.copies).clamp(1, left.max(1));
            let ready = |&v: &u16| v != via && load(v).is_some_and(|load| load < window);
            let mut others: Vec<u16> = send.via.iter().copied().filter(ready).collect();
            if others.len() + 1 < copies {
                return None;
            }
            others.sort_by_key(|&v| load(v));
            others.truncate(copies - 1);
            others.insert(0, via);
            Some((index, others))
        })
    }
}

/// Bytes that an intermediary keeps, when they are worth being told.
pub(super) fn is_news(told: Bytes, held: Bytes) -> bool {
    const STEP: u64 = 1 << 20;
    held.0.abs_diff(told.0) >= STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pages: impl IntoIterator<Item = u64>) -> Bitmap {
        pages.into_iter().map(PageIndex).collect()
    }

    #[test]
    fn places_name_every_page_once_with_all_who_have_it() {
        let mut staging = Staging::of(3);
        for (host, pages) in staging.hosts.iter_mut().zip([set(0..10), set(5..15), set([7, 8, 14, 30])]) {
            host.pages = pages;
        }
        let places = staging.places();
        let found: BTreeMap<u64, Vec<u16>> = places
            .iter()
            .flat_map(|(via, extents)| extents.iter().flat_map(move |e| e.iter().map(move |page| (page.0, via.clone()))))
            .collect();
        let named: u64 = places.iter().flat_map(|(_, extents)| extents).map(|e| e.pages).sum();
        assert_eq!(named as usize, found.len(), "a page is named twice");
        for page in 0..40 {
            let holders: Vec<u16> =
                (0..).zip(&staging.hosts).filter(|(_, h)| h.pages.contains(PageIndex(page))).map(|(v, _)| v).collect();
            assert_eq!(found.get(&page).cloned().unwrap_or_default(), holders, "page {page}");
        }
        staging.forget(&set([0, 7, 30]));
        assert_eq!(staging.hosts.iter().map(|h| h.pages.count()).collect::<Vec<_>>(), [8, 9, 2]);
    }

    #[test]
    fn a_flight_is_over_when_all_have_answered() {
        let mut staging = Staging::of(2);
        staging.flights.insert(4, Flight { holders: vec![0, 1], waits: vec![0, 1], refused: Vec::new() });
        assert!(staging.answered(4, 1, false).is_none() && staging.answered(9, 0, true).is_none());
        let flight = staging.answered(4, 0, true).unwrap();
        assert_eq!((flight.holders, flight.refused), (vec![0, 1], vec![1]));
        assert!(staging.answered(4, 0, true).is_none());
    }
}
