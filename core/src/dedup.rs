//! Deduplication by content: what a store of staged pages has, each content once, and who refers to it.
//!
//! Before a page is sent to intermediaries they are asked, by a hash of its content, whether they have it (PROBE; Deshpande et al.,
//! IEEE TCC 2015). If they have, a reference to it is all that they need, whichever VM's page the content came with. A content stays
//! until nobody refers to it any more, and only then is its memory free.
//!
//! Here is the bookkeeping, which is the same wherever pages are: the bytes are the driver's, and so are hash and wire. To probe *is* to
//! refer: were these two steps, the content could go between them.

use std::collections::{BTreeMap, BTreeSet};

/// The contents of a store, by content `K` (a hash, or an identity), and their references, by whom `R` (a page of a VM) they are held.
#[derive(Clone, Debug)]
pub struct ContentIndex<K, R> {
    holders: BTreeMap<K, BTreeSet<R>>,
    content_of: BTreeMap<R, K>,
}

/// What came of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Referred<K> {
    /// The content was not there before: its bytes are to be kept from now on.
    pub is_new: bool,
    /// The content that the same holder referred to until now and nobody else does: its bytes are to be dropped.
    pub freed: Option<K>,
}

impl<K, R> Default for ContentIndex<K, R> {
    fn default() -> ContentIndex<K, R> {
        ContentIndex { holders: BTreeMap::new(), content_of: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, R: Ord + Copy> ContentIndex<K, R> {
    /// Asks for a content on behalf of `holder`, who refers to it from now on if it is there. `None`, and nothing has changed, if it is not.
    pub fn probe(&mut self, holder: R, content: K) -> Option<Referred<K>> {
        self.holders.contains_key(&content).then(|| self.refer(holder, content))
    }

    /// `holder` refers to this content from now on, and no more to what it referred to before.
    pub fn refer(&mut self, holder: R, content: K) -> Referred<K> {
        if self.content_of.get(&holder) == Some(&content) {
            return Referred { is_new: false, freed: None };
        }
        let freed = self.forget(holder);
        let holders = self.holders.entry(content).or_default();
        let is_new = holders.is_empty();
        holders.insert(holder);
        self.content_of.insert(holder, content);
        Referred { is_new, freed }
    }

    /// `holder` refers to nothing any more: the content that nobody refers to now, whose bytes are to be dropped.
    pub fn forget(&mut self, holder: R) -> Option<K> {
        let content = self.content_of.remove(&holder)?;
        let holders = self.holders.get_mut(&content)?;
        holders.remove(&holder);
        let last = holders.is_empty();
        if last {
            self.holders.remove(&content);
        }
        last.then_some(content)
    }

    /// What `holder` refers to.
    #[must_use]
    pub fn content_of(&self, holder: R) -> Option<K> {
        self.content_of.get(&holder).copied()
    }

    /// How many contents there are: the memory that they take, in pages.
    #[must_use]
    pub fn contents(&self) -> u64 {
        self.holders.len() as u64
    }

    /// How many references there are: the memory that they would take without deduplication, in pages.
    #[must_use]
    pub fn references(&self) -> u64 {
        self.content_of.len() as u64
    }

    /// How many refer to this content.
    #[must_use]
    pub fn references_to(&self, content: K) -> u64 {
        self.holders.get(&content).map_or(0, |h| h.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_content_stays_until_its_last_reference_goes() {
        let mut index = ContentIndex::default();
        assert_eq!(index.probe("a", 7), None);
        assert_eq!(index.refer("a", 7), Referred { is_new: true, freed: None });
        assert_eq!(index.probe("b", 7), Some(Referred { is_new: false, freed: None }));
        assert_eq!((index.contents(), index.references(), index.references_to(7)), (1, 2, 2));
        assert_eq!(index.refer("a", 8), Referred { is_new: true, freed: None });
        assert_eq!(index.refer("b", 8), Referred { is_new: false, freed: Some(7) });
        assert_eq!((index.forget("a"), index.forget("a"), index.forget("b")), (None, None, Some(8)));
        assert_eq!((index.contents(), index.references()), (0, 0));
    }

    proptest! {
        /// Against a list of who refers to what, whatever is done in whatever order.
        #[test]
        fn agrees_with_a_list(deeds in proptest::collection::vec((0u8..3, 0u8..6, 0u8..5), 0..80)) {
            let mut index = ContentIndex::default();
            let mut list: Vec<(u8, u8)> = Vec::new();
            for (deed, holder, content) in deeds {
                let there = |list: &[(u8, u8)], c: u8| list.iter().any(|&(_, k)| k == c);
                let (was_there, before) = (there(&list, content), list.iter().find(|l| l.0 == holder).map(|l| l.1));
                let refers = deed == 1 || (deed == 0 && was_there);
                if refers || deed == 2 {
                    list.retain(|l| l.0 != holder);
                }
                if refers {
                    list.push((holder, content));
                }
                let gone = before.filter(|&c| !there(&list, c));
                match deed {
                    0 => prop_assert_eq!(index.probe(holder, content), was_there.then_some(Referred { is_new: false, freed: gone })),
                    1 => prop_assert_eq!(index.refer(holder, content), Referred { is_new: !was_there, freed: gone }),
                    _ => prop_assert_eq!(index.forget(holder), gone),
                }
                prop_assert_eq!(index.references(), list.len() as u64);
                for c in 0..5 {
                    let count = list.iter().filter(|l| l.1 == c).count() as u64;
                    prop_assert_eq!(index.references_to(c), count);
                }
                prop_assert_eq!(index.contents(), (0..5).filter(|&c| there(&list, c)).count() as u64);
                prop_assert_eq!(index.content_of(holder), list.iter().find(|l| l.0 == holder).map(|l| l.1));
            }
        }
    }
}
