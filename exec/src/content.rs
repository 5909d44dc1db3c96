//! What is in a guest's memory before it runs: a pure function of the page.
//!
//! A page is zero, or equal to the page of the same index in every guest with the same shared seed, or this guest's own. Which it is
//! depends on the shared seed and the index only, so that equal pages lie at equal places. The first pages, which the guest writes, are
//! its own in any case.
//!
//! Content is incompressible as far as it goes, and zero behind: eight interleaved xorshift64 sequences (Marsaglia 2003), seeded per page
//! and lane by SplitMix64's mixer, which is bijective: no two pages of a guest are equal.

use crate::codec::{Reader, Writer};
use crate::error::ExecError;
use crate::memory::GuestMemory;
use crate::mix::{GAMMA, mix};
use livemig_core::units::{PAGE_SIZE, PageIndex};

/// The 64-bit words of a page.
pub const WORDS: usize = PAGE_SIZE as usize / 8;

/// A page as words; little-endian in memory, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Page(pub [u64; WORDS]);

impl Page {
    /// A page of zeros.
    pub const ZERO: Page = Page([0; WORDS]);
}

/// How memory is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Content {
    seed: u64,
    shared_seed: u64,
    /// Pages before this one are the guest's own.
    own: u64,
    zero_share: f64,
    shared_share: f64,
    compressed: f64,
}

/// What sort a page is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// All zeros.
    Zero,
    /// Equal in every guest with the same shared seed.
    Shared,
    /// Unlike every other page.
    Own,
}

const LANES: usize = 8;

/// What an LZ4 block of a page has beside the incompressible part, in words: the lengths of that and of the zeros, and the last bytes.
const OVERHEAD: usize = 3;

impl Content {
    /// Incompressible pages that all differ.
    #[must_use]
    pub fn new(seed: u64) -> Content {
        Content { seed, shared_seed: 0, own: 0, zero_share: 0.0, shared_share: 0.0, compressed: 1.0 }
    }

    /// So many pages from the beginning are the guest's own; shares are of the others.
    #[must_use]
    pub fn with_own(mut self, pages: u64) -> Content {
        self.own = pages;
        self
    }

    /// This share of pages, from 0 to 1, is zero.
    #[must_use]
    pub fn with_zero_share(mut self, share: f64) -> Content {
        self.zero_share = share;
        self
    }

    /// This share of the pages that are not zero is equal in all guests with the same `shared_seed`. Of two guests with different shares
    /// the smaller one is what they have in common.
    #[must_use]
    pub fn with_shared(mut self, share: f64, shared_seed: u64) -> Content {
        self.shared_share = share;
        self.shared_seed = shared_seed;
        self
    }

    /// Pages that are not zero have this share of their size, above 0 and up to 1, once they are compressed.
    #[must_use]
    pub fn with_compressed(mut self, share: f64) -> Content {
        self.compressed = share;
        self
    }

    /// How many words of a page that is not zero are incompressible; the others are zero.
    fn dense(&self) -> usize {
        if self.compressed >= 1.0 {
            return WORDS;
        }
        // A page without any would be zero.
        ((self.compressed * WORDS as f64).round() as usize).saturating_sub(OVERHEAD).max(1)
    }

    /// What sort `page` is of.
    #[must_use]
    pub fn sort(&self, page: PageIndex) -> Sort {
        if page.0 < self.own || self.zero_share + self.shared_share <= 0.0 {
            return Sort::Own;
        }
        // 53 bits make a uniform number from 0 to 1 without rounding.
        let uniform = |z: u64| (z >> 11) as f64 / (1u64 << 53) as f64;
        let z = mix(self.shared_seed ^ mix(page.0.wrapping_add(GAMMA)));
        if uniform(z) < self.zero_share {
            Sort::Zero
        } else if uniform(mix(z.wrapping_add(GAMMA))) < self.shared_share {
            Sort::Shared
        } else {
            Sort::Own
        }
    }

    /// Makes `into` the initial content of `page`.
    pub fn make(&self, page: PageIndex, into: &mut Page) {
        match self.sort(page) {
            Sort::Zero => *into = Page::ZERO,
            Sort::Shared => incompressible(self.shared_seed, page, self.dense(), into),
            Sort::Own => incompressible(mix(self.seed ^ GAMMA), page, self.dense(), into),
        }
    }

    /// Fills the whole of a guest's memory, which is zero, with `threads` threads. Pages of zeros are not touched, so the host
    /// need not back them.
    pub fn fill(&self, memory: &GuestMemory, threads: usize) {
        let chunk = memory.pages().div_ceil(threads.max(1) as u64).max(1);
        std::thread::scope(|scope| {
            for first in (0..memory.pages()).step_by(usize::try_from(chunk).unwrap_or(usize::MAX)) {
                scope.spawn(move || {
                    let mut page = Page::ZERO;
                    for index in (first..memory.pages().min(first + chunk)).map(PageIndex) {
                        if self.sort(index) != Sort::Zero {
                            self.make(index, &mut page);
                            memory.write_page(index, &page);
                        }
                    }
                });
            }
        });
    }

