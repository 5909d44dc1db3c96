//! `livemig check`: whether scenarios still give the metrics of a committed baseline.
//!
//! A baseline is a directory: `check.toml` says which scenarios are held and how much a metric may move, and beside it lies the
//! `metrics.csv` of each, as `NAME.csv`.

mod config;
mod difference;
mod tables;

use crate::args::{CheckArgs, Format};
use crate::batch;
use crate::csv_rows;
use crate::failure::{Answer, quoted};
use crate::jobs;
use crate::loaded::{self, Loaded};
use crate::progress::Progress;
use crate::record;
use crate::stdout::Output;
use anyhow::{Context, Result};
use config::Config;
use difference::{Differences, Rows};
use std::fs;
use std::path::Path;

pub(super) fn run(args: &CheckArgs) -> Result<Answer> {
    let config = Config::read(&args.directory)?;
    let threads = batch::threads(args.threads);
    let mut out = Output::new(args.update);
    if args.format == Format::Csv {
        out.write(&tables::header())?;
    }
    let mut differing = 0;
    for path in &config.scenarios {
        let loaded = loaded::load(path, livemig_models::scenario::Replaced::default())?;
        let file = args.directory.join(format!("{}.csv", config::stem(path)));
        let now = metrics(&loaded, threads)?;
        if args.update {
            let changed = fs::read_to_string(&file).ok().as_deref() != Some(now.as_str());
            fs::write(&file, now).with_context(|| format!("cannot write {}", file.display()))?;
            out.write(&format!("{}: {}\n", file.display(), if changed { "written" } else { "the same" }))?;
            continue;
        }
        let then = fs::read_to_string(&file)
            .with_context(|| format!("cannot read {} (to make it: {})", file.display(), update_command(&args.directory)))?;
        let differences = Differences::between(&Rows::parse(&then, &file)?, &Rows::parse(&now, &file)?, &config.tolerance);
        differing += usize::from(!differences.is_empty());
        out.write(&tables::shown(args.format, &loaded.scenario.name, &differences))?;
    }
    if differing == 0 {
        return Ok(Answer::Done);
    }
    eprintln!("{differing} of {} scenarios differ from the baseline", config.scenarios.len());
    eprintln!("if that is intended: {}", update_command(&args.directory));
    Ok(Answer::Negative)
}

fn update_command(directory: &Path) -> String {
    format!("livemig check {} --update", quoted(&directory.display().to_string()))
}

/// The text of the scenario's `metrics.csv`.
fn metrics(loaded: &Loaded, threads: usize) -> Result<String> {
    let scenario = &loaded.scenario;
    let jobs = jobs::all(&scenario.points, scenario.replicates);
    let progress = Progress::new(jobs.len());
    let work = |job: &jobs::Job| {
        let point = &scenario.points[job.point];
        livemig_sim::run(&point.world, &point.strategies[job.strategy], batch::settings(scenario, job))
    };
    let mut text = csv_rows::text(|rows| rows.words(record::header(loaded.sweep())));
    jobs::in_order(&jobs, threads, work, |job, result| {
        let mut result = result.with_context(|| batch::reproduction("run", loaded, job))?;
        let records = batch::records(loaded, job, &mut result);
        text += &csv_rows::text(|rows| records.iter().try_for_each(|r| rows.row(r.values())));
        progress.step(|| ());
        Ok(())
    })?;
    Ok(text)
}
