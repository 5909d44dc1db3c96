//! In which order a host's guests leave it in a drain.

mod as_listed;
mod largest_first;
mod least_dirtying_first;
mod smallest_first;

use super::PolicyEntry;
use crate::units::{Bytes, Rate};

/// Every order, as listed.
pub const ENTRIES: [PolicyEntry; 4] = [as_listed::ENTRY, smallest_first::ENTRY, largest_first::ENTRY, least_dirtying_first::ENTRY];

/// What an order may look at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traits {
    /// The guest's memory.
    pub memory: Bytes,
    /// Bytes that it dirties per second, as last told; zero when nothing was told.
    pub dirty: Rate,
}

/// An order of guests. Guests that it holds for equal go in the order in which they are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// As listed.
    #[default]
    AsListed,
    /// The guest with the least memory first.
    SmallestFirst,
    /// The guest with the most memory first.
    LargestFirst,
    /// The guest that dirties the fewest bytes per second first.
    LeastDirtyingFirst,
}

impl Order {
    /// The order called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Order> {
        let all = [Order::AsListed, Order::SmallestFirst, Order::LargestFirst, Order::LeastDirtyingFirst];
        all.into_iter().find(|order| order.entry().name == name)
    }

    /// The order as listed.
    #[must_use]
    pub fn entry(self) -> &'static PolicyEntry {
        match self {
            Order::AsListed => &ENTRIES[0],
            Order::SmallestFirst => &ENTRIES[1],
            Order::LargestFirst => &ENTRIES[2],
            Order::LeastDirtyingFirst => &ENTRIES[3],
        }
    }

    /// Guests go in ascending order of this number.
    #[must_use]
    pub fn rank(self, guest: &Traits) -> u64 {
        match self {
            Order::AsListed => as_listed::rank(guest),
            Order::SmallestFirst => smallest_first::rank(guest),
            Order::LargestFirst => largest_first::rank(guest),
            Order::LeastDirtyingFirst => least_dirtying_first::rank(guest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(order: Order) -> Vec<usize> {
        let guests = [(2, 5.0), (1, 7.0), (3, 0.25), (1, 6.0)]
            .map(|(gib, dirty)| Traits { memory: Bytes::from_gib(gib), dirty: Rate(dirty) });
        let mut indices: Vec<usize> = (0..guests.len()).collect();
        indices.sort_by_key(|&i| (order.rank(&guests[i]), i));
        indices
    }

    #[test]
    fn each_order_sorts_by_what_it_says_and_keeps_the_list_otherwise() {
        assert_eq!(sorted(Order::AsListed), [0, 1, 2, 3]);
        assert_eq!(sorted(Order::SmallestFirst), [1, 3, 0, 2]);
        assert_eq!(sorted(Order::LargestFirst), [2, 0, 1, 3]);
        assert_eq!(sorted(Order::LeastDirtyingFirst), [2, 0, 3, 1]);
    }

    #[test]
    fn names_lead_back_to_their_orders() {
        for entry in &ENTRIES {
            assert_eq!(Order::named(entry.name).unwrap().entry().name, entry.name);
        }
        assert_eq!(Order::named("random"), None);
    }
}
