//! The files of an output directory.

mod drain_csv;
mod machine;
mod manifest;
mod rounds_csv;
mod timeline_csv;

pub(crate) use manifest::Manifest;
pub(crate) use timeline_csv::{BANDWIDTH, PHASE, WORK};

use crate::csv_rows::CsvRows;
use crate::record::{self, Record};
use crate::value::Value;
use anyhow::{Context, Result};
use livemig_models::world::World;
use livemig_sim::RunResult;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// File of the results.
pub(crate) const METRICS: &str = "metrics.csv";
/// File of the rounds.
pub(crate) const ROUNDS: &str = "rounds.csv";
/// File of the timelines.
pub(crate) const TIMELINE: &str = "timeline.csv";
/// File about the run as a whole.
pub(crate) const MANIFEST: &str = "manifest.json";

/// File of the flows beside the migrations, for scenarios that have any.
const FLOWS: &str = "flows.csv";

/// Columns of `flows.csv`: the mean rate of each flow, in bytes per second, from the first request to the last ending of a
/// migration (or for its `measured_for`), and before the request.
const FLOW_COLUMNS: [&str; 7] = ["scenario", "point", "replicate", "strategy", "flow", "mean_rate", "mean_rate_before"];

/// Files of the hosts of a drain, and of the VMs that did not leave them, for scenarios with a drain.
const HOSTS: &str = "hosts.csv";
const UNMOVED: &str = "unmoved.csv";

/// What identifies a run in every file, as the first columns.
const RUN_COLUMNS: [&str; 5] = ["scenario", "point", "replicate", "strategy", "vm"];

/// A directory whose files are made before anything runs and grow with every result.
pub(crate) struct OutputDir {
    path: PathBuf,
    metrics: CsvFile,
    rounds: CsvFile,
    timeline: CsvFile,
    flows: Option<CsvFile>,
    drain: Option<DrainFiles>,
}

/// The files of a drain.
struct DrainFiles {
    hosts: CsvFile,
    unmoved: CsvFile,
}

impl OutputDir {
    /// Makes the directory and its files, with their headers; one of flows only when the scenario has `flows`, those of a
    /// drain only when it has a `drain`. Charts of an earlier run are removed.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be written.
    pub(crate) fn create(path: &Path, sweep: &[(String, String)], flows: bool, drain: bool) -> Result<OutputDir> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the output directory {}", path.display()))?;
        remove_charts(path)?;
        let run = RUN_COLUMNS.map(str::to_owned);
        let with = |columns: &[&str]| run.iter().cloned().chain(columns.iter().map(|c| (*c).to_owned())).collect::<Vec<String>>();
        let without_vm = |columns: &[&str]| {
            let run = run.iter().take(RUN_COLUMNS.len() - 1).cloned();
            run.chain(columns.iter().map(|c| (*c).to_owned())).collect::<Vec<String>>()
        };
        let drain_files = || {
            Ok::<_, anyhow::Error>(DrainFiles {
                hosts: CsvFile::create(path.join(HOSTS), &without_vm(&drain_csv::HOST_COLUMNS))?,
                unmoved: CsvFile::create(path.join(UNMOVED), &without_vm(&drain_csv::UNMOVED_COLUMNS))?,
            })
        };
        Ok(OutputDir {
            path: path.to_owned(),
            drain: drain.then(drain_files).transpose()?,
            metrics: CsvFile::create(path.join(METRICS), &record::header(sweep))?,
            rounds: CsvFile::create(path.join(ROUNDS), &with(&rounds_csv::COLUMNS))?,
            timeline: CsvFile::create(path.join(TIMELINE), &with(&timeline_csv::COLUMNS))?,
            flows: flows.then(|| CsvFile::create(path.join(FLOWS), &FLOW_COLUMNS.map(str::to_owned))).transpose()?,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the results of a run, of which `records` are the rows; `run` is its scenario, point, replicate and strategy.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn add(&mut self, run: &[Value], world: &World, records: &[Record<'_>], result: &RunResult) -> Result<()> {
        for (record, migration) in records.iter().zip(&result.migrations) {
            let run = record.first_values(RUN_COLUMNS.len());
            rounds_csv::write(&mut self.rounds, &run, &migration.rounds)?;
            timeline_csv::write(&mut self.timeline, &run, &migration.timeline)?;
        }
        if let (Some(file), Some(record)) = (&mut self.flows, records.first()) {
            for flow in &result.flows {
                let run = record.first_values(RUN_COLUMNS.len() - 1);
                let rates = [Value::Number(flow.mean.0), flow.before.map(|rate| rate.0).into()];
                file.row(run.into_iter().chain([flow.name.as_str().into()]).chain(rates))?;
            }
            file.flush()?;
        }
        if let (Some(files), Some(drain)) = (&mut self.drain, &result.drain) {
            drain_csv::write_hosts(&mut files.hosts, run, world, drain)?;
            drain_csv::write_unmoved(&mut files.unmoved, run, world, drain)?;
            files.hosts.flush()?;
            files.unmoved.flush()?;
        }
        for record in records {
            self.metrics.row(record.values())?;
        }
        // The results last: a run that is in metrics.csv has all its rounds.
        [&mut self.rounds, &mut self.timeline, &mut self.metrics].into_iter().try_for_each(CsvFile::flush)
    }
}

/// A CSV file that knows its name when something goes wrong.
pub(crate) struct CsvFile {
    path: PathBuf,
    rows: CsvRows<File>,
}

impl CsvFile {
    fn create(path: PathBuf, header: &[String]) -> Result<CsvFile> {
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut file = CsvFile { path, rows: CsvRows::new(file) };
        file.rows.words(header).with_context(|| file.complaint())?;
        file.flush()?;
        Ok(file)
    }

    fn row(&mut self, values: impl IntoIterator<Item = Value>) -> Result<()> {
        self.rows.row(values).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn flush(&mut self) -> Result<()> {
        self.rows.flush().with_context(|| self.complaint())
    }

    fn complaint(&self) -> String {
        format!("cannot write {}", self.path.display())
    }
}

/// Removes charts, which would otherwise stand beside results that they do not show.
pub(crate) fn remove_charts(directory: &Path) -> Result<()> {
    let complaint = || format!("cannot read the output directory {}", directory.display());
    for entry in fs::read_dir(directory).with_context(complaint)? {
        let entry = entry.with_context(complaint)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".svg") && (name.starts_with("timeline-") || name == "comparison.svg") {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}
