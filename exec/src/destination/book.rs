//! What a destination knows of its pages.

use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{PageIndex, Span};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Which pages are here, and which the guest waits for.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Whole and in their newest version, as far as the source has sent it.
    received: Bitmap,
    /// Where memory has pages, be they the newest or not, so that something can be received there in place.
    touched: Bitmap,
    /// Since when the guest waits.
    waiting: BTreeMap<u64, Instant>,
    /// Waits that are over and not reported.
    stalls: Vec<Span>,
    /// When the last page came straight from the source.
    last: Option<Instant>,
}

impl Book {
    /// Memory has these pages now.
    pub(super) fn touch(&mut self, extent: Extent) {
        self.touched.insert_run(extent.first, extent.pages);
    }

    /// Whether memory has pages at all of these places.
    pub(super) fn are_touched(&self, extents: &[Extent]) -> bool {
        extents.iter().all(|e| self.touched.run_from(e.first, e.pages) == e.pages)
    }

    /// These pages have come from the source.
    pub(super) fn arrived(&mut self, extent: Extent) {
        self.last = Some(Instant::now());
        self.fetched(extent);
    }

    /// These pages are here.
    pub(super) fn fetched(&mut self, extent: Extent) {
        self.received.insert_run(extent.first, extent.pages);
        let now = Instant::now();
        if !self.waiting.is_empty() {
            let waited: Vec<u64> =
                self.waiting.range(extent.first.0..extent.first.0 + extent.pages).map(|(&page, _)| page).collect();
            for page in waited {
                if let Some(since) = self.waiting.remove(&page) {
                    let waited = now.duration_since(since).as_nanos();
                    self.stalls.push(Span(u64::try_from(waited).unwrap_or(u64::MAX)));
                }
            }
        }
    }

    /// These pages are not here any more.
    pub(super) fn discard(&mut self, pages: &Bitmap) {
        self.received.remove_all(pages);
        self.touched.remove_all(pages);
    }

    /// The guest waits for a page: `None` when it is here, otherwise whether this was not known.
    pub(super) fn wants(&mut self, page: PageIndex) -> Option<bool> {
        if self.received.contains(page) {
            return None;
        }
        let fresh = !self.waiting.contains_key(&page.0);
        if fresh {
            self.waiting.insert(page.0, Instant::now());
        }
        Some(fresh)
    }

    /// All pages that the guest waits for.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.waiting.keys().copied().collect()
    }

    /// Those pages of an extent that the guest waits for.
    pub(super) fn waiting_in(&self, extent: Extent) -> Vec<u64> {
        self.waiting.range(extent.first.0..extent.first.0 + extent.pages).map(|(&page, _)| page).collect()
    }

    /// Pages that the guest has waited for longer than this.
    pub(super) fn waiting_for(&self, time: Duration) -> Vec<u64> {
        self.waiting.iter().filter(|(_, since)| since.elapsed() > time).map(|(&page, _)| page).collect()
    }

    pub(super) fn is_waited_for(&self, page: PageIndex) -> bool {
        self.waiting.contains_key(&page.0)
    }

    pub(super) fn is_here(&self, page: PageIndex) -> bool {
        self.received.contains(page)
    }

    /// All pages that are here.
    pub(super) fn received(&self) -> &Bitmap {
        &self.received
    }

    pub(super) fn take_stalls(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.stalls)
    }

    pub(super) fn last_arrival(&self) -> Option<Instant> {
        self.last
    }

    /// How many of this many pages are missing.
    pub(super) fn missing(&self, of: u64) -> u64 {
        of - self.received.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, pages: u64) -> Extent {
        Extent { first: PageIndex(first), pages }
    }

    #[test]
    fn a_page_is_asked_for_once_and_its_wait_is_measured_once() {
        let mut book = Book::default();
        book.arrived(extent(0, 4));
        assert_eq!(book.wants(PageIndex(3)), None);
        assert_eq!(
            (book.wants(PageIndex(4)), book.wants(PageIndex(4)), book.wants(PageIndex(9))),
            (Some(true), Some(false), Some(true))
        );
        book.arrived(extent(4, 2));
        assert_eq!((book.waiting(), book.take_stalls().len(), book.take_stalls().len()), (vec![9], 1, 0));
        assert_eq!(book.missing(10), 4);
        book.touch(extent(0, 6));
        assert!(book.are_touched(&[extent(0, 4), extent(4, 2)]) && !book.are_touched(&[extent(0, 2), extent(5, 2)]));
        let mut stale = Bitmap::default();
        stale.insert(PageIndex(1));
        book.discard(&stale);
        assert_eq!((book.missing(10), book.wants(PageIndex(1))), (5, Some(true)));
        assert!(!book.are_touched(&[extent(0, 4)]) && book.are_touched(&[extent(2, 4)]));
    }
}
