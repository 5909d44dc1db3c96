//! The results of one migration, as `docs/METRICS.md` defines them.

use crate::machine::Outcome;
use crate::units::{Bytes, Span, Time};

/// Everything that is reported of one VM. What does not apply, or was not reached, is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// How the migration ended.
    pub outcome: Outcome,
    /// Whether the stop rule was met rather than a cap.
    pub converged: bool,
    /// t0: when the migration was requested; `None` when it never was.
    pub requested: Option<Time>,
    /// Waiting before t0 in a drain.
    pub queued: Span,
    /// t0 until the source is released.
    pub eviction_time: Option<Span>,
    /// t0 until the destination holds the whole state and depends on no other host.
    pub total_migration_time: Option<Span>,
    /// The guest's standstill and its parts.
    pub downtime: Option<Downtime>,
    /// The largest interval between two of the guest's own time stamps around the switch (real mode).
    pub guest_gap: Option<Span>,
    /// From the pause until the application is, and stays, at 90 % of its baseline.
    pub perceived_downtime: Option<Span>,
    /// Bytes on the wire by purpose.
    pub bytes: ByteCounts,
    /// Rounds of copying, the stopped one included.
    pub rounds: u32,
    /// Pages that the guest waited for at the destination.
    pub remote_faults: u64,
    /// Of all pages touched first at the destination while some were missing, the share that had to be waited for.
    pub remote_fault_share: Option<f64>,
    /// Mean wait for a page.
    pub fault_stall_mean: Option<Span>,
    /// Median wait for a page.
    pub fault_stall_p50: Option<Span>,
    /// 99th percentile of the wait for a page.
    pub fault_stall_p99: Option<Span>,
    /// Integral of (1 - rate / baseline) over the observation.
    pub work_lost: Span,
    /// How long the application was observed.
    pub observed: Span,
    /// Integral of (1 - vCPU share).
    pub throttle: Span,
    /// Time during which losing a host other than the one the guest executes on loses the VM.
    pub exposure: Span,
    /// Peak of the bytes staged, summed over intermediaries.
    pub intermediary_peak: Bytes,
}

impl Metrics {
    /// Work lost per time observed; `None` before anything was observed.
    #[must_use]
    pub fn degradation(&self) -> Option<f64> {
        (self.observed > Span::ZERO).then(|| self.work_lost.as_secs_f64() / self.observed.as_secs_f64())
    }
}

/// `pause` is called at the source until every vCPU has advanced at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downtime {
    /// The whole.
    pub total: Span,
    /// Until the rest of memory has been acknowledged.
    pub memory: Span,
    /// From then until the device state has been acknowledged.
    pub state: Span,
    /// From then until the guest runs.
    pub activation: Span,
}

/// Bytes on the wire by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Pages sent for the first time since t0.
    pub first: Bytes,
    /// Pages sent again.
    pub resent: Bytes,
    /// Pages that the destination asked for.
    pub demand: Bytes,
    /// CPU and device state.
    pub state: Bytes,
    /// Control messages.
    pub control: Bytes,
    /// Disk.
    pub disk: Bytes,
    /// Sent before t0.
    pub snapshot: Bytes,
}

impl ByteCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> Bytes {
        [self.first, self.resent, self.demand, self.state, self.control, self.disk, self.snapshot].into_iter().sum()
    }
}

/// One round of copying as reported in `rounds.csv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundRecord {
    /// Its number, from 0.
    pub index: u32,
    /// Whether the guest stood still.
    pub stopped: bool,
    /// When it began.
    pub started: Time,
    /// How long it took.
    pub duration: Span,
    /// Bytes of pages in the round.
    pub pages: Bytes,
    /// Bytes on the wire.
    pub wire: Bytes,
    /// Bytes of pages dirty at its end; `None` after the stopped round.
    pub dirty: Option<Bytes>,
}
