//! The contents of pages of migrations with deduplication: each is kept once, for as long as a page of any of them refers to it.
//!
//! A content that is not here and that somebody has been told to send is *coming*. Whoever else asks for it meanwhile hears that, and asks
//! again: guests that leave together would otherwise all send what they have in common, at the same time.

use super::Room;
use crate::content::Page;
use crate::memory::ReadPages;
use crate::wire::fingerprint::{Fingerprint, Fingerprints};
use crate::wire::stage::Found;
use livemig_core::dedup::ContentIndex;
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages that are forgotten before others may ask something.
const AT_ONCE: usize = 4096;

/// A page of a session.
type Holder = (u32, PageIndex);

/// All contents that an intermediary keeps.
#[derive(Debug)]
pub(super) struct Contents {
    room: Arc<Room>,
    fingerprints: Fingerprints,
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    index: ContentIndex<Fingerprint, Holder>,
    kept: BTreeMap<Fingerprint, Kept>,
    /// What is to be sent, and by whom.
    coming: ContentIndex<Fingerprint, Holder>,
    /// Bytes that each session is charged with: of a content that several refer to, each has its part.
    charges: BTreeMap<u32, u64>,
    /// Contents that have gone and whose room has not been given back.
    freed: u64,
}

#[derive(Debug)]
struct Kept {
    page: Arc<Page>,
    /// Who refers to it, and with how many pages.
    sessions: BTreeMap<u32, u64>,
}

impl Kept {
    fn charge(&self) -> u64 {
        PAGE_SIZE / (self.sessions.len() as u64).max(1)
    }
}

impl Shelves {
    fn probe(&mut self, holder: Holder, content: Fingerprint) -> Found {
        if self.coming.content_of(holder) != Some(content) {
            self.coming.forget(holder);
        }
        if self.index.references_to(content) > 0 {
            self.coming.forget(holder);
            self.refer(holder, content);
            Found::Here
        } else if self.coming.references_to(content) > 0 && self.coming.content_of(holder).is_none() {
            Found::Coming
        } else {
            self.coming.refer(holder, content);
            Found::Unknown
        }
    }

    /// Somebody refers to a content that is here.
    fn refer(&mut self, holder: Holder, content: Fingerprint) {
        if self.index.content_of(holder) == Some(content) {
            return;
        }
        self.forget(holder);
        self.index.refer(holder, content);
        self.change(content, |kept| *kept.sessions.entry(holder.0).or_default() += 1);
    }

    fn forget(&mut self, holder: Holder) {
        let Some(content) = self.index.content_of(holder) else { return };
        self.change(content, |kept| {
            let pages = kept.sessions.entry(holder.0).or_default();
            *pages = pages.saturating_sub(1);
            kept.sessions.retain(|_, pages| *pages > 0);
        });
        if self.index.forget(holder).is_some() {
            self.kept.remove(&content);
            self.freed += 1;
        }
    }

    /// Changes who refers to a content, and with it what they are charged.
    fn change(&mut self, content: Fingerprint, how: impl FnOnce(&mut Kept)) {
        let Some(kept) = self.kept.get_mut(&content) else { return };
        for session in kept.sessions.keys() {
            *self.charges.entry(*session).or_default() -= kept.charge();
        }
        how(kept);
        for session in kept.sessions.keys() {
            *self.charges.entry(*session).or_default() += kept.charge();
        }
    }
}

