//! `livemig compare`: the strategies of a scenario side by side, one block per point of the sweep.

mod columns;
mod tables;

use crate::args::{CompareArgs, Format};
use crate::batch::{self, Simulator, View};
use crate::failure::Answer;
use crate::jobs::Job;
use crate::loaded::Loaded;
use crate::record::Record;
use crate::summary::Summary;
use crate::table::Style;
use anyhow::{Result, bail};

pub(super) fn run(args: &CompareArgs) -> Result<Answer> {
    let Some(loaded) = batch::load(&args.batch)? else { return Ok(Answer::Done) };
    let mut view = Blocks::new(args.batch.format, &loaded, args.baseline.as_deref())?;
    let tally = batch::drive(&args.batch, &loaded, &Simulator, &mut view)?;
    if !args.require_converged {
        return Ok(Answer::Done);
    }
    let negative = tally.complain_of_failures(&loaded) || tally.complain_of_divergence(&loaded);
    Ok(if negative { Answer::Negative } else { Answer::Done })
}

fn check_baseline(loaded: &Loaded, name: &str) -> Result<()> {
    let known = loaded.strategy_names();
    if !known.contains(&name) {
        bail!("--baseline: no strategy `{name}` is compared; there are {}", known.join(", "));
    }
    Ok(())
}

/// Strategies of one point of the sweep.
struct Block<'a> {
    scenario: &'a str,
    /// Index of the point, and how many there are.
    point: (usize, usize),
    sweep: &'a [(String, String)],
    replicates: u32,
    /// Whether a row stands for several VMs.
    several_vms: bool,
    baseline: Option<&'a str>,
    summaries: Vec<Summary>,
}

/// Prints a block when all runs of a point have ended.
pub(super) struct Blocks<'a> {
    format: Format,
    loaded: &'a Loaded,
    baseline: Option<&'a str>,
    /// Runs of the strategy that is being run.
    runs: Vec<Record<'a>>,
    /// The point that is being run, and the strategies that are done with it.
    block: Option<Block<'a>>,
}

impl<'a> View<'a> for Blocks<'a> {
    fn begin(&mut self) -> String {
        if self.format == Format::Csv { columns::header(self.loaded.sweep()) } else { String::new() }
    }

    fn add(&mut self, job: &Job, mut records: Vec<Record<'a>>) -> String {
        let scenario = &self.loaded.scenario;
        let point = &scenario.points[job.point];
        let block = self.block.get_or_insert_with(|| Block {
            scenario: &scenario.name,
            point: (job.point, scenario.points.len()),
            sweep: &point.label,
            replicates: scenario.replicates,
            several_vms: false,
            baseline: self.baseline,
            summaries: Vec::new(),
        });
        block.several_vms |= records.len() > 1;
        // The row of the whole run is the last one.
        self.runs.extend(records.pop());
        let last_replicate = job.replicate + 1 == scenario.replicates;
        if last_replicate {
            block.summaries.extend(Summary::of(&std::mem::take(&mut self.runs)));
        }
        if last_replicate && job.strategy + 1 == point.strategies.len() { self.show_block() } else { String::new() }
    }

    fn end(&mut self) -> String {
        let interrupted = Summary::of(&std::mem::take(&mut self.runs));
        if let Some(block) = &mut self.block {
            block.summaries.extend(interrupted);
        }
        let rest = self.show_block();
        if matches!(self.format, Format::Table | Format::Md) {
            rest + &tables::legend(self.loaded.scenario.replicates, self.baseline)
        } else {
            rest
        }
    }
}

impl<'a> Blocks<'a> {
    /// Blocks with ratios to `baseline`, or to the best.
    ///
    /// # Errors
    /// When nobody runs a strategy of that name.
    pub(super) fn new(format: Format, loaded: &'a Loaded, baseline: Option<&'a str>) -> Result<Blocks<'a>> {
        if let Some(name) = baseline {
            check_baseline(loaded, name)?;
        }
        Ok(Blocks { format, loaded, baseline, runs: Vec::new(), block: None })
    }
}

impl Blocks<'_> {
    fn show_block(&mut self) -> String {
        let Some(block) = self.block.take() else { return String::new() };
        match self.format {
            Format::Csv => columns::csv(&block),
            Format::Json => columns::json(&block),
            Format::Table => tables::render(&block, Style::Plain),
            Format::Md => tables::render(&block, Style::Markdown),
        }
    }
}
