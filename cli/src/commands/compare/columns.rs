//! A comparison as data: one row per point and strategy.

use super::Block;
use crate::csv_rows;
use crate::record::sweep_column;
use crate::summary::{Measure, Ratio, Spread, Summary, ratios};
use crate::value::{Value, json_object};

/// The columns. Of every measure the median and its interval; of times also the ratio of the medians to the best strategy's, or
/// to the baseline's, and whether the two intervals are apart.
fn names(sweep: &[(String, String)]) -> Vec<String> {
    let fixed = ["scenario", "point", "strategy", "runs", "completed", "converged"].map(str::to_owned);
    let measures = Measure::ALL.into_iter().flat_map(|measure| {
        let name = measure.column();
        let mut names = vec![name.to_owned(), format!("{name}_low"), format!("{name}_high")];
        if Measure::TIMES.contains(&measure) {
            names.extend([format!("{name}_ratio"), format!("{name}_distinguishable")]);
        }
        names
    });
    fixed.into_iter().chain(measures).chain(sweep.iter().map(|(key, _)| sweep_column(key))).collect()
}

pub(super) fn header(sweep: &[(String, String)]) -> String {
    csv_rows::text(|rows| rows.words(names(sweep)))
}

pub(super) fn csv(block: &Block<'_>) -> String {
    csv_rows::text(|lines| rows(block).try_for_each(|row| lines.row(row)))
}

pub(super) fn json(block: &Block<'_>) -> String {
    let names = names(block.sweep);
    rows(block).map(|row| json_object(names.iter().map(String::as_str).zip(&row)) + "\n").collect()
}

fn rows(block: &Block<'_>) -> impl Iterator<Item = Vec<Value>> {
    let ratios = Measure::TIMES.map(|measure| ratios(&block.summaries, measure, block.baseline));
    block.summaries.iter().enumerate().map(move |(index, summary)| row(block, summary, ratios.each_ref().map(|r| r[index])))
}

fn row(block: &Block<'_>, summary: &Summary, ratios: [Option<Ratio>; Measure::TIMES.len()]) -> Vec<Value> {
    let counts = [summary.runs, summary.completed, summary.converged].map(|n| Value::Count(n as u64));
    let mut row = vec![block.scenario.into(), Value::Count(block.point.0 as u64), summary.strategy.as_str().into()];
    row.extend(counts);
    for measure in Measure::ALL {
        let spread = summary.spread(measure);
        row.extend([|s: Spread| s.median, |s: Spread| s.low, |s: Spread| s.high].map(|read| Value::from(spread.map(read))));
        if let Some(at) = Measure::TIMES.iter().position(|m| *m == measure) {
            row.push(ratios[at].map(|r| r.factor).into());
            row.push(ratios[at].map_or(Value::Empty, |r| Value::Flag(r.distinguishable)));
        }
    }
    row.extend(block.sweep.iter().map(|(_, value)| value.as_str().into()));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::compare::tables::tests::block;

    #[test]
    fn rows_have_a_value_for_every_name() {
        let sweep = [("a".to_owned(), "1".to_owned())];
        let block = Block { sweep: &sweep, ..block(3) };
        let names = names(&sweep);
        assert!(rows(&block).all(|row| row.len() == names.len()));
        let json = json(&block);
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(first["strategy"], "pre-copy");
        assert_eq!(first["downtime_s"], 0.3);
        assert_eq!(first["downtime_s_ratio"], 0.3 / 0.1);
        assert_eq!(first["downtime_s_distinguishable"], true);
        assert_eq!(first["sweep.a"], "1");
        assert!(first["perceived_downtime_s"].is_null());
        assert_eq!(header(&sweep).matches(',').count() + 1, names.len());
    }
}
