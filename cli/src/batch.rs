//! What `run` and `compare` have in common: a scenario is read, its runs are made, and every result is shown and filed.

use crate::args::{BatchArgs, Format};
use crate::heading;
use crate::jobs::{self, Job};
use crate::loaded::Loaded;
use crate::output::{Manifest, OutputDir};
use crate::progress::Progress;
use crate::record::{Record, WHOLE};
use crate::stdout::Output;
use crate::value::Value;
use crate::{chart, loaded};
use anyhow::{Context, Result};
use livemig_core::drain::Fate;
use livemig_core::ledger::whole;
use livemig_core::machine::Outcome;
use livemig_models::scenario::Replaced;
use livemig_models::world::{HostId, Scenario, World};
use livemig_sim::{DrainResult, RunResult, Settings};
use std::mem;
use std::num::NonZero;
use std::thread::available_parallelism;

/// A run with more migrations than this keeps no timelines: nobody looks at them, and they are most of the output.
const MOST_TIMELINES: usize = 1000;

/// How a command shows results.
pub(crate) trait View<'a> {
    /// What stands before the first result.
    fn begin(&mut self) -> String;
    /// What a run adds. The records are those of the VMs, and the one of the whole run last when there are several.
    fn add(&mut self, job: &Job, records: Vec<Record<'a>>) -> String;
    /// What is left to be said after the last run, or after the last one that could be made.
    fn end(&mut self) -> String;
}

/// What carries out the runs of a scenario.
pub(crate) trait Executor: Sync {
    /// The command that does it.
    const COMMAND: &'static str;

    /// Makes a run; `timeline` asks for timelines.
    ///
    /// # Errors
    /// When it cannot be made.
    fn run(&self, scenario: &Scenario, job: &Job, timeline: bool) -> Result<Run>;

    /// What the manifest says beside what it says of every command.
    fn facts(&self) -> Vec<(&'static str, serde_json::Value)>;
}

/// A run that was made.
pub(crate) struct Run {
    pub(crate) result: RunResult,
    /// What is wrong with migrations that completed, each with the name of its VM.
    pub(crate) complaints: Vec<String>,
}

/// The simulator.
pub(crate) struct Simulator;

impl Executor for Simulator {
    const COMMAND: &'static str = "run";

    fn run(&self, scenario: &Scenario, job: &Job, timeline: bool) -> Result<Run> {
        let point = &scenario.points[job.point];
        let settings = Settings { timeline, ..settings(scenario, job) };
        Ok(Run { result: livemig_sim::run(&point.world, &point.strategies[job.strategy], settings), complaints: Vec::new() })
    }

    fn facts(&self) -> Vec<(&'static str, serde_json::Value)> {
        Vec::new()
    }
}

/// What became of all migrations.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// The command that made them.
    command: &'static str,
    migrations: usize,
    /// Migrations that did not complete, and the first of them in words.
    failed: (usize, Option<String>),
    /// Migrations that did not converge, and the first of them in words.
    unconverged: (usize, Option<String>),
}

impl Tally {
    fn new(command: &'static str) -> Tally {
        Tally { command, migrations: 0, failed: (0, None), unconverged: (0, None) }
    }

    /// Complains about migrations that did not complete; whether there were any.
    pub(crate) fn complain_of_failures(&self, scenario: &Loaded) -> bool {
        self.complain(&self.failed, "did not complete", scenario)
    }

    /// Complains about migrations that did not converge; whether there were any.
    pub(crate) fn complain_of_divergence(&self, scenario: &Loaded) -> bool {
        self.complain(&self.unconverged, "did not converge", scenario)
    }

    fn complain(&self, (count, first): &(usize, Option<String>), what: &str, loaded: &Loaded) -> bool {
        let Some(first) = first else { return false };
        eprintln!("{count} of {} migrations {what}: {first}", self.migrations);
        eprintln!("reproduce with: {}", loaded.command(self.command, None));
        true
    }

