//! `livemig schema`: the JSON Schema of scenario files.

use crate::failure::Answer;
use crate::stdout::Output;
use anyhow::{Context, Result};

pub(super) fn run() -> Result<Answer> {
    let schema = serde_json::to_string_pretty(&livemig_models::scenario::schema()).context("cannot describe the format")?;
    Output::new(false).write(&(schema + "\n"))?;
    Ok(Answer::Done)
}
