//! What the destination knows of staged pages: where each of them is, and what it has asked for there.

use std::collections::BTreeMap;

use livemig_core::units::{PageIndex, Span};
use livemig_core::vocabulary::CmdId;

use super::channel::MAX_VIAS;
use super::intermediary::{ViaState, Vias};

/// Where a page is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The frame in which it was sent there.
    pub(crate) frame: u32,
    pub(crate) holders: Vias,
}

/// A gathering under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    pub(crate) id: CmdId,
    /// Between two requests, by its limit.
    pub(crate) pace: Span,
}

/// The places of the pages that the destination lacks.
#[derive(Debug, Default)]
pub(crate) struct Places {
    located: BTreeMap<PageIndex, Place>,
    /// Of each page, the frame from which on a version is newer than what the destination has, or has been told to forget. Empty
    /// where no intermediary takes part.
    newer_from: Vec<u32>,
    /// Requests without an answer, and to whom they went.
    fetching: BTreeMap<PageIndex, u16>,
    pub(crate) links: [ViaState; MAX_VIAS],
    pub(crate) gathering: Option<Gathering>,
}

impl Places {
    /// Of `pages` pages, some of which may be staged.
    pub(crate) fn of(pages: u64, links: [ViaState; MAX_VIAS]) -> Places {
        Places { newer_from: vec![0; usize::try_from(pages).unwrap()], links, ..Places::default() }
    }

    /// The places of another session.
    pub(crate) fn renewed(&self) -> Places {
        Places::of(self.newer_from.len() as u64, self.links)
    }

    pub(crate) fn get(&self, page: PageIndex) -> Option<Place> {
        self.located.get(&page).copied()
    }

    /// Whether a version of this frame is newer than what is here.
    pub(crate) fn is_newer(&self, page: PageIndex, frame: u32) -> bool {
        self.newer_from.get(usize::try_from(page.0).unwrap()).is_none_or(|&from| frame >= from)
    }

    /// A page is staged; whether that is news.
    pub(crate) fn locate(&mut self, page: PageIndex, place: Place, believes_all: bool) -> bool {
        let news = self.is_newer(page, place.frame) && self.get(page).is_none_or(|known| known.frame < place.frame);
        if news || believes_all {
            self.located.insert(page, place);
        }
        news
    }

    /// The version of this frame is here: no other of up to then is of interest.
    pub(crate) fn arrived(&mut self, page: PageIndex, frame: u32) {
        if let Some(from) = self.newer_from.get_mut(usize::try_from(page.0).unwrap()) {
            *from = (*from).max(frame + 1);
            if self.located.get(&page).is_some_and(|known| known.frame <= frame) {
                self.located.remove(&page);
            }
            self.fetching.remove(&page);
        }
    }

    /// Every version below this frame is to be forgotten.
    pub(crate) fn forget(&mut self, page: PageIndex, below: u32) {
        if below > 0 {
            self.arrived(page, below - 1);
        }
    }

    /// An intermediary that has the page and has not failed.
    pub(crate) fn has_holder(&self, page: PageIndex) -> bool {
        self.get(page).is_some_and(|p| p.holders.iter().any(|via| self.links[usize::from(via)] != ViaState::Dead))
    }

    /// Requests the page, unless that has been done or nobody can be asked now: whom.
    pub(crate) fn fetch(&mut self, page: PageIndex) -> Option<u16> {
        if self.fetching.contains_key(&page) {
            return None;
        }
        let via = self.get(page)?.holders.iter().find(|&via| self.links[usize::from(via)] == ViaState::Up)?;
        self.fetching.insert(page, via);
        Some(via)
    }

    /// The next requests of the gathering, so that at most `window` are without an answer.
    pub(crate) fn gather(&mut self, window: usize) -> Vec<(PageIndex, u16)> {
        let mut requests = Vec::new();
        let mut after = None;
        while self.gathering.is_some() && self.fetching.len() < window {
            let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let Some((&page, _)) = self.located.range((from, std::ops::Bound::Unbounded)).next() else { break };
            after = Some(page);
            requests.extend(self.fetch(page).map(|via| (page, via)));
        }
        requests
    }

    /// What was requested there has to be requested again.
    pub(crate) fn link_changed(&mut self, via: u16, link: ViaState, lost: bool) {
        self.links[usize::from(via)] = link;
        if lost {
            self.fetching.retain(|_, asked| *asked != via);
        }
    }

    /// Pages that nobody has any more.
    pub(crate) fn orphans(&self) -> u64 {
        self.located.keys().filter(|&&page| !self.has_holder(page)).count() as u64
    }

    pub(crate) fn len(&self) -> u64 {
        self.located.len() as u64
    }
}
