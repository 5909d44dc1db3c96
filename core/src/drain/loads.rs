//! Who has the least: numbers in the order of their loads.

use std::collections::BTreeSet;

/// Loads by number. A change takes a number of steps that grows with the logarithm of their number.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    of: Vec<u64>,
    ascending: BTreeSet<(u64, usize)>,
}

impl Loads {
    /// So many, all without load.
    #[must_use]
    pub fn none(count: usize) -> Loads {
        Loads { of: vec![0; count], ascending: (0..count).map(|i| (0, i)).collect() }
    }

    /// Number `i` has this load. Nothing is kept of numbers beyond the count.
    pub fn set(&mut self, i: usize, load: u64) {
        let Some(old) = self.of.get_mut(i).filter(|old| **old != load) else { return };
        let old = std::mem::replace(old, load);
        self.ascending.remove(&(old, i));
        self.ascending.insert((load, i));
    }

    /// The numbers, the least load first; of equal ones the first number.
    pub fn ascending(&self) -> impl Iterator<Item = usize> {
        self.ascending.iter().map(|&(_, i)| i)
    }
}
