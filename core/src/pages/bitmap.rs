//! Pages with identity: one bit per page. Used wherever pages are real: real guests, page fidelity, the byte harness.

use super::{PageSet, proportions};
use crate::units::{Bytes, PAGE_SIZE, PageIndex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of page indices.
#[derive(Clone, Debug, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    count: u64,
}

impl Bitmap {
    /// The set of all pages from 0 up to and without `pages`.
    #[must_use]
    pub fn full(pages: u64) -> Bitmap {
        (0..pages).map(PageIndex).collect()
    }

    /// Number of pages in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether `page` is in the set.
    #[must_use]
    pub fn contains(&self, page: PageIndex) -> bool {
        let (word, bit) = position(page);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Puts `page` in; whether it was not there before.
    pub fn insert(&mut self, page: PageIndex) -> bool {
        let (word, bit) = position(page);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(fresh);
        fresh
    }

    /// Takes `page` out; whether it was there.
    pub fn remove(&mut self, page: PageIndex) -> bool {
        let (word, bit) = position(page);
        let Some(w) = self.words.get_mut(word) else { return false };
        let there = *w & bit != 0;
        *w &= !bit;
        self.count -= u64::from(there);
        there
    }

    /// The first page of the set at or after `from`.
    #[must_use]
    pub fn next_at(&self, from: PageIndex) -> Option<PageIndex> {
        let (mut word, bit) = position(from);
        let mut bits = self.words.get(word)? & !(bit - 1);
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
        }
        Some(PageIndex(word as u64 * 64 + u64::from(bits.trailing_zeros())))
    }

    /// The last page of the set at or before `from`.
    #[must_use]
    pub fn prev_at(&self, from: PageIndex) -> Option<PageIndex> {
        if self.words.is_empty() {
            return None;
        }
        let from = from.0.min(self.words.len() as u64 * 64 - 1);
        let (mut word, bit) = position(PageIndex(from));
        let mut bits = self.words[word] & (bit | (bit - 1));
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.words[word];
        }
        Some(PageIndex(word as u64 * 64 + 63 - u64::from(bits.leading_zeros())))
    }

    /// How many pages from `first` on, upwards and without a gap, are in the set; at most `limit`.
    #[must_use]
    pub fn run_from(&self, first: PageIndex, limit: u64) -> u64 {
        let (mut word, _) = position(first);
        let mut offset = first.0 % 64;
        let mut run = 0;
        while run < limit {
            let Some(bits) = self.words.get(word) else { break };
            let ones = u64::from((bits >> offset).trailing_ones());
            run += ones;
            if ones < 64 - offset {
                break;
            }
            word += 1;
            offset = 0;
        }
        run.min(limit)
    }

    /// How many pages from `last` on, downwards and without a gap, are in the set; at most `limit`.
    #[must_use]
    pub fn run_until(&self, last: PageIndex, limit: u64) -> u64 {
        let (mut word, _) = position(last);
        let mut above = 63 - last.0 % 64;
        let mut run = 0;
        while run < limit {
            let Some(bits) = self.words.get(word) else { break };
            let ones = u64::from((bits << above).leading_ones());
            run += ones;
            let Some(next) = word.checked_sub(1) else { break };
            if ones < 64 - above {
                break;
            }
            word = next;
            above = 0;
        }
        run.min(limit)
    }

    /// Takes `pages` pages from `first` on out; how many of them were there.
    pub fn remove_run(&mut self, first: PageIndex, pages: u64) -> u64 {
        let mut removed = 0;
        for (word, mask) in masks(first, pages) {
            let Some(w) = self.words.get_mut(word) else { break };
            removed += u64::from((*w & mask).count_ones());
            *w &= !mask;
        }
        self.count -= removed;
        removed
    }

    /// Puts `pages` pages from `first` on in; how many of them were not there before.
    pub fn insert_run(&mut self, first: PageIndex, pages: u64) -> u64 {
        let mut fresh = 0;
        for (word, mask) in masks(first, pages) {
            if word >= self.words.len() {
                self.words.resize(word + 1, 0);
            }
            fresh += u64::from((mask & !self.words[word]).count_ones());
            self.words[word] |= mask;
        }
        self.count += fresh;
        fresh
    }

    /// Takes every page of `other` out; how many of them were there.
    pub fn remove_all(&mut self, other: &Bitmap) -> u64 {
        let mut removed = 0;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            removed += u64::from((*mine & theirs).count_ones());
            *mine &= !theirs;
        }
        self.count -= removed;
        removed
    }

    /// Puts every page of `other` in; how many of them were not there before.
    pub fn insert_all(&mut self, other: &Bitmap) -> u64 {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        let mut fresh = 0;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            fresh += u64::from((theirs & !*mine).count_ones());
            *mine |= theirs;
        }
        self.count += fresh;
        fresh
    }

    /// How many pages are both here and in `other`.
    #[must_use]
    pub fn common(&self, other: &Bitmap) -> u64 {
        self.words.iter().zip(&other.words).map(|(mine, theirs)| u64::from((mine & theirs).count_ones())).sum()
    }

    /// The pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PageIndex> + '_ {
        let mut next = PageIndex(0);
        std::iter::from_fn(move || {
            let page = self.next_at(next)?;
            next = PageIndex(page.0 + 1);
            Some(page)
        })
    }
}

