//! Deduplication at intermediaries: what guests' memories have in common, and what intermediaries have of it.
//!
//! A page that intermediaries have already costs a question and its hash, and leaves the source as fast as pages can be hashed. Where pages
//! have an identity, each intermediary keeps an index of its contents, and a page is looked up when its turn comes. Where they are counted,
//! it is an expectation: of the pages that two guests have in common those that intermediaries store lie at random, so that a page of a guest
//! is known with probability 1 - prod (1 - x), over the other guests of its group, of which the share x of these pages is stored. What is
//! stored of a content takes memory once; each guest is charged its part.

use crate::engine::Engine;
use crate::fidelity::{Fidelity, GuestModel, TransferModel};
use livemig_core::dedup::ContentIndex;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use livemig_models::world::{HostId, Vm};
use std::cell::RefCell;
use std::rc::Rc;

const PAGE: f64 = PAGE_SIZE as f64;
/// In how many steps of the same size a send at class fidelity is looked at for what has become known meanwhile.
const LOOKS: f64 = 512.0;

/// What hosts store, by host: contents by [`Contents::of`], held by the pages of VMs.
pub(crate) type Stored = Rc<RefCell<Vec<ContentIndex<u64, (u32, u64)>>>>;

/// What a question costs the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// Wire bytes, the answer included.
    pub(crate) bytes: f64,
    /// Seconds per page to hash it, by all streams together.
    pub(crate) hash: f64,
}

/// Which pages of a guest may be equal to pages of others, and the hosts that may have their contents.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    vm: u32,
    group: u32,
    share: f64,
    /// The bytes of memory between which these pages lie: behind those that are written, before those of zeros.
    from: f64,
    to: f64,
    /// By the number of the intermediary.
    hosts: Vec<HostId>,
    stored: Stored,
}

impl Contents {
    pub(crate) fn new(id: u32, vm: &Vm, hosts: Vec<HostId>, stored: Stored) -> Contents {
        let memory = vm.memory.0 as f64;
        let (from, to) = (vm.workload.written(vm.memory).0 as f64, memory * (1.0 - vm.zero_share));
        let (share, group) = vm.content.map_or((0.0, u32::MAX), |c| (c.shared, c.group));
        Contents { vm: id, group, share, from, to, hosts, stored }
    }

    /// Bytes of pages that others may have.
    pub(crate) fn bytes(&self) -> f64 {
        self.within(0.0, f64::INFINITY)
    }

    /// Of `size` bytes of memory from `start` on, those of pages that others may have.
    pub(crate) fn within(&self, start: f64, size: f64) -> f64 {
        ((start + size).min(self.to) - start.max(self.from)).max(0.0) * self.share
    }

    /// What is in a page, if others may have it too.
    pub(crate) fn of(&self, page: PageIndex) -> Option<u64> {
        let at = page.0 as f64 * PAGE;
        let content = (u64::from(self.group) << 32) ^ page.0;
        (at >= self.from && at < self.to && fraction(content) < self.share).then_some(content)
    }

    fn index(&self, via: u16) -> usize {
        self.hosts[usize::from(via)].0 as usize
    }

    /// Whether as many of these intermediaries as there are to be copies have a content; those refer to it for this page from now on.
    pub(crate) fn probe(&self, page: PageIndex, content: u64, via: impl Iterator<Item = u16>, copies: usize) -> bool {
        let mut stored = self.stored.borrow_mut();
        let holders: Vec<usize> =
            via.map(|v| self.index(v)).filter(|&host| stored[host].references_to(content) > 0).take(copies).collect();
        let known = holders.len() == copies;
        for host in holders.into_iter().filter(|_| known) {
            stored[host].refer((self.vm, page.0), content);
        }
        known
    }

    /// An intermediary stores a page.
    pub(crate) fn store(&self, page: PageIndex, content: u64, via: u16) {
        self.stored.borrow_mut()[self.index(via)].refer((self.vm, page.0), content);
    }

    /// Whether an intermediary stores the content of a page.
    pub(crate) fn stores(&self, page: PageIndex, via: u16) -> bool {
        self.stored.borrow()[self.index(via)].content_of((self.vm, page.0)).is_some()
    }

    /// A page is not needed at an intermediary any more.
    pub(crate) fn forget(&self, page: PageIndex, via: u16) {
        self.stored.borrow_mut()[self.index(via)].forget((self.vm, page.0));
    }

    /// Contents per reference at an intermediary.
    pub(crate) fn distinct(&self, via: u16) -> f64 {
        let index = &self.stored.borrow()[self.index(via)];
        if index.references() > 0 { index.contents() as f64 / index.references() as f64 } else { 1.0 }
    }
}

