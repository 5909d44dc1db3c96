//! What is in a page. Each write depends on what was there before, so that a write to an old version can never be repaired.

use livemig_core::pages::Bitmap;
use livemig_core::units::PageIndex;

/// What is in a page: a counter of its writes, and a checksum over the history of who wrote what.
pub(crate) type Content = [u64; 2];

/// What tells contents apart. Two that differ and have the same hash are as rare as in a real driver, whose hashes are longer.
pub(crate) type Hash = u64;

pub(crate) fn hash(content: Content) -> Hash {
    let [count, check] = content;
    count.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ check
}

/// What a guest holds in the beginning: zeros, pages of two kinds that are equal among themselves, and pages that are equal to no other.
pub(crate) fn initial(page: PageIndex) -> Content {
    let kind = if page.0 % 5 < 2 { PageIndex(page.0 % 5) } else { page };
    if page.0.is_multiple_of(3) { ZEROS } else { written(ZEROS, kind, kind.0) }
}

/// A page that nobody has written yet, or that was cleared.
pub(crate) const ZEROS: Content = [0; 2];

/// What `page` holds after the guest's step `step` has written to it.
pub(crate) fn written(old: Content, page: PageIndex, step: u64) -> Content {
    let [count, check] = old;
    let mixed = (check ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ page.0.wrapping_mul(0xd6e8_feb8_6659_fd93)).rotate_left(29);
    [count + 1, mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1]
}

/// How often a page was written since it was cleared, for traces.
pub(crate) fn version(content: Content) -> u64 {
    content[0]
}

/// A host's copy of a guest's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pages: Vec<Content>,
    present: Bitmap,
}

impl Memory {
    /// Memory of which nothing is there.
    pub(crate) fn missing(pages: u64) -> Memory {
        Memory { pages: vec![ZEROS; usize::try_from(pages).unwrap()], present: Bitmap::default() }
    }

    /// Memory of which everything is there.
    pub(crate) fn whole(pages: Vec<Content>) -> Memory {
        let present = Bitmap::full(pages.len() as u64);
        Memory { pages, present }
    }

    /// The page, if it is there.
    pub(crate) fn get(&self, page: PageIndex) -> Option<Content> {
        self.present.contains(page).then(|| self.pages[index(page)])
    }

    pub(crate) fn put(&mut self, page: PageIndex, content: Content) {
        self.pages[index(page)] = content;
        self.present.insert(page);
    }

    pub(crate) fn discard(&mut self, page: PageIndex) {
        self.present.remove(page);
    }

    /// How many pages are there.
    pub(crate) fn present(&self) -> u64 {
        self.present.count()
    }
}

pub(crate) fn index(page: PageIndex) -> usize {
    usize::try_from(page.0).unwrap()
}