    /// Whether the shares are shares.
    pub(crate) fn is_sound(&self) -> bool {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        share(self.zero_share) && share(self.shared_share) && share(self.compressed) && self.compressed > 0.0
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.seed);
        w.u64(self.shared_seed);
        w.u64(self.own);
        w.f64(self.zero_share);
        w.f64(self.shared_share);
        w.f64(self.compressed);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Content, ExecError> {
        let (seed, shared_seed, own) = (r.u64()?, r.u64()?, r.u64()?);
        let content = Content { seed, shared_seed, own, zero_share: r.f64()?, shared_share: r.f64()?, compressed: r.f64()? };
        if content.is_sound() { Ok(content) } else { Err(r.fault("a share that is none")) }
    }
}

/// Makes the first `dense` words of a page incompressible, and the others zero.
fn incompressible(seed: u64, page: PageIndex, dense: usize, into: &mut Page) {
    let base = seed.wrapping_add(page.0.wrapping_mul(LANES as u64).wrapping_mul(GAMMA));
    // A state of zero would stay zero; the bit set instead costs distinctness for one lane in 2^64.
    let mut lanes: [u64; LANES] = std::array::from_fn(|i| mix(base.wrapping_add(GAMMA.wrapping_mul(i as u64))).max(1));
    let (words, rest) = into.0.split_at_mut(dense);
    rest.fill(0);
    for words in words.chunks_mut(LANES) {
        for (word, lane) in words.iter_mut().zip(&mut lanes) {
            *lane ^= *lane << 13;
            *lane ^= *lane >> 7;
            *lane ^= *lane << 17;
            *word = *lane;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn page(content: &Content, index: u64) -> Page {
        let mut page = Page::ZERO;
        content.make(PageIndex(index), &mut page);
        page
    }

    #[test]
    fn own_pages_differ_everywhere_and_shared_pages_agree() {
        let a = Content::new(1).with_zero_share(0.25).with_shared(0.25, 9);
        let b = Content::new(2).with_zero_share(0.25).with_shared(0.25, 9);
        let mut words = BTreeSet::new();
        let mut sorts = [0u32; 3];
        for index in 0..2000 {
            let (sort, pa, pb) = (a.sort(PageIndex(index)), page(&a, index), page(&b, index));
            assert_eq!(sort, b.sort(PageIndex(index)));
            sorts[sort as usize] += 1;
            match sort {
                Sort::Zero => assert!(pa == Page::ZERO && pb == Page::ZERO),
                Sort::Shared => assert!(pa == pb && pa != Page::ZERO),
                Sort::Own => assert!(pa != pb && words.insert(pa.0[0]) && words.insert(pb.0[0])),
            }
        }
        assert!(sorts[0].abs_diff(500) < 100 && sorts[1].abs_diff(375) < 100, "{sorts:?}");
        // Whoever has less in common with the others has that in common with all of them.
        let less = Content::new(3).with_zero_share(0.25).with_shared(0.1, 9).with_own(100);
        let common = (0..2000).map(PageIndex).filter(|&index| less.sort(index) == Sort::Shared);
        assert!(common.inspect(|&index| assert!(index.0 >= 100 && a.sort(index) == Sort::Shared)).count() > 80);
        assert!((0..100).all(|index| less.sort(PageIndex(index)) == Sort::Own));
    }

    /// What a page takes is measured where pages are packed; here, that it is neither more nor less than what is incompressible in it.
    #[test]
    fn pages_are_incompressible_as_far_as_they_are_to_be_and_never_zero() {
        for (share, dense) in [(1.0, 512), (0.5, 253), (0.476, 241), (0.001, 1)] {
            let content = Content::new(3).with_compressed(share);
            for index in 0..64 {
                let page = page(&content, index);
                assert_eq!(page.0[..dense], self::page(&Content::new(3), index).0[..dense], "the same as of any other share");
                assert!(page.0[0] != 0 && page.0[dense..].iter().all(|&word| word == 0), "{share}");
            }
        }
    }

    #[test]
    fn own_pages_do_not_compress() {
        // Every byte value about equally often: 4096 / 256 = 16 per value and page, over 64 pages 1024 with a deviation of 32.
        let mut histogram = [0u32; 256];
        for index in 0..64 {
            for byte in page(&Content::new(3), index).0.iter().flat_map(|w| w.to_le_bytes()) {
                histogram[usize::from(byte)] += 1;
            }
        }
        assert!(histogram.iter().all(|n| n.abs_diff(1024) < 200), "{histogram:?}");
    }
}
