//! Which pages intermediaries have, at page fidelity, and the wires over which the destination fetches them.

use crate::dedup::Contents;
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::collections::VecDeque;

const PAGE: f64 = PAGE_SIZE as f64;
/// A page on its way has at least so many bytes left, whatever rounding says: it is there only once it is taken off the wire.
const A_LITTLE: f64 = 1.0;

/// One intermediary.
#[derive(Debug, Default)]
struct Place {
    /// Its number.
    via: u16,
    /// Pages of which it has the newest version and the destination has none.
    has: Bitmap,
    /// How many of them other guests may have too.
    shared: u64,
    /// Those that the destination will ask it for, in the order in which they were announced; some may be there no more.
    announced: VecDeque<PageIndex>,
    /// Pages that the guest waits for.
    asked: VecDeque<PageIndex>,
    /// The page on its way to the destination, and the bytes that have not gone.
    on_wire: Option<(PageIndex, f64)>,
    /// Bytes of pages per second.
    rate: f64,
}

/// All intermediaries of one migration.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: Vec<Place>,
    /// Pages that at least one of them has.
    staged: Bitmap,
    /// Bytes of pages that have been fetched.
    pub(super) fetched: f64,
    /// What the guest has in common with others, once intermediaries are asked for it.
    contents: Option<Box<Contents>>,
}

impl Places {
    pub(super) fn staged(&self) -> &Bitmap {
        &self.staged
    }

    fn place(&mut self, via: u16) -> &mut Place {
        let at = self.places.iter().position(|p| p.via == via).unwrap_or_else(|| {
            self.places.push(Place { via, ..Place::default() });
            self.places.len() - 1
        });
        &mut self.places[at]
    }

    fn find(&self, via: u16) -> Option<&Place> {
        self.places.iter().find(|p| p.via == via)
    }

    /// These intermediaries have stored a page; the first of them will be asked for it.
    pub(super) fn store(&mut self, page: PageIndex, holders: impl Iterator<Item = u16>) {
        for (i, via) in holders.enumerate() {
            let place = self.place(via);
            let is_new = place.has.insert(page);
            if i == 0 {
                place.announced.push_back(page);
            }
            let shared = self.contents.as_ref().and_then(|c| c.of(page).map(|content| c.store(page, content, via))).is_some();
            self.place(via).shared += u64::from(shared && is_new);
        }
        self.staged.insert(page);
    }

    pub(super) fn deduplicate(&mut self, contents: Contents) {
        self.contents = Some(Box::new(contents));
    }

    pub(super) fn contents(&self) -> Option<&Contents> {
        self.contents.as_deref()
    }

    /// Of what is stored, the share that other guests may have too.
    pub(super) fn shared_part(&self) -> f64 {
        let stored: u64 = self.places.iter().map(|p| p.has.count()).sum();
        let shared: u64 = self.places.iter().map(|p| p.shared).sum();
        if stored > 0 { shared as f64 / stored as f64 } else { 0.0 }
    }

    /// Whether intermediaries have the content of a page, which they keep for it then: as many of these as there are to be copies.
    pub(super) fn probe(&self, page: PageIndex, via: impl Iterator<Item = u16>, copies: usize) -> bool {
        let content = self.contents.as_ref().and_then(|c| Some((c, c.of(page)?)));
        content.is_some_and(|(contents, content)| contents.probe(page, content, via, copies))
    }

    /// Of these intermediaries, those that keep the content of a page for it.
    pub(super) fn keepers(&self, page: PageIndex, via: impl Iterator<Item = u16>) -> Vec<u16> {
        self.contents.as_ref().map_or_else(Vec::new, |c| via.filter(|&v| c.stores(page, v)).collect())
    }

    /// A page that intermediaries keep a content for goes to them no more.
    pub(super) fn give_up(&self, page: PageIndex) {
        if let Some(contents) = &self.contents {
            self.places.iter().for_each(|place| contents.forget(page, place.via));
        }
    }

    /// A page is stored nowhere any more.
    fn remove(&mut self, page: PageIndex) {
        let shared = self.contents.as_ref().filter(|c| c.of(page).is_some());
        for place in &mut self.places {
            let was_there = place.has.remove(page);
            if let Some(contents) = shared.filter(|_| was_there) {
                place.shared -= 1;
                contents.forget(page, place.via);
            }
        }
    }

    /// The guest waits for a page that is staged.
    pub(super) fn ask(&mut self, page: PageIndex) {
        if let Some(place) = self.places.iter_mut().find(|p| p.has.contains(page)) {
            place.asked.push_back(page);
        }
    }

    /// Nobody has these pages any more: newer versions are on their way, or they have been fetched.
    pub(super) fn forget(&mut self, set: &Bitmap) {
        let old: Vec<PageIndex> =
            if self.contents.is_some() { set.iter().filter(|&page| self.staged.contains(page)).collect() } else { Vec::new() };
        old.into_iter().for_each(|page| self.remove(page));
        if self.staged.remove_all(set) > 0 {
            for place in &mut self.places {
                place.has.remove_all(set);
            }
        }
    }

