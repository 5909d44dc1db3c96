//! First fit (Garey, Graham and Ullman, STOC 1972): at most 1.7 times the hosts that the best packing needs.

use crate::drain::Rooms;
use crate::policy::PolicyEntry;
use crate::units::Bytes;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "first-fit",
    origin: "Garey, Graham and Ullman 1972",
    summary: "the first candidate with room: hosts fill one after the other",
};

pub(super) fn choose(rooms: &Rooms, memory: Bytes) -> Option<usize> {
    rooms.first(memory)
}
