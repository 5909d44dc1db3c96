//! Which of the hosts that have room takes a guest in a drain.

mod first_fit;
mod most_room;

use super::PolicyEntry;
use crate::drain::Rooms;
use crate::units::Bytes;

/// Every placement, as listed.
pub const ENTRIES: [PolicyEntry; 2] = [first_fit::ENTRY, most_room::ENTRY];

/// How a destination is chosen among the candidates. Each is as good as the other at finding *a* host: none is found only when no
/// candidate has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// The first candidate with room.
    #[default]
    FirstFit,
    /// The candidate with the most room.
    MostRoom,
}

impl Placement {
    /// The placement called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Placement> {
        [Placement::FirstFit, Placement::MostRoom].into_iter().find(|placement| placement.entry().name == name)
    }

    /// The placement as listed.
    #[must_use]
    pub fn entry(self) -> &'static PolicyEntry {
        match self {
            Placement::FirstFit => &ENTRIES[0],
            Placement::MostRoom => &ENTRIES[1],
        }
    }

    /// The number of a candidate that has room for `memory`.
    #[must_use]
    pub fn choose(self, rooms: &Rooms, memory: Bytes) -> Option<usize> {
        match self {
            Placement::FirstFit => first_fit::choose(rooms, memory),
            Placement::MostRoom => most_room::choose(rooms, memory),
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
        let chosen = |memory| [Placement::FirstFit, Placement::MostRoom].map(|p| p.choose(&rooms, Bytes(memory)));
        assert_eq!(chosen(3), [Some(0), Some(2)]);
        assert_eq!(chosen(4), [Some(1), Some(2)]);
        assert_eq!(chosen(10), [None, None]);
    }

    #[test]
    fn names_lead_back_to_their_placements() {
        for entry in &ENTRIES {
            assert_eq!(Placement::named(entry.name).unwrap().entry().name, entry.name);
        }
        assert_eq!(Placement::named("best-fit"), None);
    }
}
