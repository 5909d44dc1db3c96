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
use super::probing::{Errand, Parcel, WaitingRoom};
use super::sender::{Batch, Next, Sender, State};
use super::sends::Lane;
use crate::error::ExecError;
use crate::memory::{DirtyTracker, runs_of};
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PageIndex};
use livemig_core::vocabulary::Event;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// What the source knows of intermediaries.
#[derive(Debug, Default)]
pub(super) struct Staging {
    hosts: Vec<Host>,
    /// Batches that have not been answered by all intermediaries that they went to.
    pub(super) flights: BTreeMap<u32, Flight>,
    next: u32,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    /// By what it is known, whatever its number in this migration.
    pub(super) identity: u64,
    /// The connection of this epoch is in use; `None` when there is none.
    pub(super) epoch: Option<u32>,
    gone: bool,
    /// What is to be written.
    pub(super) queue: VecDeque<Parcel>,
    /// What is in frames without an answer.
    pub(super) on_way: BTreeMap<u32, Parcel>,
    /// What is to be asked for again.
    pub(super) waiting: WaitingRoom,
    /// What it has in the newest version.
    pages: Bitmap,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) holders: Vec<u16>,
    /// Those that have not answered.
    waits: Vec<u16>,
    /// Those that have no room.
    refused: Vec<u16>,
    /// Pages that they had, each copy counted.
    had: u64,
}

impl Host {
    pub(super) fn is_up(&self) -> bool {
        self.epoch.is_some() && !self.gone
    }

    pub(super) fn load(&self) -> usize {
        self.queue.len() + self.on_way.len()
    }

    /// Whether anything of a flight is still to be done here.
    fn is_busy_with(&self, flight: u32) -> bool {
        let mut parcels = self.queue.iter().chain(self.on_way.values());
        parcels.any(|parcel| parcel.flight == flight) || self.waiting.contains(flight)
    }

    /// Nothing more of these flights is to be done here.
    fn drop_parcels(&mut self, of: impl Fn(u32) -> bool) {
        self.queue.retain(|parcel| !of(parcel.flight));
        self.waiting.retain(|flight| !of(flight));
    }
}

impl Staging {
    /// These intermediaries may be used, which have numbers from 0 on.
    pub(super) fn of(identities: &[u64]) -> Staging {
        let host = |&identity: &u64| Host { identity, ..Host::default() };
        Staging { hosts: identities.iter().map(host).collect(), ..Staging::default() }
    }

    pub(super) fn is_used(&self) -> bool {
        !self.hosts.is_empty()
    }

    pub(super) fn host(&self, via: u16) -> Option<&Host> {
        self.hosts.get(usize::from(via))
    }

    pub(super) fn host_mut(&mut self, via: u16) -> Option<&mut Host> {
        self.hosts.get_mut(usize::from(via))
    }

    pub(super) fn hosts_mut(&mut self) -> impl Iterator<Item = &mut Host> {
        self.hosts.iter_mut()
    }

    /// A batch is on its way to these intermediaries, as a parcel for each; its number.
    pub(super) fn post(&mut self, holders: &[u16], batch: &Batch, errand: &Errand) -> u32 {
        let no = self.next;
        // After 2^32 batches numbers come again; none of those still on their way is that old.
        self.next = no.wrapping_add(1);
        for &holder in if *errand == Errand::Sort { &holders[..1] } else { holders } {
            if let Some(host) = self.host_mut(holder) {
                host.queue.push_back(Parcel { flight: no, batch: batch.clone(), errand: errand.clone() });
            }
        }
        self.flights.insert(no, Flight { waits: holders.to_vec(), holders: holders.to_vec(), refused: Vec::new(), had: 0 });
        no
    }

