//! Stop rules: when does pre-copy stop the guest?
//!
//! A rule judges at two moments. At the end of a round it sees the round and what is dirty. Rules that also look into a round
//! ask for a watch on it; when the watch ends they see what is still to be sent, dirty pages included, and the bandwidth.

mod clark;
mod fixed_rounds;
mod kubevirt;
mod pmigrate;
mod qemu;
mod simgrid;

pub use clark::Clark;
pub use fixed_rounds::FixedRounds;
pub use kubevirt::{Escalation, KubeVirt};
pub use pmigrate::PMigrate;
pub use qemu::Qemu;
pub use simgrid::SimGrid;

use super::PolicyEntry;
use crate::strategy::SpecError;
use crate::units::{Bytes, Rate, Span, Time};
use crate::vocabulary::Stall;
use serde::{Deserialize, Serialize};

/// Every stop rule, as listed.
pub const STOP_RULES: [PolicyEntry; 6] =
    [clark::ENTRY, qemu::ENTRY, fixed_rounds::ENTRY, simgrid::ENTRY, kubevirt::ENTRY, pmigrate::ENTRY];

/// A round of live copy that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Its number, from 0.
    pub index: u32,
    /// When its first page was ordered to be sent.
    pub started: Time,
    /// When its last page was acknowledged.
    pub ended: Time,
    /// Bytes on the wire.
    pub wire: Bytes,
    /// Bytes of pages left out because they were dirty again.
    pub skipped: Bytes,
    /// Bytes of pages dirty at its end.
    pub dirty: Bytes,
}

impl Round {
    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Span {
        self.ended - self.started
    }

    /// Bytes per second on the wire; zero for a round without duration.
    #[must_use]
    pub fn bandwidth(&self) -> Rate {
        self.wire.per(self.duration())
    }
}

/// What a stop rule knows of the migration as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Size of the guest's memory, and of its disk if that moves with it.
    pub size: Bytes,
    /// Bytes on the wire in all rounds so far.
    pub sent: Bytes,
}

/// What a stop rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send what is dirty in another round.
    Continue,
    /// Stop the guest; the rest is as small as the rule wants.
    Converged,
    /// Stop the guest although the rest is large: a cap is reached.
    Capped,
    /// Switch to post-copy.
    PostCopy,
    /// Give the migration up.
    Abort,
}

/// What a rule wants watched inside a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watching {
    /// How often.
    pub every: Span,
    /// Tell me when pending <= rate x limit.
    pub below: Option<Span>,
    /// Tell me when the least pending has not improved for a time.
    pub stall: Option<Stall>,
}

/// A stop rule with its parameters and what it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StopRule {
    /// Xen's.
    Clark(Clark),
    /// QEMU's.
    Qemu(Qemu),
    /// A number of rounds.
    FixedRounds(FixedRounds),
    /// `SimGrid`'s.
    SimGrid(SimGrid),
    /// QEMU's under `KubeVirt`'s supervision.
    KubeVirt(KubeVirt),
    /// `PMigrate`'s.
    PMigrate(PMigrate),
}

impl StopRule {
    /// Judges at the end of a round.
    pub fn round_ended(&mut self, now: Time, round: &Round, totals: Totals) -> Verdict {
        match self {
            StopRule::Clark(r) => r.round_ended(round, totals),
            StopRule::Qemu(r) => r.judge(round.dirty, round.bandwidth()),
            StopRule::FixedRounds(r) => r.round_ended(round),
            StopRule::SimGrid(r) => r.round_ended(round),
            StopRule::KubeVirt(r) => r.judge(now, round.dirty, round.bandwidth()),
            StopRule::PMigrate(r) => r.round_ended(round, totals),
        }
    }

    /// What the rule wants watched in a round that starts now.
    #[must_use]
    pub fn watching(&self, now: Time) -> Option<Watching> {
        match self {
            StopRule::Qemu(r) => Some(r.watching()),
            StopRule::KubeVirt(r) => Some(r.watching(now)),
            StopRule::Clark(_) | StopRule::FixedRounds(_) | StopRule::SimGrid(_) | StopRule::PMigrate(_) => None,
        }
    }

    /// Judges when the watch has found little enough pending: `remaining` counts what is not yet sent and what is dirty,
    /// exactly; `rate` is the bandwidth over the last window.
    pub fn watched_below(&mut self, now: Time, remaining: Bytes, rate: Rate) -> Verdict {
        match self {
            StopRule::Qemu(r) => r.judge(remaining, rate),
            StopRule::KubeVirt(r) => r.judge(now, remaining, rate),
            StopRule::Clark(_) | StopRule::FixedRounds(_) | StopRule::SimGrid(_) | StopRule::PMigrate(_) => Verdict::Continue,
        }
    }

    /// Judges when the watch has found a stall.
    pub fn stalled(&mut self, now: Time) -> Verdict {
        match self {
            StopRule::KubeVirt(r) => r.stalled(now),
            StopRule::Clark(_) | StopRule::Qemu(_) | StopRule::FixedRounds(_) | StopRule::SimGrid(_) | StopRule::PMigrate(_) => {
                Verdict::Continue
            }
        }
    }

    /// Remembers the progress that a watch has seen.
    pub fn progressed(&mut self, stall: Stall) {
        match self {
            StopRule::KubeVirt(r) => r.progressed(stall),
            StopRule::Clark(_) | StopRule::Qemu(_) | StopRule::FixedRounds(_) | StopRule::SimGrid(_) | StopRule::PMigrate(_) => {}
        }
    }

    /// How little may be left, at this bandwidth, for the guest to be stopped because of it; `None` when the rule does not look at
    /// that.
    #[must_use]
    pub fn goal(&self, rate: Rate) -> Option<Bytes> {
        match self {
            StopRule::Clark(r) => Some(Bytes::from_pages(r.min_pages)),
            StopRule::Qemu(r) => Some(within(rate, r.downtime_limit)),
            StopRule::FixedRounds(_) => None,
            StopRule::SimGrid(r) => Some(within(rate, r.downtime_limit)),
            StopRule::KubeVirt(r) => Some(within(rate, r.downtime_limit)),
            StopRule::PMigrate(r) => Some(within(rate, r.downtime_limit)),
        }
    }

    /// Checks the ranges of the parameters.
    ///
    /// # Errors
    /// The first parameter that is out of range.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            StopRule::Clark(r) => r.check(),
            StopRule::Qemu(r) => r.check(),
            StopRule::FixedRounds(r) => r.check(),
            StopRule::SimGrid(r) => r.check(),
            StopRule::KubeVirt(r) => r.check(),
            StopRule::PMigrate(r) => r.check(),
        }
    }
}

/// The bytes that `rate` moves in `limit`, in whole bytes.
fn within(rate: Rate, limit: Span) -> Bytes {
    Bytes(rate.bytes_in(limit) as u64)
}
