//! Most room (worst fit): guests are spread, and so is their traffic; `OpenStack` nova's RAM weigher does the same.

use crate::drain::Rooms;
use crate::policy::PolicyEntry;
use crate::units::Bytes;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "most-room",
    origin: "worst fit; OpenStack nova RAMWeigher",
    summary: "the candidate with the most free memory: guests are spread over hosts",
};

pub(super) fn choose(rooms: &Rooms, memory: Bytes) -> Option<usize> {
    rooms.largest().filter(|&largest| largest >= memory).and_then(|largest| rooms.first(largest))
}
