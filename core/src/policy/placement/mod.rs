//! Which of the hosts that have room takes a guest in a drain.

mod first_fit;
mod least_traffic;
mod most_room;

use super::PolicyEntry;
use super::selection::WINDOW;
use crate::drain::{Loads, Rooms};
use crate::units::{Bytes, Span};

/// Every placement, as listed.
pub const ENTRIES: [PolicyEntry; 3] = [first_fit::ENTRY, most_room::ENTRY, least_traffic::ENTRY];

/// How a destination is chosen among the candidates. Each is as good as the other at finding *a* host: none is found only when no
/// candidate has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// The first candidate with room.
    #[default]
    FirstFit,
    /// The candidate with the most room.
    MostRoom,
    /// The candidate with room that receives least.
    LeastTraffic,
}

impl Placement {
    /// The placement called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Placement> {
        [Placement::FirstFit, Placement::MostRoom, Placement::LeastTraffic]
            .into_iter()
            .find(|placement| placement.entry().name == name)
    }

    /// The placement as listed.
    #[must_use]
    pub fn entry(self) -> &'static PolicyEntry {
        match self {
            Placement::FirstFit => &ENTRIES[0],
            Placement::MostRoom => &ENTRIES[1],
            Placement::LeastTraffic => &ENTRIES[2],
        }
    }

    /// Over which time rates are to be measured, if it depends on what hosts receive.
    #[must_use]
    pub fn window(self) -> Option<Span> {
        match self {
            Placement::FirstFit | Placement::MostRoom => None,
            Placement::LeastTraffic => Some(WINDOW),
        }
    }

    /// The number of a candidate that has room for `memory`. `received` is the bytes per second that each receives.
    #[must_use]
    pub fn choose(self, rooms: &Rooms, received: &Loads, memory: Bytes) -> Option<usize> {
        match self {
            Placement::FirstFit => first_fit::choose(rooms, memory),
            Placement::MostRoom => most_room::choose(rooms, memory),
            Placement::LeastTraffic => least_traffic::choose(rooms, received, memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_placement_takes_a_host_with_room() {
        let mut rooms = Rooms::closed(4);
        for (host, room) in [(0, 3), (1, 5), (2, 9), (3, 9)] {
            rooms.open(host, Bytes(room));
        }
        let mut received = Loads::none(4);
        for (host, load) in [(0, 7), (1, 5), (2, 6)] {
            received.set(host, load);
        }
        rooms.close(3);
        rooms.open(3, Bytes(2));
        let all = [Placement::FirstFit, Placement::MostRoom, Placement::LeastTraffic];
        let chosen = |memory| all.map(|p| p.choose(&rooms, &received, Bytes(memory)));
        assert_eq!(chosen(2), [Some(0), Some(2), Some(3)]);
        assert_eq!(chosen(3), [Some(0), Some(2), Some(1)]);
        assert_eq!(chosen(4), [Some(1), Some(2), Some(1)]);
        assert_eq!(chosen(6), [Some(2), Some(2), Some(2)]);
        assert_eq!(chosen(10), [None, None, None]);
    }

    #[test]
    fn names_lead_back_to_their_placements() {
        for entry in &ENTRIES {
            assert_eq!(Placement::named(entry.name).unwrap().entry().name, entry.name);
        }
        assert_eq!(Placement::named("best-fit"), None);
    }
}