/// A number from 0 to 1 that follows from a content and from nothing else (the finalizer of SplitMix64).
fn fraction(content: u64) -> f64 {
    let mut z = content.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// In expectation, what becomes of the pages that go to intermediaries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// The share of the pages that intermediaries have.
    pub(crate) pages: f64,
    /// The share of the wire bytes that need not go; below zero when questions cost more than they save.
    pub(crate) wire: f64,
    /// At most so many wire bytes per second would leave the source if nothing were known, for pages have to be hashed; 0 for no bound.
    pub(crate) fastest: f64,
}

impl<F: Fidelity> Engine<'_, F> {
    /// The guest of a migration learns what its memory has in common with others, when the first of its pages may be asked for.
    pub(crate) fn deduplicate(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        let guest = &mut self.guests[drive.vm.0 as usize].guest;
        if guest.contents().is_none() {
            let vm = &self.world.vms[drive.vm.0 as usize];
            guest.deduplicate(Contents::new(drive.vm.0, vm, drive.via.clone(), self.stored.clone()));
        }
    }

    /// A send that is looked at again and again: after how many wire bytes.
    pub(crate) fn look_after(&self, transfer: &F::Transfer) -> f64 {
        transfer.pending() * transfer.mean_factor() / LOOKS
    }

    pub(crate) fn probe(&self, streams: u16) -> Probe {
        let c = &self.world.calibration;
        Probe { bytes: c.probe_message.0 as f64, hash: c.hash_per_page.as_secs_f64() / f64::from(streams) }
    }

    /// Works out again what intermediaries should know of the pages that come next. The migration is at the present.
    pub(crate) fn look_at_contents(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let Some(front) = drive.carrier.front().filter(|q| q.look.is_some()) else { return };
        let (Some(shared), Some(contents)) = (F::shared_next(guest, &front.transfer), guest.contents()) else { return };
        let mut unknown = 1.0;
        for (theirs, staged) in self.others(m, contents) {
            unknown *= 1.0 - (staged / theirs.max(contents.bytes())).min(1.0);
        }
        let probe = self.probe(front.streams);
        let factor = front.transfer.mean_factor();
        // Until the next look it grows as it has since the last.
        let now = shared * (1.0 - unknown);
        let pages = (now + 0.5 * (now - front.known)).clamp(0.0, shared);
        let fastest = if probe.hash > 0.0 { PAGE * factor / probe.hash } else { 0.0 };
        let known = Known { pages, wire: (pages * self.page_factor(m) - probe.bytes / PAGE) / factor, fastest };
        let carrier = &mut self.drives[m as usize].carrier;
        carrier.front_is_known(now);
        carrier.ways.set_known(known);
    }

    /// Of the other guests that have something in common with this one and use the same intermediaries: how many bytes of memory that is,
    /// and how many of these are staged.
    fn others<'a>(&'a self, m: u32, mine: &'a Contents) -> impl Iterator<Item = (f64, f64)> + 'a {
        let guests =
            self.drives.numbers().filter(move |&u| u != m).map(|u| &self.guests[self.drives[u as usize].vm.0 as usize].guest);
        guests.filter_map(move |guest| {
            let theirs = guest.contents().filter(|c| c.group == mine.group && c.hosts.iter().any(|h| mine.hosts.contains(h)))?;
            Some((theirs.bytes(), guest.staged() * guest.shared_part()))
        })
    }

    /// The part of what an intermediary stores of a migration that it is charged with: all, but of a content that several refer to its share.
    pub(crate) fn charged(&self, m: u32, via: u16) -> f64 {
        let guest = &self.guests[self.drives[m as usize].vm.0 as usize].guest;
        let Some(contents) = guest.contents() else { return 1.0 };
        let shared = guest.shared_part();
        if shared <= 0.0 {
            return 1.0;
        }
        let distinct = guest.distinct(via).unwrap_or_else(|| {
            let own = guest.staged() * shared;
            let most = self.others(m, contents).map(|o| o.0).fold(contents.bytes(), f64::max);
            let (mut absent, mut references) = (1.0 - (own / most).min(1.0), own);
            for (_, staged) in self.others(m, contents) {
                absent *= 1.0 - (staged / most).min(1.0);
                references += staged;
            }
            most * (1.0 - absent) / references
        });
        1.0 - shared * (1.0 - distinct.min(1.0))
    }

    /// Seconds until the send in front, which would be over after `left`, should be looked at again: not below a nanosecond, the grain of
    /// the engine's time.
    pub(crate) fn next_look(&self, m: u32, rate: f64, left: f64) -> f64 {
        let look = self.drives[m as usize].carrier.front().and_then(|q| q.look).filter(|_| rate > 0.0);
        look.map_or(left, |wire| left.min(wire / rate).max(1e-9))
    }
}
