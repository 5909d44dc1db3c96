//! Where is room: a search for the first of many numbers that is large enough.

use crate::units::Bytes;

/// Rooms by number, each open with some bytes or closed. A tree of maxima: changing one and finding the first that is large enough
/// take a number of steps that grows with the logarithm of their number. 16 to 32 bytes each.
#[derive(Clone, Debug, Default)]
pub struct Rooms {
    /// Node `i` has children `2 i` and `2 i + 1`; the leaves are the last half. Zero is closed, otherwise bytes + 1.
    tree: Vec<u64>,
}

impl Rooms {
    /// So many rooms, all closed.
    #[must_use]
    pub fn closed(count: usize) -> Rooms {
        Rooms { tree: vec![0; 2 * count.next_power_of_two()] }
    }

    /// Room `i` has these bytes.
    pub fn open(&mut self, i: usize, room: Bytes) {
        self.set(i, room.0.saturating_add(1));
    }

    /// Room `i` takes nothing.
    pub fn close(&mut self, i: usize) {
        self.set(i, 0);
    }

    fn set(&mut self, i: usize, value: u64) {
        let mut node = self.tree.len() / 2 + i;
        if self.tree[node] == value {
            return;
        }
        self.tree[node] = value;
        while node > 1 {
            node /= 2;
            let max = self.tree[2 * node].max(self.tree[2 * node + 1]);
            if self.tree[node] == max {
                break;
            }
            self.tree[node] = max;
        }
    }

    /// Whether room `i` is open and has at least these bytes.
    #[must_use]
    pub fn open_with(&self, i: usize, least: Bytes) -> bool {
        self.tree[self.tree.len() / 2 + i] >= least.0.saturating_add(1)
    }

    /// The largest open room.
    #[must_use]
    pub fn largest(&self) -> Option<Bytes> {
        self.tree.get(1).filter(|&&value| value > 0).map(|value| Bytes(value - 1))
    }

    /// The first open room that is at least so large.
    #[must_use]
    pub fn first(&self, least: Bytes) -> Option<usize> {
        let least = least.0.saturating_add(1);
        if self.tree.get(1).is_none_or(|&value| value < least) {
            return None;
        }
        let (mut node, leaves) = (1, self.tree.len() / 2);
        while node < leaves {
            node = 2 * node + usize::from(self.tree[2 * node] < least);
        }
        Some(node - leaves)
    }
}

/// Needs by number, some of them pending: the mirror image of [`Rooms`].
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    mirrored: Rooms,
}

/// Turns needs into rooms so that less becomes more.
fn mirror(bytes: Bytes) -> Bytes {
    Bytes(u64::MAX - 1 - bytes.0.min(u64::MAX - 1))
}

impl Needs {
    pub(super) fn none(count: usize) -> Needs {
        Needs { mirrored: Rooms::closed(count) }
    }

    /// Need `i` is pending.
    pub(super) fn put(&mut self, i: usize, need: Bytes) {
        self.mirrored.open(i, mirror(need));
    }

    /// Need `i` is not pending.
    pub(super) fn clear(&mut self, i: usize) {
        self.mirrored.close(i);
    }

    /// The least pending need.
    pub(super) fn least(&self) -> Option<Bytes> {
        self.mirrored.largest().map(mirror)
    }

    /// The first pending need that fits into `room`.
    pub(super) fn first(&self, room: Bytes) -> Option<usize> {
        self.mirrored.first(mirror(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extremes_are_told_apart() {
        let mut rooms = Rooms::closed(3);
        assert_eq!((rooms.first(Bytes(0)), rooms.largest()), (None, None));
        rooms.open(1, Bytes(0));
        rooms.open(2, Bytes(u64::MAX));
        assert_eq!((rooms.first(Bytes(0)), rooms.first(Bytes(1)), rooms.first(Bytes(u64::MAX))), (Some(1), Some(2), Some(2)));
        assert_eq!(Rooms::default().first(Bytes(0)), None);
        assert_eq!(Rooms::closed(0).largest(), None);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_through_the_list_finds(
            count in 1..40usize,
            changes in prop::collection::vec((any::<usize>(), prop::option::of(0..50u64), 0..50u64), 1..200),
        ) {
            let (mut rooms, mut needs) = (Rooms::closed(count), Needs::none(count));
            let mut list: Vec<Option<u64>> = vec![None; count];
            for (i, value, asked) in changes {
                let i = i % count;
                list[i] = value;
                match value {
                    Some(value) => { rooms.open(i, Bytes(value)); needs.put(i, Bytes(value)); }
                    None => { rooms.close(i); needs.clear(i); }
                }
                prop_assert_eq!(rooms.first(Bytes(asked)), list.iter().position(|v| v.is_some_and(|v| v >= asked)));
                prop_assert_eq!(needs.first(Bytes(asked)), list.iter().position(|v| v.is_some_and(|v| v <= asked)));
                prop_assert_eq!(rooms.largest(), list.iter().flatten().max().map(|&v| Bytes(v)));
                prop_assert_eq!(needs.least(), list.iter().flatten().min().map(|&v| Bytes(v)));
            }
        }
    }
}
