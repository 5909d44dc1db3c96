//! The dirty tracker: the one place where it is decided which pages must be sent (again).

use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::units::{Bytes, PageIndex};

/// Which pages count as dirty.
#[derive(Debug, Default)]
pub(crate) struct DirtyTracker {
    tracking: bool,
    dirty: Bitmap,
    /// Where the last limited collection ended.
    hand: PageIndex,
}

impl DirtyTracker {
    /// From now on every page counts as dirty until it is collected.
    pub(crate) fn start(&mut self, pages: u64) {
        *self = DirtyTracker { tracking: true, dirty: Bitmap::full(pages), hand: PageIndex(0) };
    }

    pub(crate) fn wrote(&mut self, page: PageIndex) {
        if self.tracking {
            self.dirty.insert(page);
        }
    }

    pub(crate) fn is_dirty(&self, page: PageIndex) -> bool {
        self.dirty.contains(page)
    }

    pub(crate) fn count(&self) -> Bytes {
        self.dirty.len()
    }

    /// Takes dirty pages out: all, or as many as `limit` allows, going on where the last limited collection ended.
    pub(crate) fn collect(&mut self, limit: Option<Bytes>) -> Bitmap {
        let Some(limit) = limit else { return std::mem::take(&mut self.dirty) };
        let mut taken = Bitmap::default();
        for _ in 0..limit.pages() {
            let Some(page) = self.dirty.next_at(self.hand).or_else(|| self.dirty.next_at(PageIndex(0))) else { break };
            self.dirty.remove(page);
            taken.insert(page);
            self.hand = PageIndex(page.0 + 1);
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
