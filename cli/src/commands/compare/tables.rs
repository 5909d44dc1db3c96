//! A comparison for people: what it takes, and what it costs, in 80 columns.

use super::Block;
use crate::heading;
use crate::human;
use crate::summary::{Measure, Ratio, Spread, Summary, ratios};
use crate::table::{self, Layout, Style, left, right};

/// Names that are longer are wrapped.
const NAME: u16 = 16;

/// What stands where there is no value.
const NOTHING: &str = "-";

pub(super) fn render(block: &Block<'_>, style: Style) -> String {
    let title = match block.point {
        (_, 1) => String::new(),
        (index, of) => format!("point {} of {of}: {}\n\n", index + 1, heading::point(block.sweep)),
    };
    format!("{title}{}\n{}\n", times(block, style), costs(block, style))
}

/// What the marks in the tables mean.
pub(super) fn legend(replicates: u32, baseline: Option<&str>) -> String {
    let to = baseline.map_or("the best of its column".to_owned(), |name| format!("`{name}`"));
    let interval = match replicates {
        0 | 1 => return format!("x: ratio to {to}\n"),
        // Fewer values have no narrower interval; see `Spread`.
        2..=5 => "range",
        _ => "95 % confidence interval of the median",
    };
    format!(
        "median and {interval} of {replicates} replicates; x: ratio of medians to {to}\n\
         ~: not distinguishable from it, because the intervals overlap\n"
    )
}

/// Eviction, total and downtime with their ratios, and how it ended.
fn times(block: &Block<'_>, style: Style) -> String {
    let downtime = if block.several_vms { "longest downtime" } else { "downtime" };
    let layout = [left("strategy").at_most(NAME), right("eviction"), right("total"), right(downtime), left("outcome")];
    let ratios = Measure::TIMES.map(|measure| ratios(&block.summaries, measure, block.baseline));
    let row = |(index, summary): (usize, &Summary)| {
        let cells = Measure::TIMES.into_iter().zip(&ratios).map(|(measure, ratios)| {
            let ratio = format!(" {:>WIDEST_RATIO$}", ratio(ratios[index], block.replicates));
            cell(block, summary.spread(measure), style, human::seconds_with_interval, &ratio)
        });
        std::iter::once(summary.strategy.clone()).chain(cells).chain([outcome(summary)]).collect()
    };
    table(&layout, block.summaries.iter().enumerate().map(row).collect(), style)
}

/// What the application and the network pay.
fn costs(block: &Block<'_>, style: Style) -> String {
    let layout = [left("strategy").at_most(NAME), right("perceived"), right("sent"), right("faults"), right("work lost")];
    let row = |summary: &Summary| {
        let show = |measure, write| cell(block, summary.spread(measure), style, write, "");
        vec![
            summary.strategy.clone(),
            show(Measure::Perceived, human::seconds_with_interval),
            show(Measure::Sent, human::bytes_with_interval),
            show(Measure::Faults, human::count_with_interval),
            show(Measure::WorkLost, human::seconds_with_interval),
        ]
    };
    table(&layout, block.summaries.iter().map(row).collect(), style)
}

fn table(layout: &[Layout], rows: Vec<Vec<String>>, style: Style) -> String {
    table::render(layout, rows, style, true)
}

/// Writes a median and the interval around it.
type Write = fn([f64; 3]) -> (String, String);

/// The median with `suffix`, and below it the interval when there are replicates.
fn cell(block: &Block<'_>, spread: Option<Spread>, style: Style, write: Write, suffix: &str) -> String {
    let Some(Spread { median, low, high }) = spread else { return NOTHING.to_owned() };
    let (median, interval) = write([median, low, high]);
    match (block.replicates, style) {
        (0 | 1, _) => format!("{median}{suffix}"),
        (_, Style::Plain) => format!("{median}{suffix}\n{interval}").trim_end().to_owned(),
        (_, Style::Markdown) => format!("{median}{suffix} {interval}").trim_end().to_owned(),
    }
}

