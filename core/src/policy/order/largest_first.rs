//! Largest first: longest processing time first, which ends parallel machines evenly (Graham, SIAM J. Appl. Math. 17, 1969), and
//! first fit decreasing, which wastes less room at the destinations (Johnson, 1973).

use super::Traits;
use crate::policy::PolicyEntry;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "largest-first",
    origin: "longest processing time first (Graham 1969); first fit decreasing (Johnson 1973)",
    summary: "the guest with the most memory leaves first: slots end together, destinations fill well",
};

pub(super) fn rank(guest: &Traits) -> u64 {
    u64::MAX - guest.memory.0
}
