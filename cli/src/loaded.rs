//! A scenario as the command line uses it: read, checked, and reduced to the strategies that were asked for.

use crate::failure::quoted;
use anyhow::{Result, bail};
use livemig_core::strategy::{PRESETS, preset};
use livemig_models::scenario::{Input, Replaced};
use livemig_models::world::{Scenario, Strategy};
use std::path::{Path, PathBuf};

/// A scenario with what identifies it.
pub(crate) struct Loaded {
    /// The file.
    pub(crate) path: PathBuf,
    /// What is to be run.
    pub(crate) scenario: Scenario,
    /// The scenario with every default filled in.
    pub(crate) effective: serde_json::Value,
    /// The files that it was made from, the scenario first.
    pub(crate) inputs: Vec<Input>,
    /// The strategies that the user asked for; empty for those of the scenario.
    asked: Vec<String>,
    /// Other options that a run depends on, as they are typed.
    options: Vec<String>,
    /// The user has said how exactly memory is modelled.
    fidelity_asked: bool,
}

/// Reads and checks the scenario in `path`, with some of its values replaced.
///
/// # Errors
/// When the file cannot be read, or the scenario in it is wrong.
pub(crate) fn load(path: &Path, replaced: Replaced) -> Result<Loaded> {
    let read = livemig_models::scenario::load_with(path, replaced)?;
    Ok(Loaded { fidelity_asked: replaced.fidelity.is_some(), ..Loaded::new(path, read) })
}

/// Reads a scenario that the program carries inside, as `name`, with the files beside it.
///
/// # Errors
/// When the scenario is wrong.
pub(crate) fn parse(text: &str, name: &str, files: impl Iterator<Item = (&'static str, &'static str)>) -> Result<Loaded> {
    Ok(Loaded::new(Path::new(name), livemig_models::scenario::parse_with_files(text, name, files)?))
}

impl Loaded {
    fn new(path: &Path, read: livemig_models::scenario::Loaded) -> Loaded {
        let livemig_models::scenario::Loaded { scenario, effective, inputs } = read;
        Loaded { path: path.to_owned(), scenario, effective, inputs, asked: Vec::new(), options: Vec::new(), fidelity_asked: false }
    }

    /// XXH3 of the scenario file, in hexadecimal digits.
    pub(crate) fn hash(&self) -> &str {
        self.inputs.first().map_or("unknown", |file| file.hash.as_str())
    }

    /// Keeps only the strategies called `names`, in this order. A name that the scenario does not use may be a preset's, which
    /// is then run with its default options. No names keep everything.
    ///
    /// # Errors
    /// When a name is neither.
    pub(crate) fn select(&mut self, names: &[String]) -> Result<()> {
        let known = self.strategy_names().into_iter().map(str::to_owned).collect::<Vec<String>>();
        for name in names {
            if !known.contains(name) && preset(name).is_none() {
                let presets = PRESETS.map(|p| p.name).join(", ");
                bail!("--strategy: there is no strategy `{name}`; the scenario has {}; presets are {presets}", known.join(", "));
            }
        }
        self.asked = names.to_vec();
        if names.is_empty() {
            return Ok(());
        }
        for point in &mut self.scenario.points {
            let own = std::mem::take(&mut point.strategies);
            point.strategies = names.iter().filter_map(|name| find(&own, name).or_else(|| default(name))).collect();
        }
        Ok(())
    }

    /// Notes an option that the same runs need.
    pub(crate) fn add_option(&mut self, option: &str) {
        self.options.push(option.to_owned());
    }

    /// The names of all strategies, in the order of their first use.
    pub(crate) fn strategy_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for strategy in self.scenario.points.iter().flat_map(|point| &point.strategies) {
            if !names.contains(&strategy.name.as_str()) {
                names.push(&strategy.name);
            }
        }
        names
    }

    /// The swept keys, with the values of the first point.
    pub(crate) fn sweep(&self) -> &[(String, String)] {
        self.scenario.points.first().map_or(&[], |point| &point.label)
    }

    /// The command line that does the same runs, or those of one strategy.
    pub(crate) fn command(&self, command: &str, strategy: Option<&str>) -> String {
        let file = quoted(&self.path.display().to_string());
        let mut line = format!("livemig {command} {file} --seed {}", self.scenario.seed);
        if self.fidelity_asked {
            line += &format!(" --fidelity {}", self.scenario.fidelity.name());
        }
        for option in &self.options {
            line += &format!(" {option}");
        }
        let asked = strategy.map_or_else(|| self.asked.iter().map(String::as_str).collect(), |name| vec![name]);
        for name in asked {
            line += &format!(" --strategy {}", quoted(name));
        }
        line
    }
}

fn find(own: &[Strategy], name: &str) -> Option<Strategy> {
    own.iter().find(|strategy| strategy.name == name).cloned()
}

fn default(name: &str) -> Option<Strategy> {
    preset(name).map(|p| Strategy { name: p.name.to_owned(), preset: p.name, spec: (p.spec)() })
}
