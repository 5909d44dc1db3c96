//! Pages that are counted, not named: the simulator's representation, where a round costs the same for 1 GiB and 1 TiB.

use super::{PageSet, proportions};
use crate::units::Bytes;

/// How many page classes a [`Counted`] set tells apart. A class is a part of memory that the workload treats alike (hot, cold,
/// untouched); classes lie one behind the other in address order.
pub const CLASSES: usize = 8;

/// Bytes per page class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    bytes: [u64; CLASSES],
}

impl Counted {
    /// The set with `bytes[c]` bytes of class `c`.
    #[must_use]
    pub fn new(bytes: [u64; CLASSES]) -> Counted {
        Counted { bytes }
    }

    /// The bytes per class, in address order.
    #[must_use]
    pub fn classes(&self) -> &[u64; CLASSES] {
        &self.bytes
    }
}

impl PageSet for Counted {
    fn len(&self) -> Bytes {
        Bytes(self.bytes.iter().sum())
    }

    fn take(&mut self, limit: Bytes) -> Counted {
        let mut left = limit.0;
        let mut taken = Counted::default();
        for (from, to) in self.bytes.iter_mut().zip(&mut taken.bytes) {
            *to = left.min(*from);
            *from -= *to;
            left -= *to;
        }
        taken
    }

    fn split(mut self, weights: &[u64]) -> Vec<Counted> {
        proportions(self.len().0, weights).into_iter().map(|part| self.take(Bytes(part))).collect()
    }

    fn merge(&mut self, other: Counted) {
        for (to, from) in self.bytes.iter_mut().zip(other.bytes) {
            *to = to.checked_add(from).expect("more bytes than 64 bits count");
        }
    }
}
