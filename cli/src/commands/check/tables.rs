//! Differences for people, in 80 columns, and for programs.

use super::difference::{Change, Differences, Place};
use crate::args::Format;
use crate::csv_rows;
use crate::human::plural;
use crate::papers::number;
use crate::table::{self, Style, left, right};
use crate::value::{Value, json_object};

const COLUMNS: [&str; 9] = ["scenario", "point", "replicate", "strategy", "vm", "metric", "then", "now", "change"];

/// Tables show so many changes of a scenario; CSV and JSON show all.
const MOST: usize = 20;
/// Digits of values in tables.
const DIGITS: i32 = 6;
const WHERE: u16 = 23;
const METRIC: u16 = 22;

/// The line above all rows of CSV.
pub(super) fn header() -> String {
    csv_rows::text(|rows| rows.words(COLUMNS))
}

/// What is different in one scenario.
pub(super) fn shown(format: Format, scenario: &str, differences: &Differences) -> String {
    match format {
        Format::Table => text(scenario, differences, Style::Plain),
        Format::Md => text(scenario, differences, Style::Markdown),
        Format::Csv => csv_rows::text(|lines| rows(scenario, differences).try_for_each(|row| lines.row(row))),
        Format::Json => rows(scenario, differences).map(|row| json_object(COLUMNS.into_iter().zip(&row)) + "\n").collect(),
    }
}

/// A row per change; rows that came or went have the metric `row`, columns that went no row.
fn rows<'a>(scenario: &'a str, differences: &'a Differences) -> impl Iterator<Item = Vec<Value>> + 'a {
    let row = move |place: Option<&Place>, metric: &str, [then, now]: [&str; 2], change: Option<f64>| {
        let number = |n: Option<u64>| n.map_or(Value::Empty, Value::Count);
        let text = |text: Option<&str>| text.filter(|t| !t.is_empty()).map_or(Value::Empty, Value::from);
        vec![
            scenario.into(),
            number(place.map(|p| p.point)),
            number(place.map(|p| p.replicate)),
            text(place.map(|p| p.strategy.as_str())),
            text(place.map(|p| p.vm.as_str())),
            metric.into(),
            text(Some(then)),
            text(Some(now)),
            change.into(),
        ]
    };
    let changes = differences.changes.iter().map(move |c| row(Some(&c.place), &c.metric, [&c.then, &c.now], c.share()));
    let gone = differences.gone.iter().map(move |place| row(Some(place), "row", ["there", "gone"], None));
    let come = differences.come.iter().map(move |place| row(Some(place), "row", ["absent", "there"], None));
    let columns = differences.columns_gone.iter().map(move |name| row(None, name, ["there", "gone"], None));
    changes.chain(gone).chain(come).chain(columns)
}

fn text(scenario: &str, differences: &Differences, style: Style) -> String {
    let Differences { changes, gone, come, columns_gone, columns_new, compared } = differences;
    let mut text = if differences.is_empty() {
        format!("{scenario}: {} as before\n", plural(*compared, "value"))
    } else {
        format!("{scenario}: {} of {} changed\n", changes.len(), plural(*compared, "value"))
    };
    for (names, what) in [(columns_gone, "gone"), (columns_new, "not in the baseline")] {
        if !names.is_empty() {
            text += &format!("columns {what}: {}\n", names.join(", "));
        }
    }
    for (places, what) in [(gone, "gone"), (come, "new")] {
        for place in places.iter().take(MOST) {
            text += &format!("row {what}: {}\n", whose(place));
        }
        text += &rest(places.len());
    }
    if !changes.is_empty() {
        let layout = [left("where").at_most(WHERE), left("metric").at_most(METRIC), right("then"), right("now"), right("change")];
        text += &format!("\n{}", table::render(&layout, changes.iter().take(MOST).map(cells).collect(), style, true));
        text += &rest(changes.len());
        text.push('\n');
    }
    text
}

fn rest(all: usize) -> String {
    if all > MOST { format!("and {} more, which --format csv shows\n", all - MOST) } else { String::new() }
}

fn whose(place: &Place) -> String {
    let Place { point, strategy, replicate, vm, .. } = place;
    let more = [("point", point), ("replicate", replicate)].into_iter().filter(|(_, n)| **n > 0);
    more.fold(format!("{strategy}, {vm}"), |text, (what, n)| format!("{text}, {what} {n}"))
}

fn cells(change: &Change) -> Vec<String> {
    let value = |text: &str| match text.parse::<f64>() {
        _ if text.is_empty() => "-".to_owned(),
        Ok(x) if text.len() > DIGITS as usize + 2 => number(x, DIGITS),
        _ => text.to_owned(),
    };
    let share =
        change.share().map_or_else(|| "-".to_owned(), |s| format!("{}{} %", if s < 0.0 { "" } else { "+" }, number(s * 100.0, 3)));
    vec![whose(&change.place), change.metric.clone(), value(&change.then), value(&change.now), share]
}
