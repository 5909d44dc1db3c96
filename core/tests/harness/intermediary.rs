//! An intermediary: it keeps pages for the destination, as many as it has room for, until the destination has everything.

use std::collections::BTreeMap;

use livemig_core::units::PageIndex;

use super::channel::Lane;
use super::memory::{Content, ZEROS};
use super::wire::{Batch, Envelope, Message};

/// A host that stages pages.
#[derive(Debug)]
pub(crate) struct Intermediary {
    via: u16,
    session: u32,
    /// Of each page the newest version that has come, and its frame.
    store: BTreeMap<PageIndex, (u32, Content)>,
    /// Room, in pages.
    capacity: u64,
    /// It takes no part in the next migration.
    pub(crate) refuses_room: bool,
    pub(crate) state: ViaState,
}

/// Whether anything gets through to an intermediary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ViaState {
    #[default]
    Up,
    /// Its link is cut, or it is away for a while.
    Down,
    Dead,
}

impl Intermediary {
    pub(crate) fn new(via: u16, capacity: u64) -> Intermediary {
        Intermediary { via, session: 0, store: BTreeMap::new(), capacity, refuses_room: false, state: ViaState::Up }
    }

    /// The version that it has of a page, with its frame.
    pub(crate) fn get(&self, page: PageIndex) -> Option<(u32, Content)> {
        self.store.get(&page).copied()
    }

    pub(crate) fn pages(&self) -> u64 {
        self.store.len() as u64
    }

    pub(crate) fn die(&mut self) {
        self.state = ViaState::Dead;
        self.store.clear();
    }

    /// Takes a message; perhaps there is an answer.
    pub(crate) fn receive(&mut self, envelope: Envelope) -> Option<(Lane, Message)> {
        if envelope.session < self.session {
            return None;
        }
        if envelope.session > self.session {
            self.session = envelope.session;
            self.store.clear();
        }
        let lane = usize::from(self.via);
        match envelope.message {
            Message::Stage(batch) => Some((Lane::Stored(lane), self.keep(batch))),
            Message::Fetch(page) => {
                let (frame, content) = self.get(page)?;
                Some((Lane::Fetched(lane), Message::Fetched { via: self.via, page, frame, content }))
            }
            Message::Free => {
                self.store.clear();
                None
            }
            other => unreachable!("{other:?} arrives at an intermediary"),
        }
    }

    /// Keeps what is newer than what it has, as long as there is room.
    fn keep(&mut self, batch: Batch) -> Message {
        let mut refused = Vec::new();
        for (page, content) in batch.pages {
            let known = self.get(page).map(|(frame, _)| frame);
            if known.is_none() && self.pages() >= self.capacity {
                refused.push(page);
            } else if known.is_none_or(|frame| frame < batch.frame) {
                self.store.insert(page, (batch.frame, content.unwrap_or(ZEROS)));
            }
        }
        Message::Stored { via: self.via, frame: batch.frame, refused }
    }
}

/// A set of intermediaries, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vias(u8);

impl Vias {
    pub(crate) fn of(vias: &[u16]) -> Vias {
        Vias(vias.iter().fold(0, |bits, via| bits | 1 << via))
    }

    pub(crate) fn contains(self, via: u16) -> bool {
        self.0 & 1 << via != 0
    }

    pub(crate) fn remove(&mut self, via: u16) {
        self.0 &= !(1 << via);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn count(self) -> u64 {
        u64::from(self.0.count_ones())
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u16> {
        (0..8).filter(move |&via| self.contains(via))
    }
}