    /// An intermediary is gone: the pages that only it had. What others have too, the first of them will be asked for.
    pub(super) fn lose(&mut self, via: u16) -> Bitmap {
        let Some(at) = self.places.iter().position(|p| p.via == via) else { return Bitmap::default() };
        let gone = self.places.remove(at);
        if let Some(contents) = &self.contents {
            gone.has.iter().filter(|&page| contents.of(page).is_some()).for_each(|page| contents.forget(page, via));
        }
        let mut lost = gone.has;
        for place in &mut self.places {
            let mut kept = lost.clone();
            let mut elsewhere = lost.clone();
            elsewhere.remove_all(&place.has);
            kept.remove_all(&elsewhere);
            lost = elsewhere;
            place.announced.extend(kept.iter());
            place.asked.extend(gone.asked.iter().copied().filter(|&p| kept.contains(p)));
        }
        self.staged.remove_all(&lost);
        lost
    }

    /// Bytes of pages that an intermediary will be asked for.
    pub(super) fn backlog(&self, via: u16) -> f64 {
        let Some(place) = self.find(via) else { return 0.0 };
        let (on_wire, left) = place.on_wire.map_or((0.0, 0.0), |w| (PAGE, w.1.max(A_LITTLE)));
        let waiting = if self.places.len() == 1 {
            place.has.len().0 as f64 - on_wire
        } else {
            place.announced.iter().filter(|&&p| place.has.contains(p)).count() as f64 * PAGE
        };
        waiting.max(0.0) + left
    }

    /// Bytes of pages that an intermediary has.
    pub(super) fn stored(&self, via: u16) -> f64 {
        self.find(via).map_or(0.0, |p| p.has.len().0 as f64)
    }

    /// Sets the rates of the wires, in bytes of pages per second. A page that is waited for comes as fast as `otherwise` from an
    /// intermediary that is not fetched from.
    pub(super) fn set_rates(&mut self, lanes: &[(u16, f64)], otherwise: f64) {
        for place in &mut self.places {
            let fetched = lanes.iter().find(|l| l.0 == place.via).map_or(0.0, |l| l.1);
            let asked_only = fetched <= 0.0;
            place.rate = if asked_only { otherwise } else { fetched };
            if place.on_wire.is_none() {
                place.load(asked_only);
            }
        }
    }

    /// Seconds until the first page on a wire has come, and on which.
    pub(super) fn next(&self) -> Option<(f64, usize)> {
        let times = self.places.iter().enumerate().filter_map(|(i, p)| Some((p.on_wire?.1 / p.rate, i)).filter(|_| p.rate > 0.0));
        times.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// So many seconds pass.
    pub(super) fn pass(&mut self, seconds: f64) {
        for place in &mut self.places {
            if let Some((_, left)) = &mut place.on_wire {
                *left = (*left - place.rate * seconds).max(0.0);
            }
        }
    }

    /// The page on a wire has come, and is staged no more.
    pub(super) fn unload(&mut self, wire: usize) -> Option<PageIndex> {
        let (page, _) = self.places[wire].on_wire.take()?;
        self.fetched += PAGE;
        self.staged.remove(page);
        self.remove(page);
        Some(page)
    }
}

impl Place {
    /// Puts the next page on the wire: what is waited for first, and nothing else if only that is fetched.
    fn load(&mut self, asked_only: bool) {
        while let Some(page) = self.asked.pop_front() {
            if self.has.contains(page) {
                self.on_wire = Some((page, PAGE));
                return;
            }
        }
        while !asked_only && let Some(page) = self.announced.pop_front() {
            if self.has.contains(page) {
                self.on_wire = Some((page, PAGE));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(all: &[u64]) -> Bitmap {
        all.iter().copied().map(PageIndex).collect()
    }

    #[test]
    fn pages_come_in_the_order_announced_after_those_that_are_waited_for() {
        let mut places = Places::default();
        for page in [3, 1, 2] {
            places.store(PageIndex(page), [0].into_iter());
        }
        places.ask(PageIndex(2));
        let mut come = Vec::new();
        loop {
            places.set_rates(&[(0, PAGE)], 0.0);
            let Some((seconds, wire)) = places.next() else { break };
            assert_eq!(seconds, 1.0);
            places.pass(seconds);
            come.extend(places.unload(wire).map(|p| p.0));
        }
        assert_eq!(come, [2, 3, 1]);
        assert_eq!((places.fetched, places.staged().count()), (3.0 * PAGE, 0));
    }

    #[test]
    fn what_was_stored_twice_is_fetched_from_the_other() {
        let mut places = Places::default();
        places.store(PageIndex(7), [0, 1].into_iter());
        places.store(PageIndex(8), [0].into_iter());
        assert_eq!(places.lose(0), pages(&[8]));
        assert_eq!((places.backlog(1), places.stored(1)), (PAGE, PAGE));
        places.forget(&pages(&[7]));
        assert_eq!((places.backlog(1), places.staged().count()), (0.0, 0));
    }
}
