//! The migrations that are under way or observed. A migration keeps its number; once its result was handed over it takes 8 bytes.

use crate::drive::Drive;
use crate::fidelity::Fidelity;
use std::ops::{Index, IndexMut};

pub(crate) struct Drives<F: Fidelity> {
    all: Vec<Option<Box<Drive<F>>>>,
}

impl<F: Fidelity> Drives<F> {
    pub(crate) fn with_capacity(count: usize) -> Drives<F> {
        Drives { all: Vec::with_capacity(count) }
    }

    /// Adds a migration and gives it its number.
    pub(crate) fn add(&mut self, drive: Drive<F>) -> u32 {
        let number = u32::try_from(self.all.len()).expect("a run counts its migrations in 32 bits");
        self.all.push(Some(Box::new(drive)));
        number
    }

    /// Whether the migration's result is still to come. Something may be due for a migration that is gone.
    pub(crate) fn has(&self, m: u32) -> bool {
        self.all[m as usize].is_some()
    }

    pub(crate) fn take(&mut self, m: u32) -> Option<Box<Drive<F>>> {
        self.all[m as usize].take()
    }

    /// The numbers of those whose results are still to come.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.all).filter(|(_, drive)| drive.is_some()).map(|(m, _)| m)
    }
}

impl<F: Fidelity> Index<usize> for Drives<F> {
    type Output = Drive<F>;

    fn index(&self, m: usize) -> &Drive<F> {
        self.all[m].as_deref().expect("the result of a migration that does something is still to come")
    }
}

impl<F: Fidelity> IndexMut<usize> for Drives<F> {
    fn index_mut(&mut self, m: usize) -> &mut Drive<F> {
        self.all[m].as_deref_mut().expect("the result of a migration that does something is still to come")
    }
}