impl Contents {
    pub(super) fn new(room: Arc<Room>, fingerprints: Fingerprints) -> Contents {
        Contents { room, fingerprints, shelves: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, shelves: &mut Shelves) {
        self.room.give_back(std::mem::take(&mut shelves.freed));
    }

    /// Whether the contents of these pages are here. The pages refer to those that are, from now on and no more to older ones; those that
    /// are not are to be sent, unless they are coming.
    pub(super) fn probe(&self, session: u32, asked: &[(PageIndex, Fingerprint)]) -> Vec<Found> {
        let mut shelves = self.lock();
        let found = asked.iter().map(|&(page, content)| shelves.probe((session, page), content)).collect();
        self.give_back(&mut shelves);
        found
    }

    /// Pages have come, some of them marks for zeros: whether there is room for them all. What was here of them is forgotten in any case.
    pub(super) fn keep(&self, session: u32, pages: Vec<(PageIndex, Arc<Page>)>, zeros: &[Extent]) -> bool {
        let pages: Vec<_> = pages.into_iter().map(|(index, page)| (index, self.fingerprints.take(&page), page)).collect();
        let mut shelves = self.lock();
        for page in pages.iter().map(|p| p.0).chain(zeros.iter().flat_map(|e| e.iter())) {
            shelves.forget((session, page));
            shelves.coming.forget((session, page));
        }
        self.give_back(&mut shelves);
        let new: BTreeSet<Fingerprint> = pages.iter().map(|p| p.1).filter(|content| !shelves.kept.contains_key(content)).collect();
        if !self.room.claim(new.len() as u64) {
            return false;
        }
        for (index, content, page) in pages {
            shelves.kept.entry(content).or_insert_with(|| Kept { page, sessions: BTreeMap::new() });
            shelves.refer((session, index), content);
        }
        // A page that is in a frame twice has had a content for a moment.
        self.give_back(&mut shelves);
        true
    }

    /// These pages refer to nothing any more.
    pub(super) fn forget(&self, session: u32, pages: &Bitmap) {
        let mut pages = pages.iter().peekable();
        while pages.peek().is_some() {
            let mut shelves = self.lock();
            pages.by_ref().take(AT_ONCE).for_each(|page| shelves.forget((session, page)));
            self.give_back(&mut shelves);
        }
    }

    /// What was to be sent of these pages does not come.
    pub(super) fn give_up(&self, session: u32, pages: &Bitmap) {
        let mut shelves = self.lock();
        for page in pages.iter() {
            shelves.coming.forget((session, page));
        }
    }

    /// Nothing of this session is needed any more.
    pub(super) fn end(&self, session: u32) {
        self.lock().charges.remove(&session);
    }

    /// Bytes that a session is charged with.
    pub(super) fn held(&self, session: u32) -> Bytes {
        Bytes(self.lock().charges.get(&session).copied().unwrap_or(0))
    }

    /// The contents of these pages; those that refer to nothing are zeros.
    pub(super) fn of(&self, session: u32, pages: &[Extent]) -> Handful {
        let shelves = self.lock();
        let content = |page| {
            let kept = shelves.kept.get(&shelves.index.content_of((session, page))?)?;
            Some((page, kept.page.clone()))
        };
        Handful(pages.iter().flat_map(|e| e.iter()).filter_map(content).collect())
    }
}

/// Pages to be handed out.
#[derive(Debug)]
pub(super) struct Handful(BTreeMap<PageIndex, Arc<Page>>);

impl ReadPages for Handful {
    fn read_page(&self, page: PageIndex, into: &mut Page) {
        *into = self.0.get(&page).map_or(Page::ZERO, |content| **content);
    }

