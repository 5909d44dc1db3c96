//! Which hosts stage the pages of a migration: hosts are added one by one until together their bandwidth covers the source's uplink and
//! their memory the VM (Deshpande et al., IEEE CLOUD 2014). The choice holds for the whole migration.

use super::PolicyEntry;
use crate::units::{Bytes, Rate};

/// The policy as listed.
pub const ENTRY: PolicyEntry = PolicyEntry {
    name: "auto",
    origin: "Deshpande et al., IEEE CLOUD 2014",
    summary: "hosts one by one, until their bandwidth covers the source's uplink and their memory the VM",
};

/// A host that could stage pages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What it takes in.
    pub rate: Rate,
    /// Its memory for staged pages; `None` for no limit.
    pub memory: Option<Bytes>,
}

/// How many of the candidates, in their order, stage the pages of a VM with `memory` whose source sends at `uplink`: all, when they are
/// too few.
#[must_use]
pub fn choose(uplink: Rate, memory: Bytes, candidates: impl IntoIterator<Item = Candidate>) -> usize {
    let (mut rate, mut room, mut count) = (0.0, Some(Bytes::ZERO), 0);
    for candidate in candidates {
        if rate >= uplink.0 && room.is_none_or(|room| room >= memory) {
            break;
        }
        rate += candidate.rate.0;
        room = room.zip(candidate.memory).map(|(room, more)| Bytes(room.0.saturating_add(more.0)));
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_added_until_bandwidth_and_memory_are_covered() {
        let with = |rate: f64, memory: Option<u64>| Candidate { rate: Rate(rate), memory: memory.map(Bytes) };
        let few = [with(40.0, Some(100)), with(40.0, Some(100)), with(40.0, Some(100)), with(40.0, Some(100))];
        let chosen = |uplink, memory| choose(Rate(uplink), Bytes(memory), few);
        assert_eq!(
            [chosen(40.0, 100), chosen(41.0, 100), chosen(40.0, 101), chosen(100.0, 100), chosen(100.0, 400)],
            [1, 2, 2, 3, 4]
        );
        assert_eq!(chosen(1000.0, 100), 4, "all, when they are too few");
        assert_eq!(choose(Rate(40.0), Bytes(u64::MAX), [with(40.0, None), with(40.0, None)]), 1, "memory without a limit");
    }
}
