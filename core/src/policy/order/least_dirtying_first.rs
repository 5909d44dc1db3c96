//! Least dirtying first: guests that are certain to converge leave before those that may not, which then share the host with fewer.

use super::Traits;
use crate::policy::PolicyEntry;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "least-dirtying-first",
    origin: "livemig",
    summary: "the guest that dirties the fewest bytes per second leaves first",
};

pub(super) fn rank(guest: &Traits) -> u64 {
    // The bits of floats that are not negative order like the floats.
    guest.dirty.0.max(0.0).to_bits()
}
