//! `manifest.json`: what was run, on what, and when. The only file that is not the same for the same input.

use super::{MANIFEST, machine};
use crate::failure::quoted;
use crate::loaded::Loaded;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// A manifest in the making: written when the run begins, and again when it has ended.
pub(crate) struct Manifest {
    path: PathBuf,
    content: Value,
    started: Instant,
}

impl Manifest {
    /// Describes a run that is about to begin.
    pub(crate) fn new(directory: &Path, loaded: &Loaded, threads: usize) -> Manifest {
        let command: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
        let content = json!({
            "livemig": { "version": env!("CARGO_PKG_VERSION"), "commit": option_env!("LIVEMIG_COMMIT") },
            "command": command.join(" "),
            "scenario": {
                "name": loaded.scenario.name,
                "file": loaded.path.display().to_string(),
                "xxh3": loaded.hash(),
            },
            "inputs": loaded.inputs.iter().map(|i| json!({ "file": i.path.display().to_string(), "xxh3": i.hash })).collect::<Vec<_>>(),
            "seed": loaded.scenario.seed,
            "replicates": loaded.scenario.replicates,
            "fidelity": loaded.scenario.fidelity.name(),
            "strategies": loaded.strategy_names(),
            "effective": loaded.effective,
            "machine": machine::describe(),
            "threads": threads,
            "started": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            "wall_clock_s": null,
            "runs": null,
            "finished": false,
        });
        Manifest { path: directory.join(MANIFEST), content, started: Instant::now() }
    }

    /// Writes the manifest as it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.content).context("cannot describe the run")?;
        fs::write(&self.path, text + "\n").with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Adds what only one command knows.
    pub(crate) fn add(&mut self, facts: Vec<(&'static str, Value)>) {
        for (key, value) in facts {
            self.content[key] = value;
        }
    }

    /// Writes the manifest of a run that has ended after so many runs.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn finish(mut self, runs: usize) -> Result<()> {
        self.content["wall_clock_s"] = self.started.elapsed().as_secs_f64().into();
        self.content["runs"] = runs.into();
        self.content["finished"] = true.into();
        self.write()
    }
}