/// As the bytes of its words, little-endian, without what is empty at the end: equal sets are equal bytes.
impl Serialize for Bitmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self.words.iter().rposition(|&w| w != 0).map_or(0, |last| last + 1);
        let bytes: Vec<u8> = self.words[..used].iter().flat_map(|w| w.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bitmap, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = Bitmap;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the bytes of 64-bit words")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bitmap, E> {
                let (words, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                let words: Vec<u64> = words.iter().map(|w| u64::from_le_bytes(*w)).collect();
                let count = words.iter().map(|w| u64::from(w.count_ones())).sum();
                Ok(Bitmap { words, count })
            }
        }
        deserializer.deserialize_bytes(Words)
    }
}

/// Sets are equal when they hold the same pages, however far their words reach.
impl PartialEq for Bitmap {
    fn eq(&self, other: &Bitmap) -> bool {
        let common = self.words.len().min(other.words.len());
        self.count == other.count && self.words[..common] == other.words[..common]
    }
}

impl Eq for Bitmap {}

fn position(page: PageIndex) -> (usize, u64) {
    let word = usize::try_from(page.0 / 64).expect("a page index that fits memory");
    (word, 1 << (page.0 % 64))
}

/// The words that hold the pages of a run, each with the bits of those pages.
fn masks(first: PageIndex, pages: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = first.0.checked_add(pages).expect("a page index that fits 64 bits");
    let mut next = first.0;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let (word, _) = position(PageIndex(next));
        let offset = next % 64;
        let bits = (64 - offset).min(end - next);
        next += bits;
        Some((word, (u64::MAX >> (64 - bits)) << offset))
    })
}

impl FromIterator<PageIndex> for Bitmap {
    fn from_iter<I: IntoIterator<Item = PageIndex>>(pages: I) -> Bitmap {
        let mut set = Bitmap::default();
        for page in pages {
            set.insert(page);
        }
        set
    }
}

impl PageSet for Bitmap {
    fn len(&self) -> Bytes {
        Bytes(self.count * PAGE_SIZE)
    }

    fn take(&mut self, limit: Bytes) -> Bitmap {
        let mut taken = Bitmap::default();
        let mut next = PageIndex(0);
        for _ in 0..limit.pages() {
            let Some(page) = self.next_at(next) else { break };
            self.remove(page);
            taken.insert(page);
            next = page;
        }
        taken
    }

    fn split(mut self, weights: &[u64]) -> Vec<Bitmap> {
        proportions(self.count, weights).into_iter().map(|part| self.take(Bytes::from_pages(part))).collect()
    }