    /// VMs of a drain that did not leave and whose migration never began.
    fn count_unmoved(&mut self, loaded: &Loaded, job: &Job, drain: Option<&DrainResult>) {
        let point = &loaded.scenario.points[job.point];
        for left in drain.into_iter().flat_map(|drain| &drain.not_moved) {
            let reason = match left.fate {
                Fate::Unplaced(reason) => reason.name(),
                Fate::Waiting => left.fate.name(),
                // These have a migration, which is counted; a call-off was wanted.
                Fate::Moved { .. } | Fate::Failed | Fate::Lost | Fate::Undecided | Fate::Cancelled | Fate::Unfinished => continue,
            };
            self.migrations += 1;
            let vm = point.world.vms.get(left.vm.0 as usize).map_or("?", |vm| vm.name.as_str());
            let strategy = &point.strategies[job.strategy].name;
            note(&mut self.failed, || format!("{vm} with {strategy}, replicate {}, {reason}", job.replicate));
        }
    }

    /// Migrations that completed, and should not have.
    fn count_complaints(&mut self, job: &Job, strategy: &str, complaints: &[String]) {
        for complaint in complaints {
            note(&mut self.failed, || format!("{complaint} (with {strategy}, replicate {})", job.replicate));
        }
    }

    fn count(&mut self, records: &[Record<'_>]) {
        for record in records.iter().filter(|record| record.vm != WHOLE) {
            self.migrations += 1;
            let outcome = record.metrics.outcome;
            if outcome != Outcome::Completed {
                note(&mut self.failed, || format!("{}, {}", describe(record), outcome.name()));
            }
            if !record.metrics.converged {
                note(&mut self.unconverged, || describe(record));
            }
        }
    }
}

fn note((count, first): &mut (usize, Option<String>), words: impl FnOnce() -> String) {
    *count += 1;
    first.get_or_insert_with(words);
}

fn describe(record: &Record<'_>) -> String {
    let point = if record.sweep.is_empty() { String::new() } else { format!(" at {}", heading::point(record.sweep)) };
    format!("{} with {}{point}, replicate {}", record.vm, record.strategy, record.replicate)
}

/// Reads the scenario of a command; `None` when it was only to be checked, which is then reported.
///
/// # Errors
/// When the scenario cannot be read or is wrong, or names a strategy that does not exist.
pub(crate) fn load(args: &BatchArgs) -> Result<Option<Loaded>> {
    let mut loaded = loaded::load(&args.scenario, Replaced { seed: args.seed, fidelity: args.fidelity.map(Into::into) })?;
    loaded.select(&args.strategies)?;
    if args.check {
        say_valid(&loaded)?;
        return Ok(None);
    }
    Ok(Some(loaded))
}

/// Says that there is nothing wrong with a scenario.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn say_valid(loaded: &Loaded) -> Result<()> {
    Output::new(false).write(&format!("{}the scenario is valid\n", heading::of(loaded)))
}

/// Makes every run of the scenario, shows results with `view` and files them when there is an output directory.
///
/// # Errors
/// When something cannot be written, or a run broke an invariant.
pub(crate) fn drive<'a, E: Executor>(
    args: &BatchArgs,
    loaded: &'a Loaded,
    executor: &E,
    view: &mut impl View<'a>,
) -> Result<Tally> {
    let scenario = &loaded.scenario;
    let jobs = jobs::all(&scenario.points, scenario.replicates);
    let threads = threads(args.threads);
    let mut files = match &args.output {
        Some(path) => {
            let flows = scenario.points.iter().any(|point| !point.world.flows.is_empty());
            let drain = scenario.points.iter().any(|point| point.world.drain.is_some());
            let files = OutputDir::create(path, loaded.sweep(), flows, drain)?;
            let manifest = Manifest::new(files.path(), loaded, threads);
            manifest.write()?;
            Some((files, manifest))
        }
        None => None,
    };
    let mut out = Output::new(files.is_some());
    if matches!(args.format, Format::Table | Format::Md) {
        out.write(&(heading::of(loaded) + "\n"))?;
    }
    out.write(&view.begin())?;
    let work = |job: &Job| {
        let point = &scenario.points[job.point];
        let timeline = args.output.is_some() && point.world.moves.len() <= MOST_TIMELINES;
        executor.run(scenario, job, timeline)
    };
    let mut tally = Tally::new(E::COMMAND);
    let progress = Progress::new(jobs.len());
    let result = jobs::in_order(&jobs, threads, work, |job, result| {
        let Run { mut result, complaints } = result.and_then(|run| run).with_context(|| reproduction(E::COMMAND, loaded, job))?;
        let records = records(loaded, job, &mut result);
        tally.count(&records);
        tally.count_complaints(job, &scenario.points[job.point].strategies[job.strategy].name, &complaints);
        tally.count_unmoved(loaded, job, result.drain.as_ref());
        let filed = files
            .as_mut()
            .map_or(Ok(()), |(files, _)| files.add(&run_values(loaded, job), &scenario.points[job.point].world, &records, &result));
        progress.step(|| out.write(&view.add(job, records)))?;
        filed
    });
    drop(progress);
    out.write(&view.end())?;
    result?;
    if let Some((files, mut manifest)) = files {
        manifest.add(executor.facts());
        chart::draw(files.path(), files.path())?;
        manifest.finish(jobs.len())?;
    }
    Ok(tally)
}

