//! As listed: `OpenStack` nova's host-evacuate-live and `virsh` loops take a host's guests in the order of their list.

use super::Traits;
use crate::policy::PolicyEntry;

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "as-listed",
    origin: "OpenStack nova host-evacuate-live",
    summary: "guests leave in the order in which they are listed",
};

pub(super) fn rank(_: &Traits) -> u64 {
    0
}
