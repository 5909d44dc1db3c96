//! Metrics as named cells, so that every table and file calls them the same and writes them the same.

use super::metrics::{Metrics, RoundRecord};
use crate::units::{Bytes, Span, Time};
use std::fmt;

/// One value of a table. It displays as files have it: times in seconds with nine decimals, amounts in bytes, nothing when it
/// does not apply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// Does not apply, or was not reached.
    Empty,
    /// A word.
    Text(&'static str),
    /// Yes or no.
    Flag(bool),
    /// A number of things.
    Count(u64),
    /// Bytes.
    Bytes(Bytes),
    /// A length of time or, since the driver's clock started, a moment; in seconds.
    Seconds(Span),
    /// A plain number.
    Number(f64),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cell::Empty => Ok(()),
            Cell::Text(text) => f.pad(text),
            Cell::Flag(flag) => write!(f, "{flag}"),
            Cell::Count(n) | Cell::Bytes(Bytes(n)) => write!(f, "{n}"),
            Cell::Seconds(Span(ns)) => write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
            Cell::Number(x) => write!(f, "{x}"),
        }
    }
}

impl From<Span> for Cell {
    fn from(span: Span) -> Cell {
        Cell::Seconds(span)
    }
}

impl From<Time> for Cell {
    fn from(at: Time) -> Cell {
        Cell::Seconds(Span(at.0))
    }
}

impl From<Bytes> for Cell {
    fn from(bytes: Bytes) -> Cell {
        Cell::Bytes(bytes)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Cell {
        Cell::Count(count)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Cell {
        Cell::Number(number)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Empty, Into::into)
    }
}

impl Metrics {
    /// The columns of `metrics.csv` that a ledger fills, in their order; the columns before them say which VM this is.
    #[must_use]
    pub fn cells(&self) -> [(&'static str, Cell); 32] {
        let bytes = &self.bytes;
        let part = |part: fn(&super::Downtime) -> Span| Cell::from(self.downtime.as_ref().map(part));
        [
            ("outcome", Cell::Text(self.outcome.name())),
            ("converged", Cell::Flag(self.converged)),
            ("queued_s", self.queued.into()),
            ("eviction_time_s", self.eviction_time.into()),
            ("total_migration_time_s", self.total_migration_time.into()),
            ("downtime_s", part(|d| d.total)),
            ("guest_gap_s", self.guest_gap.into()),
            ("perceived_downtime_s", self.perceived_downtime.into()),
            ("bytes_total", bytes.total().into()),
            ("bytes_first", bytes.first.into()),
            ("bytes_resent", bytes.resent.into()),
            ("bytes_demand", bytes.demand.into()),
            ("bytes_state", bytes.state.into()),
            ("bytes_control", bytes.control.into()),
            ("bytes_disk", bytes.disk.into()),
            ("bytes_snapshot", bytes.snapshot.into()),
            ("rounds", u64::from(self.rounds).into()),
            ("remote_faults", self.remote_faults.into()),
            ("fault_stall_mean_s", self.fault_stall_mean.into()),
            ("fault_stall_p99_s", self.fault_stall_p99.into()),
            ("work_lost_s", (self.observed > Span::ZERO).then_some(self.work_lost).into()),
            ("degradation", self.degradation().into()),
            ("throttle_s", self.throttle.into()),
            ("exposure_s", self.exposure.into()),
            ("intermediary_peak_bytes", self.intermediary_peak.into()),
            ("downtime_memory_s", part(|d| d.memory)),
            ("downtime_state_s", part(|d| d.state)),
            ("downtime_activation_s", part(|d| d.activation)),
            ("remote_fault_share", self.remote_fault_share.into()),
            ("fault_stall_p50_s", self.fault_stall_p50.into()),
            ("observed_s", self.observed.into()),
            ("preparation_s", self.preparation.into()),
        ]
    }
}

impl RoundRecord {
    /// The columns of `rounds.csv` that a ledger fills, in their order. Rates are in bytes per second.
    #[must_use]
    pub fn cells(&self) -> [(&'static str, Cell); 9] {
        [
            ("round", u64::from(self.index).into()),
            ("stopped", Cell::Flag(self.stopped)),
            ("started_s", self.started.into()),
            ("duration_s", self.duration.into()),
            ("page_bytes", self.pages.into()),
            ("wire_bytes", self.wire.into()),
            ("dirty_bytes", self.dirty.into()),
            ("dirty_rate", self.dirty_rate().map(|r| r.0).into()),
            ("bandwidth", self.bandwidth().0.into()),
        ]
    }
}
