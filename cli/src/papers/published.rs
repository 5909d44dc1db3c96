//! A published figure, and which value of which scenario stands beside it.

use super::table::Row;
use crate::record;
use anyhow::{Result, bail};
use livemig_sim::FlowResult;
use std::ops::RangeInclusive;

/// Columns of `published.csv`.
pub(super) const COLUMNS: [&str; 14] = [
    "paper",
    "figure",
    "quantity",
    "unit",
    "kind",
    "paper_value",
    "scenario",
    "point",
    "strategy",
    "vm",
    "metric",
    "baseline_strategy",
    "series",
    "x",
];

/// Metrics of flows, which stand in no column of `metrics.csv`.
pub(super) const FLOW_METRICS: [FlowMetric; 3] = [
    // Mean rate from the request on.
    ("flow_rate", |flow| Some(flow.mean.0)),
    // Mean rate before the request.
    ("flow_rate_before", |flow| flow.before.map(|rate| rate.0)),
    // The first as a share of the second.
    ("flow_share", |flow| flow.before.map(|before| flow.mean.0 / before.0)),
];

/// The name of a metric, and how it is read off what became of a flow.
pub(super) type FlowMetric = (&'static str, fn(&FlowResult) -> Option<f64>);

/// A reduction, 1 - ours / baseline.
const REDUCTION: &str = "%";
/// A factor, baseline / ours.
const FACTOR: &str = "x";

/// Units, and what they are of the metric's unit (seconds, bytes, bytes per second, or a count).
const UNITS: [(&str, f64); 22] = [
    ("", 1.0),
    (FACTOR, 1.0),
    (REDUCTION, 0.01),
    ("count", 1.0),
    ("ns", 1e-9),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("B", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("pages", 4096.0),
    ("Mbit/s", 125e3),
    ("Gbit/s", 125e6),
    ("MB/s", 1e6),
    ("MiB/s", 1_048_576.0),
];

/// A row of `published.csv`.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) paper: String,
    pub(crate) figure: String,
    pub(crate) quantity: String,
    pub(crate) unit: String,
    /// One unit in the metric's unit.
    pub(super) size: f64,
    /// What the row proves.
    pub(crate) kind: String,
    /// What the paper says, in `unit`; `None` when it says it without a figure.
    pub(crate) paper_value: Option<f64>,
    /// The same as it is written, which says how exactly it is known.
    pub(crate) paper_text: String,
    pub(crate) scenario: String,
    /// Indices of the points in the scenario's sweep over which the value is the mean.
    pub(crate) points: RangeInclusive<usize>,
    pub(crate) strategy: String,
    /// Whose value it is.
    pub(super) of: Selection,
    /// A column of `metrics.csv`, one of [`FLOW_METRICS`], or one divided by another (`bytes_demand/bytes_total`).
    pub(crate) metric: String,
    /// The strategy that the value is relative to.
    pub(crate) baseline: Option<Baseline>,
    /// The curve of the figure that the row is on.
    pub(crate) series: String,
    /// Where on the horizontal axis.
    pub(crate) x: String,
}

/// What a value is relative to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) strategy: String,
    pub(super) relation: Relation,
}

/// How a value is relative to its baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// 1 - ours / baseline.
    Reduction,
    /// baseline / ours.
    Factor,
}

/// Whose value it is: of a VM, or, of [`FLOW_METRICS`], of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// The run as a whole.
    Whole,
    /// The one with this name.
    One(String),
    /// The mean of those with such names.
    Mean(String),
    /// The sum over those with such names.
    Sum(String),
    /// The largest of those with such names.
    Largest(String),
}

impl Selection {
    fn read(text: &str) -> Selection {
        let inside = |function: &str| {
            let inside = text.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')')?;
            Some(inside.to_owned())
        };
        None.or_else(|| inside("mean").map(Selection::Mean))
            .or_else(|| inside("sum").map(Selection::Sum))
            .or_else(|| inside("max").map(Selection::Largest))
            .unwrap_or_else(|| if text == record::WHOLE { Selection::Whole } else { Selection::One(text.to_owned()) })
    }
}

