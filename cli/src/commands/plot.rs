//! `livemig plot`: draws the charts of an output directory again.

use crate::args::PlotArgs;
use crate::chart;
use crate::failure::Answer;
use anyhow::{Context, Result};
use std::fs;

pub(super) fn run(args: &PlotArgs) -> Result<Answer> {
    let to = args.output.as_deref().unwrap_or(&args.directory);
    fs::create_dir_all(to).with_context(|| format!("cannot make the output directory {}", to.display()))?;
    chart::draw(&args.directory, to)?;
    Ok(Answer::Done)
}
