//! What a drain and its driver say to each other.

use super::{HostIndex, VmIndex};
use crate::machine::Outcome;
use crate::units::{Rate, Span, Time};
use std::sync::Arc;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The drain is requested.
    Requested,
    /// A VM's rates, as measured. They order the VMs of hosts whose turn has not come, and count for the choice of destinations from now on.
    Rates {
        /// The VM.
        vm: VmIndex,
        /// Its rates.
        rates: Rates,
    },
    /// What a host receives beside the traffic of its VMs, as measured.
    HostTraffic {
        /// The host.
        host: HostIndex,
        /// Bytes per second.
        received: Rate,
    },
    /// What became of a host.
    HostState {
        /// The host.
        host: HostIndex,
        /// Its state.
        state: HostState,
    },
    /// The source of a migration is released.
    Evicted(VmIndex),
    /// A migration is over and the VM is at its destination. Its source counts as released.
    Done(VmIndex),
    /// A migration is over and the VM is not at its destination.
    Failed {
        /// The VM.
        vm: VmIndex,
        /// What became of it.
        left: Left,
    },
    /// The destination of a migration has no room, and the migration is over. The host counts as having less room than the VM needs
    /// until it is
    /// told to be reachable, or back.
    Refused(VmIndex),
    /// A VM is not to be moved any more: if it migrates, that is called off, and not made again.
    Withdrawn(VmIndex),
    /// The drain is not wanted any more: what is under way is called off, nothing else begins.
    Cancel,
}

impl Event {
    /// The end of a VM's migration, which ended like this; `None` for one that has not.
    #[must_use]
    pub const fn ended(vm: VmIndex, outcome: Outcome) -> Option<Event> {
        let left = match outcome {
            Outcome::Completed => return Some(Event::Done(vm)),
            Outcome::Aborted | Outcome::Cancelled => Left::AtSource,
            Outcome::Lost => Left::Nothing,
            Outcome::Undecided => Left::Undecided,
            Outcome::Unfinished => return None,
        };
        Some(Event::Failed { vm, left })
    }
}

/// What a VM sends, receives and dirties.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Bytes sent per second.
    pub tx: Rate,
    /// Bytes received per second.
    pub rx: Rate,
    /// Bytes dirtied per second.
    pub dirty: Rate,
}

/// What became of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// It can be reached, and what it has refused may fit now.
    Reachable,
    /// It cannot be reached for now. As long as one of the hosts that the drain depends on may come back, no VM is given up.
    Cut,
    /// It has failed for good. Migrations under way from it or to it still end with an event of their own.
    Dead,
    /// It was drained, and takes guests again.
    Returned,
}

/// What a migration that did not succeed has left of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The VM runs at the source.
    AtSource,
    /// The VM is gone.
    Nothing,
    /// The destination may or may not run the VM.
    Undecided,
}

/// What a drain wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Migrate a VM.
    Start {
        /// The VM.
        vm: VmIndex,
        /// The strategy, by the driver's number.
        strategy: u16,
        /// Where to.
        destination: HostIndex,
        /// The hosts that stage its pages.
        via: Arc<[HostIndex]>,
        /// Limit of its sending rate.
        rate: Option<Rate>,
    },
    /// Limit the sending rate of a migration.
    SetRate {
        /// The VM.
        vm: VmIndex,
        /// Bytes per second.
        limit: Rate,
    },
    /// Call a migration off, if that is still possible.
    Cancel(VmIndex),
}

/// What has come of a part of the drain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Report {
    /// A VM's stay on a host to be drained has ended, or will not end by this drain. One for each VM of such a host; with
    /// [`super::Plan::onto_waiting`], one for each host that the VM was to leave.
    Vm {
        /// The VM.
        vm: VmIndex,
        /// The host that it was to leave.
        host: HostIndex,
        /// What became of it.
        fate: Fate,
    },
    /// A host's turn is over. One for each host to be drained.
    Host(HostReport),
}

/// What became of a VM in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has left.
    Moved {
        /// Where to.
        to: HostIndex,
    },
    /// There was no place for it until the end.
    Unplaced(NoPlace),
    /// Its migration has failed as often as the plan allows; it is where it was.
    Failed,
    /// It is gone.
    Lost,
    /// The destination may or may not run it.
    Undecided,
    /// The drain, or its part in it, was called off first; it is where it was.
    Cancelled,
    /// The observation ended before its migration began.
    Waiting,
    /// The observation ended while it migrated.
    Unfinished,
}

/// Why there was no place for a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// No candidate that takes guests has enough free memory.
    NoRoom,
    /// The host that it must go to has not enough free memory.
    DestinationFull,
    /// The host that it must go to takes no guests: it has failed, or is to be drained itself.
    DestinationClosed,
}

impl NoPlace {
    /// The reason in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            NoPlace::NoRoom => "no room",
            NoPlace::DestinationFull => "destination full",
            NoPlace::DestinationClosed => "destination closed",
        }
    }
}

impl Fate {
    /// The fate in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Moved { .. } => "moved",
            Fate::Unplaced(_) => "unplaced",
            Fate::Failed => "failed",
            Fate::Lost => "lost",
            Fate::Undecided => "undecided",
            Fate::Cancelled => "cancelled",
            Fate::Waiting => "waiting",
            Fate::Unfinished => "unfinished",
        }
    }
}

/// What came of one host's drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// The host.
    pub host: HostIndex,
    /// When the drain was requested.
    pub requested: Time,
    /// When its turn came; `None` when that was not to be.
    pub began: Option<Time>,
    /// When its last VM was evicted; `None` when one was not.
    pub emptied: Option<Time>,
    /// VMs evicted.
    pub evicted: u32,
    /// VMs not evicted: they are still there, or gone.
    pub left: u32,
}

impl HostReport {
    /// Drain requested until the last VM of the host was evicted.
    #[must_use]
    pub fn drain_time(&self) -> Option<Span> {
        Some(self.emptied?.since(self.requested))
    }
}

/// A drain as a whole, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// When the drain was requested.
    pub requested: Option<Time>,
    /// When the last VM of all hosts was evicted; `None` unless all were.
    pub emptied: Option<Time>,
    /// Hosts that are empty.
    pub hosts_emptied: u32,
    /// Hosts that are not, though their turn is over.
    pub hosts_left: u32,
    /// VMs that have left, each as often as it was to leave a host.
    pub moved: u32,
    /// VMs with another fate.
    pub not_moved: u32,
    /// Migrations made again after a failure.
    pub retried: u32,
}

impl Whole {
    /// Drain requested until the last VM was evicted.
    #[must_use]
    pub fn drain_time(&self) -> Option<Span> {
        Some(self.emptied?.since(self.requested?))
    }
}
