//! `timeline.csv`: what a migration did when, one row per change.

use super::CsvFile;
use crate::value::Value;
use anyhow::Result;
use livemig_core::ledger::{TimelineItem, TimelinePoint};
use livemig_core::units::Time;

/// The columns after those of the run: a value of its kind holds from this moment to the next row of the same kind; a
/// command is a moment.
pub(super) const COLUMNS: [&str; 3] = ["at_s", "kind", "value"];

/// Kind of the rows that name the phase.
pub(crate) const PHASE: &str = "phase";
/// Kind of the rows with the sending rate.
pub(crate) const BANDWIDTH: &str = "bandwidth_bytes_per_s";
/// Kind of the rows with the application's rate as a share of its baseline.
pub(crate) const WORK: &str = "work";
/// Kind of the rows at which a round begins.
const ROUND: &str = "round";
/// Kind of the rows with what the migration orders.
const COMMAND: &str = "command";

pub(super) fn write(file: &mut CsvFile, run: &[Value], timeline: &[TimelinePoint]) -> Result<()> {
    timeline.iter().try_for_each(|point| file.row(run.iter().cloned().chain(values(point))))
}

fn values(point: &TimelinePoint) -> [Value; COLUMNS.len()] {
    let (kind, value) = match point.what {
        TimelineItem::Phase(phase) => (PHASE, phase.name().into()),
        TimelineItem::Bandwidth(rate) => (BANDWIDTH, Value::Number(rate.0)),
        TimelineItem::Work(rate) => (WORK, Value::Number(rate)),
        TimelineItem::Round(index) => (ROUND, Value::Count(index.into())),
        TimelineItem::Command(name) => (COMMAND, name.into()),
    };
    [Value::Time(point.at.since(Time::ZERO)), kind.into(), value]
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_core::machine::Phase;
    use livemig_core::units::Rate;

    #[test]
    fn every_kind_has_its_row() {
        let at = Time(1_000_000_001);
        let row = |what| values(&TimelinePoint { at, what }).map(|v| v.csv()).join(",");
        assert_eq!(row(TimelineItem::Phase(Phase::LiveCopy)), "1.000000001,phase,live copy");
        assert_eq!(row(TimelineItem::Bandwidth(Rate(0.1))), "1.000000001,bandwidth_bytes_per_s,0.1");
        assert_eq!(row(TimelineItem::Work(0.5)), "1.000000001,work,0.5");
        assert_eq!(row(TimelineItem::Round(3)), "1.000000001,round,3");
        assert_eq!(row(TimelineItem::Command("pause")), "1.000000001,command,pause");
    }
}
