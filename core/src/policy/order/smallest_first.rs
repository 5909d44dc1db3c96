//! Smallest first: shortest job first, which gives the least mean waiting time (Smith, Naval Research Logistics 3, 1956).

use super::Traits;
use crate::policy::PolicyEntry;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "smallest-first",
    origin: "shortest job first (Smith 1956)",
    summary: "the guest with the least memory leaves first: least waiting on average",
};

pub(super) fn rank(guest: &Traits) -> u64 {
    guest.memory.0
}
