//! Least traffic *[ours]*: Deshpande and Keahey (CCGrid 2015) leave the traffic at candidate destinations as future work. What a
//! destination receives competes with the migrations to it, so guests go where the least is received.

use crate::drain::{Loads, Rooms};
use crate::policy::PolicyEntry;
use crate::units::Bytes;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "least-traffic",
    origin: "livemig; future work of Deshpande and Keahey, CCGrid 2015",
    summary: "of the candidates with room the one that receives least, with guests on their way to it",
};

/// Looks at candidates in the order of their traffic until one has room: usually the first.
pub(super) fn choose(rooms: &Rooms, received: &Loads, memory: Bytes) -> Option<usize> {
    rooms.largest().filter(|&largest| largest >= memory)?;
    received.ascending().find(|&i| rooms.open_with(i, memory))
}
