//! Which technique moves each of the VMs that are migrated together.
//!
//! A [`Spec`](crate::strategy::Spec) with a [`SelectionPolicy`] leaves the choice between its two stages to the moment of the request. A
//! driver measures the rates that [`SelectionPolicy::window`] asks for, has the policy [choose](SelectionPolicy::choose) in the
//! [situation](Measured::situation) that they make, and tells each migration before it requests it.

mod branch;
mod interfaces;
mod knapsack;
mod pair;
mod situation;
mod traffic;

pub use crate::strategy::Technique;
pub use interfaces::select;
pub use pair::select as select_pair;
pub use situation::{Both, End, Leaving, Measured};
pub use traffic::TrafficSensitive;

use super::PolicyEntry;
use crate::strategy::SpecError;
use crate::units::{Rate, Span};
use serde::{Deserialize, Serialize};

/// Over which time rates are measured unless something else is said *[ours]*: Deshpande and Keahey measure periodically and do not say
/// how often.
pub const WINDOW: Span = Span::from_secs(10);

/// Every selection, as listed.
pub const SELECTIONS: [PolicyEntry; 1] = [traffic::ENTRY];

/// How the technique of a VM is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum SelectionPolicy {
    /// By what the VMs that are migrated together send and receive.
    Traffic(TrafficSensitive),
}

impl SelectionPolicy {
    /// The selection as listed.
    #[must_use]
    pub fn entry(&self) -> &'static PolicyEntry {
        match self {
            SelectionPolicy::Traffic(_) => &SELECTIONS[0],
        }
    }

    /// Checks the ranges of the parameters.
    ///
    /// # Errors
    /// The first that is outside.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            SelectionPolicy::Traffic(p) => p.check(),
        }
    }

    /// Over which time rates are to be measured.
    #[must_use]
    pub fn window(&self) -> Span {
        match self {
            SelectionPolicy::Traffic(p) => p.window,
        }
    }

    /// The techniques of VMs that are migrated together.
    ///
    /// # Panics
    /// When a VM names an interface that is not among `interfaces`.
    #[must_use]
    pub fn choose(&self, vms: &[Moving], interfaces: &Interfaces) -> Selected {
        match self {
            SelectionPolicy::Traffic(_) => select(vms, interfaces),
        }
    }
}

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

/// A VM that is to be migrated, with the interfaces between which it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moving {
    /// The source, by its place in [`Interfaces::outgoing`].
    pub source: u32,
    /// The destination, by its place in [`Interfaces::incoming`].
    pub destination: u32,
    /// What the VM sends and receives through them.
    pub load: Load,
}

/// What else competes with migrations, in whole Mbit/s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// What each source sends beside the traffic of those that are migrated.
    pub outgoing: Vec<u32>,
    /// What each destination receives beside it.
    pub incoming: Vec<u32>,
}

/// A choice of techniques.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Of each VM.
    pub techniques: Vec<Technique>,
    /// What they amount to.
    pub burden: Burden,
    /// Whether no other choice is better. Always so where each VM shares its interfaces only with VMs that have the same two.
    pub proven: bool,
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
    /// What these techniques amount to.
    ///
    /// # Panics
    /// When a VM names an interface that is not among `interfaces`.
    #[must_use]
    pub fn of(vms: &[Moving], interfaces: &Interfaces, techniques: &[Technique]) -> Burden {
        let loads = |background: &[u32]| background.iter().map(|&load| u64::from(load)).collect::<Vec<u64>>();
        let (mut outgoing, mut incoming) = (loads(&interfaces.outgoing), loads(&interfaces.incoming));
        for (vm, technique) in vms.iter().zip(techniques) {
            match technique {
                Technique::PreCopy => outgoing[vm.source as usize] += u64::from(vm.load.tx),
                Technique::PostCopy => incoming[vm.destination as usize] += u64::from(vm.load.rx),
            }
        }
        let all = || outgoing.iter().chain(&incoming).copied();
        Burden {
            largest: all().max().unwrap_or(0),
            sum: all().sum(),
            post_copied: techniques.iter().filter(|t| **t == Technique::PostCopy).count(),
        }
    }

    /// Of one source, which sends, and one destination, which receives; less than `floor` counts as that.
    fn of_pair((source, destination): (u64, u64), post_copied: usize, floor: u64) -> Burden {
        Burden { largest: source.max(destination).max(floor), sum: source + destination, post_copied }
    }
}

#[cfg(test)]
mod tests;
