//! An intermediary: it keeps pages for the destination, as many as it has room for, until the destination has everything. Equal contents
//! take room once if they are to be deduplicated, also those of another VM, which has pages there and fetches them as it likes.

use std::collections::BTreeMap;

use livemig_core::dedup::ContentIndex;
use livemig_core::units::PageIndex;

use super::bugs::Bug;
use super::channel::Lane;
use super::memory::{Content, Hash, ZEROS, hash, initial};
use super::wire::{Batch, Envelope, Message};

/// A host that stages pages.
#[derive(Debug)]
pub(crate) struct Intermediary {
    via: u16,
    session: u32,
    /// Of each page the frame of the newest version that has come.
    frames: BTreeMap<PageIndex, u32>,
    /// Which contents these versions are, and those of the other VM's pages.
    index: ContentIndex<Key, Holder>,
    contents: BTreeMap<Key, Content>,
    /// Room, in pages.
    capacity: u64,
    /// It takes no part in the next migration.
    pub(crate) refuses_room: bool,
    pub(crate) state: ViaState,
    bug: Option<Bug>,
}

/// By what contents are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The page has a content of its own, whatever is in it.
    Of(PageIndex),
    /// Equal contents are the same.
    Equal(Hash),
}

/// Whose page refers to a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Guest(PageIndex),
    Another(PageIndex),
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
    pub(crate) fn new(via: u16, capacity: u64, bug: Option<Bug>) -> Intermediary {
        Intermediary {
            via,
            session: 0,
            frames: BTreeMap::new(),
            index: ContentIndex::default(),
            contents: BTreeMap::new(),
            capacity,
            refuses_room: false,
            state: ViaState::Up,
            bug,
        }
    }

    /// Another VM, which has been like the guest, has staged some of its pages here.
    pub(crate) fn serve_another(&mut self, pages: u64) {
        for page in (u64::from(self.via)..pages.min(64)).step_by(5).map(PageIndex) {
            let content = initial(page);
            self.refer(Holder::Another(page), Key::Equal(hash(content)), content);
        }
    }

    /// A page of the other VM whose content has gone although it needs it.
    pub(crate) fn lost_of_another(&self) -> Option<PageIndex> {
        let pages = (u64::from(self.via)..64).step_by(5).map(PageIndex);
        let lost = |page: &PageIndex| {
            self.index.content_of(Holder::Another(*page)).is_some_and(|key| self.contents.get(&key) != Some(&initial(*page)))
        };
        pages.into_iter().find(lost)
    }

    /// The version that it has of a page, with its frame.
    pub(crate) fn get(&self, page: PageIndex) -> Option<(u32, Content)> {
        let frame = *self.frames.get(&page)?;
        let key = self.index.content_of(Holder::Guest(page))?;
        Some((frame, *self.contents.get(&key)?))
    }

    /// How many pages of the guest it keeps.
    pub(crate) fn pages(&self) -> u64 {
        self.frames.len() as u64
    }

    pub(crate) fn die(&mut self) {
        *self =
            Intermediary { session: self.session, state: ViaState::Dead, ..Intermediary::new(self.via, self.capacity, self.bug) };
    }

    /// Takes a message; perhaps there is an answer.
    pub(crate) fn receive(&mut self, envelope: Envelope) -> Option<(Lane, Message)> {
        if envelope.session < self.session {
            return None;
        }
        if envelope.session > self.session {
            self.session = envelope.session;
            self.free();
        }
        let lane = usize::from(self.via);
        match envelope.message {
            Message::Stage(batch) => Some((Lane::Stored(lane), self.keep(batch))),
            Message::Fetch(page) => {
                let (frame, content) = self.get(page)?;
                Some((Lane::Fetched(lane), Message::Fetched { via: self.via, page, frame, content }))
            }
            Message::Free => {
                self.free();
                None
            }
            other => unreachable!("{other:?} arrives at an intermediary"),
        }
    }

    /// Keeps what is newer than what it has, as long as there is room.
    fn keep(&mut self, batch: Batch) -> Message {
        let (mut refused, mut unknown) = (Vec::new(), Vec::new());
        let newer = |frames: &BTreeMap<PageIndex, u32>, page| frames.get(&page).is_none_or(|&frame| frame < batch.frame);
        for (page, content) in batch.pages {
            let content = content.unwrap_or(ZEROS);
            let key = if batch.dedup { Key::Equal(hash(content)) } else { Key::Of(page) };
            if !self.has_room_for(page, key) {
                refused.push(page);
            } else if newer(&self.frames, page) {
                self.refer(Holder::Guest(page), key, content);
                self.frames.insert(page, batch.frame);
            }
        }
        for (page, hash) in batch.hashes.into_iter().filter(|h| newer(&self.frames, h.0)).collect::<Vec<_>>() {
            let before = self.index.content_of(Holder::Guest(page));
            match self.index.probe(Holder::Guest(page), Key::Equal(hash)) {
                Some(referred) => {
                    self.drop_content(referred.freed, before.filter(|&key| key != Key::Equal(hash)));
                    self.frames.insert(page, batch.frame);
                }
                None => unknown.push(page),
            }
        }
        if batch.frame % 4 == 3 {
            self.another_fetches();
        }
        Message::Stored { via: self.via, frame: batch.frame, refused, unknown }
    }

    /// A page needs room if its content is new and does not take the place of one that goes with it.
    fn has_room_for(&self, page: PageIndex, key: Key) -> bool {
        let before = self.index.content_of(Holder::Guest(page));
        let goes = before.is_some_and(|key| self.index.references_to(key) == 1);
        self.index.references_to(key) > 0 || goes || self.index.contents() < self.capacity
    }

    fn refer(&mut self, holder: Holder, key: Key, content: Content) {
        let before = self.index.content_of(holder);
        let referred = self.index.refer(holder, key);
        self.drop_content(referred.freed, before.filter(|&before| before != key));
        self.contents.insert(key, content);
    }

    /// The content that nobody refers to any more goes.
    fn drop_content(&mut self, freed: Option<Key>, referred_to: Option<Key>) {
        let goes = if self.bug == Some(Bug::SharedContentFreed) { referred_to } else { freed };
        if let Some(key) = goes {
            self.contents.remove(&key);
        }
    }

    fn forget(&mut self, holder: Holder) {
        let before = self.index.content_of(holder);
        let freed = self.index.forget(holder);
        self.drop_content(freed, before);
    }

    /// Nothing of the guest is needed any more.
    fn free(&mut self) {
        for page in std::mem::take(&mut self.frames).into_keys() {
            self.forget(Holder::Guest(page));
        }
    }

    /// The other VM fetches its next page, and needs it no more.
    fn another_fetches(&mut self) {
        let mut pages = (u64::from(self.via)..64).step_by(5).map(PageIndex);
        if let Some(page) = pages.find(|&page| self.index.content_of(Holder::Another(page)).is_some()) {
            self.forget(Holder::Another(page));
        }
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