    /// An intermediary had so many pages of a flight; whether that is still on its way, and not refused.
    pub(super) fn had(&mut self, no: u32, pages: u64) -> bool {
        let Some(flight) = self.flights.get_mut(&no) else { return false };
        flight.had += pages;
        flight.refused.is_empty()
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

    /// An intermediary has answered: the flight, if all of its have answered everything.
    fn answered(&mut self, no: u32, via: u16, stored: bool) -> Option<Flight> {
        let flight = self.flights.get_mut(&no)?;
        let host = self.hosts.get_mut(usize::from(via))?;
        if !stored {
            host.drop_parcels(|flight| flight == no);
            if !flight.refused.contains(&via) {
                flight.refused.push(via);
            }
        }
        if host.is_busy_with(no) {
            return None;
        }
        flight.waits.retain(|&v| v != via);
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
    /// The next parcel for an intermediary; waits until there is one. `None` when its connection of this epoch is done with. It goes in
    /// the frame with this number.
    pub(super) fn next_staged(&self, via: u16, epoch: u32, seq: u32) -> Option<Parcel> {
        let mut state = self.lock();
        loop {
            let host = state.staging.host_mut(via).filter(|host| host.epoch == Some(epoch))?;
            let now = Instant::now();
            if let Some(parcel) = host.waiting.next(now).or_else(|| host.queue.pop_front()) {
                if parcel.errand != Errand::Sort {
                    host.on_way.insert(seq, parcel.clone());
                }
                return Some(parcel);
            }
            let again = host.waiting.wait(now).unwrap_or(Duration::MAX);
            let wait = match state.load(via) {
                Load::Again => {
                    self.room.notify_all();
                    continue;
                }
                Load::Skipped => {
                    self.end_sends(&mut state);
                    continue;
                }
                Load::Wait(wait) => wait.min(again),
            };
            state = self.room.wait_timeout(state, wait).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// An intermediary has answered a frame; whether it was the last that it owed an answer.
    pub(super) fn stored(&self, via: u16, epoch: u32, seq: u32, stored: bool) -> bool {
        let mut state = self.lock();
        let Some(host) = state.staging.host_mut(via).filter(|host| host.epoch == Some(epoch)) else { return false };
        let Some(parcel) = host.on_way.remove(&seq) else { return false };
        let last = host.on_way.is_empty();
        self.settle(&mut state, via, parcel.flight, stored);
        last
    }

    /// An intermediary has answered something of a flight, which may be over with that.
    pub(super) fn settle(&self, state: &mut State, via: u16, no: u32, stored: bool) {
        if let Some(flight) = state.staging.answered(no, via, stored) {
            if flight.refused.is_empty() {
                self.landed(state, no, &flight);
            } else {
                self.refused(state, no, &flight);
            }
            self.end_sends(state);
        }
        self.room.notify_all();
    }

    /// A batch is kept by everybody that it went to. Pages that have joined their send again meanwhile are staged in an old version.
    fn landed(&self, state: &mut State, no: u32, flight: &Flight) {
        let landed = state.sends.iter_mut().find_map(|send| {
            let (extents, _) = send.acknowledged((Lane::Staged, no))?;
            send.had(flight.had);
            Some(extents)
        });
        let Some(extents) = landed else { return };
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

    /// The intermediaries that are reached at these addresses may be used.
    pub(super) fn use_intermediaries(&self, at: impl Iterator<Item = SocketAddr>) {
        let identities: Vec<u64> = at.map(|at| xxh3_64(at.to_string().as_bytes())).collect();
        self.lock().staging = Staging::of(&identities);
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
        host.waiting = WaitingRoom::default();
        let back: Vec<u32> =
            state.staging.flights.extract_if(.., |_, flight| flight.waits.contains(&via)).map(|(no, _)| no).collect();
        for host in &mut state.staging.hosts {
            host.drop_parcels(|no| back.contains(&no));
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
        let errand = if self.sends[index].dedup { Errand::Sort } else { Errand::Send };
        let no = self.staging.post(&holders, &batch, &errand);
        self.sends[index].launch((Lane::Staged, no), batch.extents);
        Load::Again
    }

    /// The first send of which an intermediary may get a batch, and who else gets it.
    fn choose(&self, via: u16) -> Option<(usize, Vec<u16>)> {
        let load = |via: u16| self.staging.host(via).filter(|host| host.is_up()).map(Host::load);
        let mine = load(via)?;
        self.sends.iter().enumerate().find_map(|(index, send)| {
            // Where a batch is a question first as many again may be on their way.
            let window = self.window() * if send.dedup { 2 } else { 1 };
            if mine >= window || !send.has_more() || !send.via.contains(&via) || self.destination_takes(send) {
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
        let mut staging = Staging::of(&[0; 3]);
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
        let mut staging = Staging::of(&[0; 2]);
        staging.flights.insert(4, Flight { holders: vec![0, 1], waits: vec![0, 1], refused: Vec::new(), had: 0 });
        assert!(staging.answered(4, 1, false).is_none() && staging.answered(9, 0, true).is_none());
        let flight = staging.answered(4, 0, true).unwrap();
        assert_eq!((flight.holders, flight.refused), (vec![0, 1], vec![1]));
        assert!(staging.answered(4, 0, true).is_none());
    }
}
