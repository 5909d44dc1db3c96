//! `livemig run`: every point, strategy and replicate; one row per run and VM, printed as it comes.

use crate::args::{Format, RunArgs};
use crate::batch::{self, Simulator, View};
use crate::csv_rows;
use crate::failure::Answer;
use crate::human;
use crate::jobs::Job;
use crate::loaded::Loaded;
use crate::record::{self, Record};
use crate::table::{self, Layout, Style, left, right};
use crate::value::json_object;
use anyhow::Result;
use livemig_core::units::Span;
use std::iter;

pub(super) fn run(args: &RunArgs) -> Result<Answer> {
    let Some(loaded) = batch::load(&args.batch)? else { return Ok(Answer::Done) };
    let mut view = Rows { format: args.batch.format, loaded: &loaded, layout: layout(&loaded), printed: false };
    let tally = batch::drive(&args.batch, &loaded, &Simulator, &mut view)?;
    Ok(if tally.complain_of_failures(&loaded) { Answer::Negative } else { Answer::Done })
}

/// Prints rows.
struct Rows<'a> {
    format: Format,
    loaded: &'a Loaded,
    layout: Vec<Layout>,
    /// The head of the table is out.
    printed: bool,
}

impl<'a> View<'a> for Rows<'a> {
    fn begin(&mut self) -> String {
        if self.format == Format::Csv {
            csv_rows::text(|rows| rows.words(record::header(self.loaded.sweep())))
        } else {
            String::new()
        }
    }

    fn add(&mut self, _: &Job, records: Vec<Record<'a>>) -> String {
        match self.format {
            Format::Csv => csv_rows::text(|rows| records.iter().try_for_each(|r| rows.row(r.values()))),
            Format::Json => records.iter().map(|r| json_line(r)).collect(),
            Format::Table => self.table(&records, Style::Plain),
            Format::Md => self.table(&records, Style::Markdown),
        }
    }

    fn end(&mut self) -> String {
        String::new()
    }
}

impl Rows<'_> {
    fn table(&mut self, records: &[Record<'_>], style: Style) -> String {
        let rows = records.iter().map(|record| self.cells(record)).collect();
        table::render(&self.layout, rows, style, !std::mem::replace(&mut self.printed, true))
    }

    fn cells(&self, record: &Record<'_>) -> Vec<String> {
        let scenario = &self.loaded.scenario;
        let m = &record.metrics;
        let mut cells = Vec::new();
        cells.extend((scenario.points.len() > 1).then(|| record.point.to_string()));
        cells.extend((scenario.replicates > 1).then(|| record.replicate.to_string()));
        cells.extend([record.strategy, record.vm, m.outcome.name()].map(str::to_owned));
        cells.extend([m.eviction_time, m.total_migration_time, m.downtime.map(|d| d.total)].map(time));
        cells.push(human::bytes(m.bytes.total().0 as f64));
        cells
    }
}

/// Points and replicates have a column only when there are several.
fn layout(loaded: &Loaded) -> Vec<Layout> {
    let scenario = &loaded.scenario;
    let strategies = scenario.points.iter().flat_map(|p| &p.strategies).map(|s| s.name.as_str());
    let vms = scenario.points.iter().flat_map(|p| &p.world.vms).map(|vm| vm.name.as_str());
    let mut layout = Vec::new();
    let (point, replicate) = (scenario.points.len().to_string(), scenario.replicates.to_string());
    layout.extend((scenario.points.len() > 1).then(|| right("point").fitting(iter::once(point.as_str()))));
    layout.extend((scenario.replicates > 1).then(|| right("repl.").fitting(iter::once(replicate.as_str()))));
    layout.extend([
        left("strategy").fitting(strategies),
        left("vm").fitting(vms),
        left("outcome").fitting(iter::once("unfinished")),
    ]);
    let widths = [("eviction", TIME), ("total", TIME), ("downtime", TIME), ("sent", BYTES)];
    layout.extend(widths.map(|(title, widest)| right(title).fitting(iter::once(widest))));
    layout
}

/// The widest texts that [`human`] makes.
const TIME: &str = "123.4 ms";
const BYTES: &str = "123.4 MiB";

fn time(span: Option<Span>) -> String {
    span.map_or_else(|| "-".to_owned(), |s| human::seconds(s.as_secs_f64()))
}

fn json_line(record: &Record<'_>) -> String {
    let (header, values) = (record::header(record.sweep), record.values());
    json_object(header.iter().map(String::as_str).zip(&values)) + "\n"
}