    fn is_zero(&self, page: PageIndex) -> bool {
        self.0.get(&page).is_none_or(|content| **content == Page::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::auth::Key;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn contents(room: u64) -> Contents {
        let room = Arc::new(Room { limit: Some(Bytes::from_pages(room)), held: AtomicU64::new(0) });
        Contents::new(room, Fingerprints::of_run(&Key([7; 32])))
    }

    fn page(number: u64) -> Page {
        Page([number; crate::content::WORDS])
    }

    /// Asks for one page.
    fn probe(contents: &Contents, session: u32, index: u64, number: u64) -> Found {
        contents.probe(session, &[(PageIndex(index), contents.fingerprints.take(&page(number)))])[0]
    }

    fn keep(contents: &Contents, session: u32, pages: &[(u64, u64)]) -> bool {
        let pages = pages.iter().map(|&(index, number)| (PageIndex(index), Arc::new(page(number)))).collect();
        contents.keep(session, pages, &[])
    }

    fn get(contents: &Contents, session: u32, index: u64) -> u64 {
        let mut into = page(99);
        contents.of(session, &[Extent { first: PageIndex(index), pages: 1 }]).read_page(PageIndex(index), &mut into);
        into.0[0]
    }

    fn held(contents: &Contents) -> u64 {
        contents.room.held.load(Ordering::Relaxed) / PAGE_SIZE
    }

    fn set(pages: impl IntoIterator<Item = u64>) -> Bitmap {
        pages.into_iter().map(PageIndex).collect()
    }

    #[test]
    fn a_content_is_kept_once_for_all_and_until_the_last_lets_go() {
        let contents = contents(3);
        assert_eq!(probe(&contents, 1, 5, 50), Found::Unknown);
        assert!(keep(&contents, 1, &[(5, 50), (6, 60)]));
        assert_eq!((probe(&contents, 2, 5, 50), held(&contents)), (Found::Here, 2));
        // Of what both have, each is charged half.
        assert_eq!((contents.held(1).0, contents.held(2).0), (PAGE_SIZE / 2 + PAGE_SIZE, PAGE_SIZE / 2));
        contents.forget(1, &set([5, 6]));
        assert_eq!((held(&contents), get(&contents, 2, 5), contents.held(2).0), (1, 50, PAGE_SIZE));
        contents.forget(2, &set([5]));
        assert_eq!((held(&contents), contents.held(2).0), (0, 0));
        assert_eq!(probe(&contents, 2, 5, 50), Found::Unknown, "it is gone");
    }

    #[test]
    fn a_frame_finds_room_for_all_its_new_contents_or_none() {
        let contents = contents(2);
        assert!(keep(&contents, 1, &[(0, 10), (1, 11), (2, 10)]), "two contents");
        assert!(!keep(&contents, 2, &[(0, 10), (1, 12)]));
        assert_eq!((held(&contents), get(&contents, 2, 0)), (2, 0));
        // A newer version takes the place of the older one.
        assert!(keep(&contents, 1, &[(1, 12)]));
        assert_eq!((held(&contents), get(&contents, 1, 1), get(&contents, 1, 2)), (2, 12, 10));
        // Zeros take no room.
        assert!(contents.keep(1, Vec::new(), &[Extent { first: PageIndex(0), pages: 3 }]));
        assert_eq!((held(&contents), get(&contents, 1, 2)), (0, 0));
    }

    #[test]
    fn what_one_is_about_to_send_is_coming_for_others_until_it_is_here_or_given_up() {
        let contents = contents(10);
        assert_eq!(probe(&contents, 1, 0, 50), Found::Unknown);
        assert_eq!((probe(&contents, 2, 0, 50), probe(&contents, 1, 9, 50)), (Found::Coming, Found::Coming));
        assert_eq!(probe(&contents, 1, 0, 50), Found::Unknown, "the one that sends it");
        contents.give_up(1, &set([0]));
        assert_eq!((probe(&contents, 2, 0, 50), probe(&contents, 1, 0, 50)), (Found::Unknown, Found::Coming));
        // The page has changed: what was to come does not.
        assert_eq!((probe(&contents, 2, 0, 51), probe(&contents, 1, 0, 50)), (Found::Unknown, Found::Unknown));
        assert!(keep(&contents, 2, &[(0, 52)]));
        assert_eq!(probe(&contents, 1, 1, 51), Found::Unknown, "another came in its place");
    }

    proptest! {
        /// Against a list of what each page holds: bytes, room and charges are right whatever is done.
        #[test]
        fn agrees_with_a_list(deeds in proptest::collection::vec((0u8..3, 1u32..4, 0u64..6, 1u64..6), 0..60)) {
            let contents = contents(4);
            let mut list: BTreeMap<(u32, u64), u64> = BTreeMap::new();
            for (deed, session, index, number) in deeds {
                let known = list.values().any(|&n| n == number);
                match deed {
                    0 => {
                        let found = probe(&contents, session, index, number);
                        prop_assert_eq!(found == Found::Here, known);
                        if known {
                            list.insert((session, index), number);
                        }
                    }
                    1 => {
                        list.remove(&(session, index));
                        let distinct: BTreeSet<u64> = list.values().copied().chain([number]).collect();
                        let fits = distinct.len() <= 4;
                        prop_assert_eq!(keep(&contents, session, &[(index, number)]), fits);
                        if fits {
                            list.insert((session, index), number);
                        }
                    }
                    _ => {
                        contents.forget(session, &set([index]));
                        list.remove(&(session, index));
                    }
                }
                let distinct: BTreeSet<u64> = list.values().copied().collect();
                prop_assert_eq!(held(&contents), distinct.len() as u64);
                for session in 1..4 {
                    let users = |n: u64| list.iter().filter(|(_, m)| **m == n).map(|(h, _)| h.0).collect::<BTreeSet<u32>>();
                    let charged = |n: &u64| { let u = users(*n); if u.contains(&session) { PAGE_SIZE / u.len() as u64 } else { 0 } };
                    prop_assert_eq!(contents.held(session).0, distinct.iter().map(charged).sum::<u64>());
                    for index in 0..6 {
                        prop_assert_eq!(get(&contents, session, index), list.get(&(session, index)).copied().unwrap_or(0));
                    }
                }
            }
        }
    }
}