    fn merge(&mut self, other: Bitmap) {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            assert!(*mine & theirs == 0, "merged page sets overlap");
            *mine |= theirs;
        }
        self.count += other.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn bytes_that_are_no_words_are_no_set() {
        let bytes = postcard::to_stdvec(&Bitmap::full(70)).unwrap();
        assert_eq!(bytes.len(), 17);
        assert!(postcard::from_bytes::<Bitmap>(&[15; 16]).is_err());
        assert!(postcard::from_bytes::<Bitmap>(&bytes[..16]).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(pages in proptest::collection::btree_set(0u64..300, 0..80), from in 0u64..320, limit in 0u64..90) {
            let mut set: Bitmap = pages.iter().copied().map(PageIndex).collect();
            prop_assert_eq!(set.count(), pages.len() as u64);
            prop_assert_eq!(set.next_at(PageIndex(from)).map(|p| p.0), pages.range(from..).next().copied());
            prop_assert_eq!(set.prev_at(PageIndex(from)).map(|p| p.0), pages.range(..=from).next_back().copied());
            let taken = set.take(Bytes::from_pages(limit));
            let first: BTreeSet<u64> = pages.iter().copied().take(usize::try_from(limit).unwrap()).collect();
            prop_assert_eq!(taken.iter().map(|p| p.0).collect::<BTreeSet<_>>(), first);
            // What has been emptied takes no bytes, and the count comes back with the pages.
            let back: Bitmap = postcard::from_bytes(&postcard::to_stdvec(&set).unwrap()).unwrap();
            prop_assert_eq!((back.count(), &back), (set.count(), &set));
            set.merge(taken);
            prop_assert_eq!(set.iter().map(|p| p.0).collect::<BTreeSet<_>>(), pages);
        }

        #[test]
        fn runs_agree_with_single_pages(gaps in proptest::collection::btree_set(0u64..300, 0..12), at in 0u64..320, limit in 1u64..200) {
            let mut set = Bitmap::full(300);
            for &gap in &gaps {
                set.remove(PageIndex(gap));
            }
            let up = (at..at + limit).take_while(|&p| set.contains(PageIndex(p))).count() as u64;
            let down = (0..=at).rev().take_while(|&p| set.contains(PageIndex(p))).count() as u64;
            prop_assert_eq!(set.run_from(PageIndex(at), limit), up);
            prop_assert_eq!(set.run_until(PageIndex(at), limit), down.min(limit));

            let before: BTreeSet<u64> = set.iter().map(|p| p.0).collect();
            let inside = before.range(at..at + limit).count() as u64;
            prop_assert_eq!(set.remove_run(PageIndex(at), limit), inside);
            prop_assert_eq!(set.count(), before.len() as u64 - inside);
            prop_assert_eq!(set.run_from(PageIndex(at), 1), 0);
            prop_assert_eq!(set.insert_run(PageIndex(at), limit), limit);
            let after: BTreeSet<u64> = before.iter().copied().chain(at..at + limit).collect();
            prop_assert_eq!(set.count(), after.len() as u64);
            prop_assert_eq!(set.iter().map(|p| p.0).collect::<BTreeSet<_>>(), after);
        }

        #[test]
        fn whole_sets_agree_with_sets_of_numbers(a in proptest::collection::btree_set(0u64..300, 0..80), b in proptest::collection::btree_set(0u64..300, 0..80)) {
            let set = |pages: &BTreeSet<u64>| pages.iter().copied().map(PageIndex).collect::<Bitmap>();
            let both = a.intersection(&b).count() as u64;
            prop_assert_eq!(set(&a).common(&set(&b)), both);
            let (mut less, mut more) = (set(&a), set(&a));
            prop_assert_eq!(less.remove_all(&set(&b)), both);
            prop_assert_eq!(more.insert_all(&set(&b)), b.len() as u64 - both);
            prop_assert_eq!(less.count(), a.len() as u64 - both);
            prop_assert_eq!(less.iter().map(|p| p.0).collect::<Vec<_>>(), a.difference(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(more.iter().map(|p| p.0).collect::<Vec<_>>(), a.union(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(more.count(), a.union(&b).count() as u64);
        }

        #[test]
        fn a_split_loses_nothing(pages in proptest::collection::btree_set(0u64..300, 0..80), weights in proptest::collection::vec(0u64..5, 1..5)) {
            prop_assume!(weights.iter().any(|&w| w > 0));
            let set: Bitmap = pages.iter().copied().map(PageIndex).collect();
            let mut whole = Bitmap::default();
            for part in set.split(&weights) {
                whole.merge(part);
            }
            prop_assert_eq!(whole.iter().map(|p| p.0).collect::<BTreeSet<_>>(), pages);
        }
    }

    #[test]
    fn equal_sets_may_reach_differently_far() {
        let mut a = Bitmap::full(3);
        a.insert(PageIndex(1000));
        assert_ne!(a, Bitmap::full(3));
        a.remove(PageIndex(1000));
        assert_eq!(a, Bitmap::full(3));
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_sets_are_refused() {
        let mut a = Bitmap::full(3);
        a.merge(Bitmap::full(1));
    }
}
