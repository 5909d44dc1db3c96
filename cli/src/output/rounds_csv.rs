//! `rounds.csv`: one row per round of copying.

use super::CsvFile;
use crate::value::Value;
use anyhow::Result;
use livemig_core::ledger::RoundRecord;
use livemig_core::units::Time;

/// The columns after those of the run; `docs/METRICS.md` says what they mean. Rates are in bytes per second.
pub(super) const COLUMNS: [&str; 9] =
    ["round", "stopped", "started_s", "duration_s", "page_bytes", "wire_bytes", "dirty_bytes", "dirty_rate", "bandwidth"];

pub(super) fn write(file: &mut CsvFile, run: &[Value], rounds: &[RoundRecord]) -> Result<()> {
    rounds.iter().try_for_each(|round| file.row(run.iter().cloned().chain(values(round))))
}

fn values(round: &RoundRecord) -> [Value; COLUMNS.len()] {
    [
        Value::Count(round.index.into()),
        Value::Flag(round.stopped),
        Value::Time(round.started.since(Time::ZERO)),
        Value::Time(round.duration),
        round.pages.into(),
        round.wire.into(),
        round.dirty.map_or(Value::Empty, Value::from),
        round.dirty_rate().map(|rate| rate.0).into(),
        Value::Number(round.bandwidth().0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_core::units::{Bytes, Span};

    #[test]
    fn a_round_says_how_fast_it_was() {
        let round = RoundRecord {
            index: 1,
            stopped: false,
            started: Time(2_500_000_000),
            duration: Span::from_secs(2),
            pages: Bytes::from_pages(1000),
            wire: Bytes(5_000_000),
            dirty: Some(Bytes::from_pages(300)),
        };
        let text = values(&round).map(|v| v.csv()).join(",");
        assert_eq!(text, "1,false,2.5,2,4096000,5000000,1228800,614400,2500000");
        let stopped = RoundRecord { stopped: true, dirty: None, duration: Span::ZERO, ..round };
        let text = values(&stopped).map(|v| v.csv()).join(",");
        assert_eq!(text, "1,true,2.5,0,4096000,5000000,,,0");
    }
}