/// The length of `~1.00x` and `~1234x`.
const WIDEST_RATIO: usize = 6;

fn ratio(ratio: Option<Ratio>, replicates: u32) -> String {
    let Some(Ratio { factor, distinguishable }) = ratio else { return String::new() };
    let unsure = replicates > 1 && !distinguishable && factor != 1.0;
    format!("{}{}x", if unsure { "~" } else { "" }, human::factor(factor))
}

/// How the runs of a strategy ended, and below it whether the stop rule was met.
fn outcome(summary: &Summary) -> String {
    let Summary { runs, completed, converged, .. } = *summary;
    let ended = match summary.failure {
        None => "completed".to_owned(),
        Some(failure) if completed == 0 => failure.name().to_owned(),
        Some(_) => format!("{completed}/{runs} compl."),
    };
    match converged {
        n if n == runs => ended,
        0 => format!("{ended}\nunconverged"),
        n => format!("{ended}\n{n}/{runs} conv."),
    }
}

#[cfg(test)]
pub(in crate::commands::compare) mod tests {
    use super::*;
    use crate::record::Record;
    use crate::record::tests::{metrics, record};

    fn summary(name: &'static str, downtimes: &[u64]) -> Summary {
        let records: Vec<_> = downtimes.iter().map(|d| Record { strategy: name, ..record(metrics(100 + d / 100, *d)) }).collect();
        Summary::of(&records).unwrap()
    }

    /// Two strategies whose downtimes are apart.
    pub(in crate::commands::compare) fn block(replicates: u32) -> Block<'static> {
        let (slow, fast) = ([300, 290, 310], [100, 90, 110]);
        let n = replicates as usize;
        Block {
            scenario: "s",
            point: (0, 1),
            sweep: &[],
            replicates,
            several_vms: false,
            baseline: None,
            summaries: vec![summary("pre-copy", &slow[..n]), summary("a strategy with a long name", &fast[..n])],
        }
    }

    #[test]
    fn eighty_columns_are_enough() {
        for replicates in [1, 3] {
            let text = render(&block(replicates), Style::Plain) + &legend(replicates, None);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}\n{text}");
            }
        }
    }

    #[test]
    fn single_runs_have_no_intervals() {
        let text = render(&block(1), Style::Plain);
        assert!(text.contains("300.0 ms  3.00x"), "{text}");
        assert!(text.contains("100.0 ms  1.00x"), "{text}");
        assert!(!text.contains('['), "{text}");
        assert_eq!(legend(1, None), "x: ratio to the best of its column\n");
    }

    #[test]
    fn overlapping_strategies_are_marked() {
        let text = render(&block(3), Style::Plain);
        // Totals are 102, 103 and 103 s against 100, 101 and 101 s.
        assert!(text.contains("[90.0..110.0]"), "{text}");
        assert!(!text.contains('~'), "{text}");
        let close = Block { summaries: vec![summary("a", &[100, 300]), summary("b", &[200, 400])], ..block(2) };
        let text = render(&close, Style::Plain);
        assert!(text.contains("~1.50"), "{text}");
        assert!(legend(2, None).contains("not distinguishable"));
    }

    #[test]
    fn what_did_not_end_well_is_said() {
        use livemig_core::machine::Outcome;
        let mut records = vec![record(metrics(20, 300)), record(metrics(20, 300))];
        records[1].metrics.outcome = Outcome::Unfinished;
        records[1].metrics.converged = false;
        assert_eq!(outcome(&Summary::of(&records).unwrap()), "1/2 compl.\n1/2 conv.");
        assert_eq!(outcome(&Summary::of(&records[1..]).unwrap()), "unfinished\nunconverged");
        assert_eq!(outcome(&Summary::of(&records[..1]).unwrap()), "completed");
    }
}
