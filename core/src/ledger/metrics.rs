//! The results of one migration, as `docs/METRICS.md` defines them.

use super::stalls::Stalls;
use crate::machine::Outcome;
use crate::units::{Bytes, Rate, Span, Time};

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
    /// From the order to prepare until t0; `None` when nothing was prepared ahead.
    pub preparation: Option<Span>,
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
    /// Snapshots before t0 that were sent whole, without the first copy and the passes straight after it.
    pub snapshots: u32,
    /// Bytes per link, by the driver's number of the link, ascending; links that carried nothing are left out.
    pub links: Vec<(u32, Bytes)>,
    /// Rounds of copying, the stopped one included.
    pub rounds: u32,
    /// Pages that the guest waited for at the destination.
    pub remote_faults: u64,
    /// Pages that were touched first at the destination while some were missing, and had already arrived.
    pub first_touches: u64,
    /// Of all pages touched first at the destination while some were missing, the share that had to be waited for.
    pub remote_fault_share: Option<f64>,
    /// Mean wait for a page.
    pub fault_stall_mean: Option<Span>,
    /// Median wait for a page.
    pub fault_stall_p50: Option<Span>,
    /// 99th percentile of the wait for a page.
    pub fault_stall_p99: Option<Span>,
    /// The distribution behind these three, for merging.
    pub stalls: Stalls,
    /// Integral of (1 - rate / baseline) over the observation; zero when the application did more than its baseline.
    pub work_lost: Span,
    /// How long the application was observed.
    pub observed: Span,
    /// Integral of (1 - vCPU share).
    pub throttle: Span,
    /// Time during which losing a host other than the one the guest executes on loses the VM.
    pub exposure: Span,
    /// When the exposure began; `None` without one.
    pub exposed_from: Option<Time>,
    /// Bytes of pages that nobody has any more: an intermediary failed with them after the source was released, or the source before.
    pub bytes_lost: Bytes,
    /// Bytes of pages that were not sent to intermediaries because these had their content.
    pub bytes_deduplicated: Bytes,
    /// Peak of the bytes staged at all intermediaries together.
    pub intermediary_peak: Bytes,
    /// Peak of the bytes staged at each intermediary, by its number in the migration's list.
    pub intermediary_peaks: Vec<Bytes>,
}

impl Default for Metrics {
    /// Those of a migration that was never requested.
    fn default() -> Metrics {
        Metrics {
            outcome: Outcome::Unfinished,
            converged: false,
            requested: None,
            queued: Span::ZERO,
            preparation: None,
            eviction_time: None,
            total_migration_time: None,
            downtime: None,
            guest_gap: None,
            perceived_downtime: None,
            bytes: ByteCounts::default(),
            snapshots: 0,
            links: Vec::new(),
            rounds: 0,
            remote_faults: 0,
            first_touches: 0,
            remote_fault_share: None,
            fault_stall_mean: None,
            fault_stall_p50: None,
            fault_stall_p99: None,
            stalls: Stalls::default(),
            work_lost: Span::ZERO,
            observed: Span::ZERO,
            throttle: Span::ZERO,
            exposure: Span::ZERO,
            exposed_from: None,
            bytes_lost: Bytes::ZERO,
            bytes_deduplicated: Bytes::ZERO,
            intermediary_peak: Bytes::ZERO,
            intermediary_peaks: Vec::new(),
        }
    }
}

impl Metrics {
    /// Enters the faults and everything that follows from them.
    pub(super) fn set_faults(&mut self, stalls: Stalls, first_touches: u64) {
        self.remote_faults = stalls.count();
        self.first_touches = first_touches;
        let touched = self.remote_faults.saturating_add(first_touches);
        self.remote_fault_share = (touched > 0).then(|| self.remote_faults as f64 / touched as f64);
        self.fault_stall_mean = stalls.mean();
        self.fault_stall_p50 = stalls.percentile(50);
        self.fault_stall_p99 = stalls.percentile(99);
        self.stalls = stalls;
    }

    /// When the source was released.
    #[must_use]
    pub fn evicted_at(&self) -> Option<Time> {
        Some(self.requested? + self.eviction_time?)
    }

    /// When the destination held the whole state and depended on no other host.
    #[must_use]
    pub fn completed_at(&self) -> Option<Time> {
        Some(self.requested? + self.total_migration_time?)
    }

    /// Waiting included, how long eviction took. Of the whole of a drain ([`super::whole`]): the drain time.
    #[must_use]
    pub fn drain_time(&self) -> Option<Span> {
        Some(self.queued + self.eviction_time?)
    }

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
    /// Fetched by the destination from intermediaries: the second crossing of staged pages.
    pub gathered: Bytes,
}

impl ByteCounts {
    pub(super) fn add(&mut self, o: &ByteCounts) {
        self.first += o.first;
        self.resent += o.resent;
        self.demand += o.demand;
        self.state += o.state;
        self.control += o.control;
        self.disk += o.disk;
        self.snapshot += o.snapshot;
        self.gathered += o.gathered;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> Bytes {
        let sent = [self.first, self.resent, self.demand, self.state, self.control, self.disk, self.snapshot];
        sent.into_iter().chain([self.gathered]).sum()
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
    /// Bytes of pages that were the round's: sent, elided or left out. A page that was still pending when the round ended
    /// belongs to the round that sent it.
    pub pages: Bytes,
    /// Bytes on the wire.
    pub wire: Bytes,
    /// Bytes of pages dirty at its end; `None` after the stopped round.
    pub dirty: Option<Bytes>,
}

impl RoundRecord {
    /// Distinct bytes of pages dirtied per second, on average over the round; `None` after the stopped round.
    #[must_use]
    pub fn dirty_rate(&self) -> Option<Rate> {
        self.dirty.map(|dirty| dirty.per(self.duration))
    }

    /// Bytes per second on the wire; zero for a round without duration.
    #[must_use]
    pub fn bandwidth(&self) -> Rate {
        self.wire.per(self.duration)
    }
}
