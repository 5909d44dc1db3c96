//! Which technique moves each of the VMs that are migrated together.

mod knapsack;
mod pair;

pub use crate::strategy::Technique;
pub use pair::select as select_pair;

use crate::units::Rate;

/// What a VM, or everything else on an interface, sends and receives, in whole Mbit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Load {
    /// Sent.
    pub tx: u32,
    /// Received.
    pub rx: u32,
}

impl Load {
    /// The nearest load in whole Mbit/s.
    #[must_use]
    pub fn measured(tx: Rate, rx: Rate) -> Load {
        // A float-to-integer cast saturates.
        let mbit = |rate: Rate| (rate.0 * 8e-6).round() as u32;
        Load { tx: mbit(tx), rx: mbit(rx) }
    }
}

/// How much migrations and the traffic of their VMs get in each other's way. Less is better: first the largest, then the sum, then
/// the VMs that are post-copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Burden {
    /// The contention: the most traffic that competes with migrations on any interface, in Mbit/s.
    pub largest: u64,
    /// Of all interfaces together, in Mbit/s.
    pub sum: u64,
    /// VMs that are post-copied.
    pub post_copied: usize,
}

impl Burden {
    /// Of one source, which sends, and one destination, which receives.
    fn of_pair((source, destination): (u64, u64), post_copied: usize) -> Burden {
        Burden { largest: source.max(destination), sum: source + destination, post_copied }
    }
}
