//! Sets of pages: the seam between counted memory and real memory.
//!
//! A [`PageSet`] is *linear*: pages are taken out of a set, split between sets and merged with disjoint sets, but never
//! copied. Whoever holds a set is responsible for its pages. That two sets overlap is resolved in one place only, the
//! driver's dirty tracker; an algorithm that merges overlapping sets has a bug, and [`Bitmap`] says so.

mod bitmap;
mod counted;

pub use bitmap::Bitmap;
pub use counted::{CLASSES, Counted};

use crate::units::Bytes;

/// A linear set of guest pages, measured in bytes.
pub trait PageSet: Sized + Default + std::fmt::Debug {
    /// The bytes of memory in the set, before any compression or elision.
    fn len(&self) -> Bytes;

    /// Whether the set holds nothing.
    fn is_empty(&self) -> bool {
        self.len().is_zero()
    }

    /// Removes and returns the first `limit` bytes of the set in address order, or all of it when it holds less. Sets of whole
    /// pages round `limit` up to a page.
    #[must_use = "pages that are taken and dropped are lost"]
    fn take(&mut self, limit: Bytes) -> Self;

    /// Divides the set into one part per weight, in proportion to the weights, in address order.
    ///
    /// # Panics
    /// When there are no weights or all are zero.
    #[must_use = "pages that are split off and dropped are lost"]
    fn split(self, weights: &[u64]) -> Vec<Self>;

    /// Adds the pages of `other`, which has none in common with `self`.
    ///
    /// # Panics
    /// When the representation can tell that the sets overlap.
    fn merge(&mut self, other: Self);
}

/// The sizes of the parts into which `total` units fall in proportion to `weights`: they add up to `total`, and no part is more
/// than one unit from its exact share.
pub(crate) fn proportions(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|&w| u128::from(w)).sum();
    assert!(sum > 0, "a split needs a weight above zero");
    let mut cumulated: u128 = 0;
    let mut given = 0;
    weights
        .iter()
        .map(|&w| {
            cumulated += u128::from(w);
            let upto = u64::try_from(u128::from(total) * cumulated / sum).expect("a share is at most the total");
            let part = upto - given;
            given = upto;
            part
        })
        .collect()
}
