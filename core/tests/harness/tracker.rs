//! The dirty tracker: the one place where it is decided which pages must be sent (again).

use std::ops::Range;

use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::units::{Bytes, PageIndex};

/// Which pages count as dirty.
#[derive(Debug, Default)]
pub(crate) struct DirtyTracker {
    tracking: bool,
    dirty: Bitmap,
    /// Where the last limited collection of memory ended, and that of the disk.
    hands: [PageIndex; 2],
}

impl DirtyTracker {
    /// From now on every page counts as dirty until it is collected.
    pub(crate) fn start(&mut self, pages: u64) {
        *self = DirtyTracker { tracking: true, dirty: Bitmap::full(pages), hands: [PageIndex(0); 2] };
    }

    pub(crate) fn wrote(&mut self, page: PageIndex) {
        if self.tracking {
            self.dirty.insert(page);
        }
    }

    pub(crate) fn is_dirty(&self, page: PageIndex) -> bool {
        self.dirty.contains(page)
    }

    /// Bytes of dirty pages of a region.
    pub(crate) fn count(&self, region: Range<u64>) -> Bytes {
        self.dirty.iter().filter(|page| region.contains(&page.0)).collect::<Bitmap>().len()
    }

    /// Takes dirty pages of a region out: all, or as many as `limit` allows, going on where the last limited collection ended.
    pub(crate) fn collect(&mut self, region: Range<u64>, limit: Option<Bytes>) -> Bitmap {
        let mut taken = Bitmap::default();
        let next_at = |dirty: &Bitmap, from| dirty.next_at(from).filter(|page| page.0 < region.end);
        let start = PageIndex(region.start);
        let hand = &mut self.hands[usize::from(region.start > 0)];
        let mut at = if limit.is_some() { (*hand).max(start) } else { start };
        for _ in 0..limit.map_or(u64::MAX, Bytes::pages) {
            let Some(page) = next_at(&self.dirty, at).or_else(|| next_at(&self.dirty, start)) else { break };
            self.dirty.remove(page);
            taken.insert(page);
            at = PageIndex(page.0 + 1);
        }
        if limit.is_some() {
            *hand = at;
        }
        taken
    }

    /// A page counts as clean although nobody has taken it: what a tracker must never do.
    pub(crate) fn forget(&mut self, page: PageIndex) {
        self.dirty.remove(page);
    }

    pub(crate) fn tracking(&self) -> bool {
        self.tracking
    }

    /// Pages count as dirty again; some may have become so by themselves meanwhile.
    pub(crate) fn put_back(&mut self, set: &Bitmap) {
        for page in set.iter() {
            self.dirty.insert(page);
        }
    }
}
