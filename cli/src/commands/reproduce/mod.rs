//! `livemig reproduce`: published figures beside ours, paper by paper.

mod tables;

use crate::args::{Format, ReproduceArgs};
use crate::batch;
use crate::chart::figures;
use crate::csv_rows;
use crate::failure::Answer;
use crate::papers::{self, Beside, Collection, Contents, Paper, Published, Runs};
use crate::stdout::Output;
use crate::table::Style;
use crate::value::json_object;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

pub(super) fn run(args: &ReproduceArgs) -> Result<Answer> {
    let collection = args.from.clone().map_or(Collection::Inside, Collection::Folder);
    let mut contents = collection.contents()?;
    contents.select(&args.papers)?;
    if let Some(directory) = &args.output {
        fs::create_dir_all(directory).with_context(|| format!("cannot make the output directory {}", directory.display()))?;
    }
    let mut out = Output::new(args.output.is_some());
    if args.format == Format::Csv {
        out.write(&csv_rows::text(|rows| rows.words(papers::header())))?;
    }
    let threads = batch::threads(args.threads);
    let mut all = Vec::new();
    for paper in &contents.papers {
        let rows = contents.of(paper);
        let rows = beside(&rows, &Runs::of(&rows, &collection, threads)?)?;
        out.write(&shown(args.format, paper, &rows))?;
        if let Some(directory) = &args.output {
            file(directory, &contents, paper, &rows)?;
        }
        all.extend(rows);
    }
    match args.format {
        Format::Table => out.write(&tables::summary(&contents.kinds, &all, Style::Plain))?,
        Format::Md => out.write(&tables::summary(&contents.kinds, &all, Style::Markdown))?,
        Format::Csv | Format::Json => {}
    }
    Ok(Answer::Done)
}

fn beside<'a>(rows: &[&'a Published], runs: &Runs) -> Result<Vec<Beside<'a>>> {
    rows.iter().map(|published| Ok(Beside { published, ours: runs.beside(published)? })).collect()
}

fn shown(format: Format, paper: &Paper, rows: &[Beside<'_>]) -> String {
    match format {
        Format::Table => tables::paper(paper, rows, Style::Plain),
        Format::Md => tables::paper(paper, rows, Style::Markdown),
        Format::Csv => csv(rows),
        Format::Json => rows.iter().map(|row| json_object(papers::header().into_iter().zip(&row.numbers())) + "\n").collect(),
    }
}

fn csv(rows: &[Beside<'_>]) -> String {
    csv_rows::text(|lines| rows.iter().try_for_each(|row| lines.row(row.values())))
}

/// Writes the CSV file of a paper, and a chart of each of its figures.
fn file(directory: &Path, contents: &Contents, paper: &Paper, rows: &[Beside<'_>]) -> Result<()> {
    let write = |name: String, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let header = csv_rows::text(|lines| lines.words(papers::header()));
    write(format!("{}.csv", paper.name), header + &csv(rows))?;
    for (name, svg) in figures::draw(contents, paper, rows)? {
        write(name, svg)?;
    }
    Ok(())
}
