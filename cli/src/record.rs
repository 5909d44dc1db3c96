//! A row of results: what became of one VM in one run, and the columns under which it is written.

use crate::value::Value;
use livemig_core::ledger::{Downtime, Metrics};
use livemig_core::units::{Span, Time};

/// The name under which the row of a whole run stands.
pub(crate) const WHOLE: &str = "*";

/// One row of `metrics.csv`.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    /// Name of the scenario.
    pub(crate) scenario: &'a str,
    /// Index of the sweep point.
    pub(crate) point: usize,
    /// The swept keys with their values at this point.
    pub(crate) sweep: &'a [(String, String)],
    /// Index of the replicate.
    pub(crate) replicate: u32,
    /// Name of the strategy.
    pub(crate) strategy: &'a str,
    /// Name of the VM, or [`WHOLE`].
    pub(crate) vm: &'a str,
    /// Where it came from; `None` when the VMs of a whole run differ.
    pub(crate) source: Option<&'a str>,
    /// Where it was to go; `None` when the VMs of a whole run differ.
    pub(crate) destination: Option<&'a str>,
    /// The preset that moved it; `None` when the VMs of a whole run differ.
    pub(crate) technique: Option<&'a str>,
    /// The results.
    pub(crate) metrics: Metrics,
}

/// A column: its name and how it is read off a record.
pub(crate) type Column = (&'static str, fn(&Record<'_>) -> Value);

/// The columns of `metrics.csv`: first those that the design fixes, in its order, then further ones. A column per swept key
/// follows, named by [`sweep_column`].
pub(crate) const COLUMNS: [Column; 45] = [
    ("scenario", |r| r.scenario.into()),
    ("point", |r| Value::Count(r.point as u64)),
    ("replicate", |r| Value::Count(r.replicate.into())),
    ("strategy", |r| r.strategy.into()),
    ("vm", |r| r.vm.into()),
    ("source", |r| name(r.source)),
    ("destination", |r| name(r.destination)),
    ("technique", |r| name(r.technique)),
    ("outcome", |r| r.metrics.outcome.name().into()),
    ("converged", |r| Value::Flag(r.metrics.converged)),
    ("queued_s", |r| Value::Time(r.metrics.queued)),
    ("eviction_time_s", |r| r.metrics.eviction_time.into()),
    ("total_migration_time_s", |r| r.metrics.total_migration_time.into()),
    ("downtime_s", |r| downtime(r, |d| d.total)),
    ("guest_gap_s", |r| r.metrics.guest_gap.into()),
    ("perceived_downtime_s", |r| r.metrics.perceived_downtime.into()),
    ("bytes_total", |r| r.metrics.bytes.total().into()),
    ("bytes_first", |r| r.metrics.bytes.first.into()),
    ("bytes_resent", |r| r.metrics.bytes.resent.into()),
    ("bytes_demand", |r| r.metrics.bytes.demand.into()),
    ("bytes_state", |r| r.metrics.bytes.state.into()),
    ("bytes_control", |r| r.metrics.bytes.control.into()),
    ("bytes_disk", |r| r.metrics.bytes.disk.into()),
    ("bytes_snapshot", |r| r.metrics.bytes.snapshot.into()),
    ("rounds", |r| Value::Count(r.metrics.rounds.into())),
    ("remote_faults", |r| Value::Count(r.metrics.remote_faults)),
    ("fault_stall_mean_s", |r| r.metrics.fault_stall_mean.into()),
    ("fault_stall_p99_s", |r| r.metrics.fault_stall_p99.into()),
    ("work_lost_s", |r| work_lost(&r.metrics).into()),
    ("degradation", |r| r.metrics.degradation().into()),
    ("throttle_s", |r| Value::Time(r.metrics.throttle)),
    ("exposure_s", |r| Value::Time(r.metrics.exposure)),
    ("intermediary_peak_bytes", |r| r.metrics.intermediary_peak.into()),
    ("requested_s", |r| r.metrics.requested.map(|t| t.since(Time::ZERO)).into()),
    ("preparation_s", |r| r.metrics.preparation.into()),
    ("downtime_memory_s", |r| downtime(r, |d| d.memory)),
    ("downtime_state_s", |r| downtime(r, |d| d.state)),
    ("downtime_activation_s", |r| downtime(r, |d| d.activation)),
    ("fault_stall_p50_s", |r| r.metrics.fault_stall_p50.into()),
    ("remote_fault_share", |r| r.metrics.remote_fault_share.into()),
    ("observed_s", |r| Value::Time(r.metrics.observed)),
    ("bytes_gathered", |r| r.metrics.bytes.gathered.into()),
    ("bytes_lost", |r| r.metrics.bytes_lost.into()),
    ("snapshots", |r| Value::Count(r.metrics.snapshots.into())),
    ("bytes_deduplicated", |r| r.metrics.bytes_deduplicated.into()),
];

/// The column of a swept key.
pub(crate) fn sweep_column(key: &str) -> String {
    format!("sweep.{key}")
}