impl Published {
    pub(super) fn read<'a>(
        row: &Row<'_>,
        papers: impl Iterator<Item = &'a str>,
        kinds: impl Iterator<Item = &'a str>,
    ) -> Result<Published> {
        let unit = row.text("unit");
        let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            bail!("there is no unit `{unit}`; allowed: {}", UNITS.map(|u| u.0).join(" ").trim());
        };
        let metric = row.filled("metric")?;
        let of_flows = FLOW_METRICS.map(|(name, _)| name);
        for part in parts(&metric) {
            if !of_flows.contains(&part) && !record::COLUMNS.iter().any(|(name, _)| *name == part) {
                let allowed = of_flows.join(", ");
                bail!("there is no metric `{part}`; allowed are {allowed}, the columns of metrics.csv, and one divided by another");
            }
        }
        Ok(Published {
            paper: known("paper", row.filled("paper")?, papers)?,
            figure: row.filled("figure")?,
            quantity: row.filled("quantity")?,
            size: *size,
            kind: known("kind", row.filled("kind")?, kinds)?,
            paper_value: row.number("paper_value")?,
            paper_text: row.text("paper_value"),
            scenario: row.filled("scenario")?,
            points: points(&row.text("point"))?,
            strategy: row.filled("strategy")?,
            of: Selection::read(&row.filled("vm")?),
            metric,
            baseline: baseline(row.text("baseline_strategy"), &unit)?,
            series: row.text("series"),
            x: row.text("x"),
            unit,
        })
    }
}

fn known<'a>(what: &str, name: String, all: impl Iterator<Item = &'a str>) -> Result<String> {
    let all: Vec<&str> = all.collect();
    if !all.contains(&name.as_str()) {
        bail!("{what}s.csv has no {what} `{name}`; it has {}", all.join(", "));
    }
    Ok(name)
}

/// The metrics of which a row's is made: itself, or dividend and divisor.
pub(super) fn parts(metric: &str) -> impl Iterator<Item = &str> {
    metric.splitn(2, '/')
}

/// The points of a row: the first when none is given, one, or those from one to another (`0-9`).
fn points(text: &str) -> Result<RangeInclusive<usize>> {
    if text.is_empty() {
        return Ok(0..=0);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => bail!("`point` is `{text}`; expected a whole number from 0, or two with `-` between them, the smaller one first"),
    }
}

fn baseline(strategy: String, unit: &str) -> Result<Option<Baseline>> {
    let relation = match unit {
        _ if strategy.is_empty() => return Ok(None),
        REDUCTION => Relation::Reduction,
        FACTOR => Relation::Factor,
        other => bail!("with a baseline the unit is `{REDUCTION}` (less than it) or `{FACTOR}` (times less), not `{other}`"),
    };
    Ok(Some(Baseline { strategy, relation }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_names_or_functions_of_patterns() {
        assert_eq!(Selection::read("*"), Selection::Whole);
        assert_eq!(Selection::read("vm1"), Selection::One("vm1".into()));
        assert_eq!(Selection::read("mean(redis*)"), Selection::Mean("redis*".into()));
        assert_eq!(Selection::read("sum(*)"), Selection::Sum("*".into()));
        assert_eq!(Selection::read("max(a)"), Selection::Largest("a".into()));
        assert_eq!(Selection::read("mean"), Selection::One("mean".into()));
    }

    #[test]
    fn points_are_one_or_a_range() {
        assert_eq!(points("").unwrap(), 0..=0);
        assert_eq!(points("7").unwrap(), 7..=7);
        assert_eq!(points("2-11").unwrap(), 2..=11);
        for wrong in ["-1", "1.5", "4-2", "3-", "a", "0-1-2"] {
            assert!(points(wrong).unwrap_err().to_string().contains(&format!("`{wrong}`")), "{wrong}");
        }
    }

    #[test]
    fn a_baseline_needs_a_relative_unit() {
        assert_eq!(baseline(String::new(), "s").unwrap(), None);
        assert_eq!(baseline("a".into(), "x").unwrap().unwrap().relation, Relation::Factor);
        assert!(baseline("a".into(), "s").unwrap_err().to_string().contains("not `s`"));
    }
}