/// How many threads to use when the user said this.
pub(crate) fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from)
}

/// How a run of a scenario is made; no timeline is kept.
pub(crate) fn settings(scenario: &Scenario, job: &Job) -> Settings {
    Settings {
        horizon: scenario.horizon,
        seed: job.seed(scenario.seed),
        timeline: false,
        sampled: scenario.replicates > 1,
        fidelity: scenario.fidelity,
        rate_tolerance: scenario.rate_tolerance,
    }
}

/// Scenario, point, replicate and strategy of a run, as files begin their rows.
fn run_values(loaded: &Loaded, job: &Job) -> [Value; 4] {
    let scenario = &loaded.scenario;
    let strategy = scenario.points[job.point].strategies[job.strategy].name.as_str();
    [scenario.name.as_str().into(), Value::Count(job.point as u64), Value::Count(job.replicate.into()), strategy.into()]
}

/// How to see a failed run again.
pub(crate) fn reproduction(command: &str, loaded: &Loaded, job: &Job) -> String {
    let strategy = &loaded.scenario.points[job.point].strategies[job.strategy].name;
    let command = loaded.command(command, Some(strategy));
    format!("{strategy}, point {}, replicate {} failed (reproduce with: {command})", job.point, job.replicate)
}

/// The rows of a run, whose metrics move into them.
pub(crate) fn records<'a>(loaded: &'a Loaded, job: &Job, result: &mut RunResult) -> Vec<Record<'a>> {
    let scenario = &loaded.scenario;
    let point = &scenario.points[job.point];
    let of = |vm, source, destination, technique, metrics| Record {
        scenario: &scenario.name,
        point: job.point,
        sweep: &point.label,
        replicate: job.replicate,
        strategy: &point.strategies[job.strategy].name,
        vm,
        source,
        destination,
        technique,
        metrics,
    };
    let together = (result.migrations.len() > 1).then(|| whole(result.migrations.iter().map(|m| &m.metrics)));
    let mut records: Vec<Record<'a>> = result
        .migrations
        .iter_mut()
        .map(|m| {
            let vm = point.world.vms.get(m.vm.0 as usize).map_or("?", |vm| vm.name.as_str());
            of(vm, host(&point.world, m.source), host(&point.world, m.destination), Some(m.technique), mem::take(&mut m.metrics))
        })
        .collect();
    if let Some(metrics) = together {
        let (source, destination) = (common(&records, |r| r.source), common(&records, |r| r.destination));
        let technique = common(&records, |r| r.technique);
        records.push(of(WHOLE, source, destination, technique, metrics));
    }
    records
}

fn host(world: &World, id: HostId) -> Option<&str> {
    world.hosts.get(id.0 as usize).map(|host| host.name.as_str())
}

/// The name that all records share.
fn common<'a>(records: &[Record<'a>], read: impl Fn(&Record<'a>) -> Option<&'a str>) -> Option<&'a str> {
    let first = read(records.first()?)?;
    records.iter().all(|record| read(record) == Some(first)).then_some(first)
}