impl Record<'_> {
    /// The values of the first `n` columns.
    pub(crate) fn first_values(&self, n: usize) -> Vec<Value> {
        COLUMNS.iter().take(n).map(|(_, read)| read(self)).collect()
    }

    /// The values of all columns, swept keys included.
    pub(crate) fn values(&self) -> Vec<Value> {
        let fixed = COLUMNS.iter().map(|(_, read)| read(self));
        fixed.chain(self.sweep.iter().map(|(_, value)| value.as_str().into())).collect()
    }
}

/// The names of all columns for a scenario that sweeps these keys.
pub(crate) fn header(sweep: &[(String, String)]) -> Vec<String> {
    COLUMNS.iter().map(|(name, _)| (*name).to_owned()).chain(sweep.iter().map(|(key, _)| sweep_column(key))).collect()
}

fn name(name: Option<&str>) -> Value {
    name.map_or(Value::Empty, Value::from)
}

/// The work that was lost, when the application was observed.
pub(crate) fn work_lost(metrics: &Metrics) -> Option<Span> {
    (metrics.observed > Span::ZERO).then_some(metrics.work_lost)
}

fn downtime(record: &Record<'_>, part: fn(&Downtime) -> Span) -> Value {
    record.metrics.downtime.as_ref().map(part).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use livemig_core::ledger::ByteCounts;
    use livemig_core::machine::Outcome;
    use livemig_core::units::Bytes;

    /// A migration that took `total` seconds, of which the guest stood still for `downtime` milliseconds.
    pub(crate) fn metrics(total: u64, downtime: u64) -> Metrics {
        Metrics {
            outcome: Outcome::Completed,
            converged: true,
            requested: Some(Time(1_000_000_000)),
            eviction_time: Some(Span::from_secs(total)),
            total_migration_time: Some(Span::from_secs(total) + Span(1)),
            downtime: Some(Downtime {
                total: Span::from_millis(downtime),
                memory: Span::from_millis(downtime - 3),
                state: Span::from_millis(2),
                activation: Span::from_millis(1),
            }),
            bytes: ByteCounts { first: Bytes::from_gib(1), resent: Bytes::from_mib(1), ..ByteCounts::default() },
            rounds: 3,
            work_lost: Span::from_millis(500),
            observed: Span::from_secs(total + 10),
            ..Metrics::default()
        }
    }

    pub(crate) fn record(metrics: Metrics) -> Record<'static> {
        Record {
            scenario: "s",
            point: 0,
            sweep: &[],
            replicate: 0,
            strategy: "pre-copy",
            vm: "vm1",
            source: Some("src"),
            destination: Some("dst"),
            technique: Some("pre-copy"),
            metrics,
        }
    }

    #[test]
    fn the_header_begins_as_the_design_says() {
        let fixed = "scenario, point, replicate, strategy, vm, source, destination, technique, outcome, converged, queued_s, \
                     eviction_time_s, total_migration_time_s, downtime_s, guest_gap_s, perceived_downtime_s, bytes_total, \
                     bytes_first, bytes_resent, bytes_demand, bytes_state, bytes_control, bytes_disk, bytes_snapshot, rounds, \
                     remote_faults, fault_stall_mean_s, fault_stall_p99_s, work_lost_s, degradation, throttle_s, exposure_s, \
                     intermediary_peak_bytes";
        let further = "requested_s, preparation_s, downtime_memory_s, downtime_state_s, downtime_activation_s, fault_stall_p50_s, \
                       remote_fault_share, observed_s, bytes_gathered, bytes_lost, snapshots, bytes_deduplicated, sweep.host.dst.reception";
        let sweep = [("host.dst.reception".to_owned(), "131 Mbit/s".to_owned())];
        assert_eq!(header(&sweep).join(", "), format!("{fixed}, {further}"));
    }

    #[test]
    fn values_stand_under_their_columns() {
        let mut r = record(metrics(20, 312));
        let sweep = [("a.b".to_owned(), "1 GiB".to_owned())];
        r.sweep = &sweep;
        let header = header(&sweep);
        let values = r.values();
        assert_eq!(header.len(), values.len());
        let at = |name: &str| values[header.iter().position(|h| h == name).unwrap()].csv();
        assert_eq!(at("eviction_time_s"), "20");
        assert_eq!(at("total_migration_time_s"), "20.000000001");
        assert_eq!(at("downtime_s"), "0.312");
        assert_eq!(at("downtime_memory_s"), "0.309");
        assert_eq!(at("downtime_state_s"), "0.002");
        assert_eq!(at("downtime_activation_s"), "0.001");
        assert_eq!(at("perceived_downtime_s"), "");
        assert_eq!(at("bytes_total"), "1074790400");
        assert_eq!(at("converged"), "true");
        assert_eq!(at("requested_s"), "1");
        assert_eq!(at("degradation"), (0.5 / 30.0).to_string());
        assert_eq!(at("sweep.a.b"), "1 GiB");
    }
}
