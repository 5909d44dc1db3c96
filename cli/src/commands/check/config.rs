//! `check.toml`: which scenarios a baseline holds, and how much a metric may move.

use crate::record;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The file of a baseline that says what it holds.
const FILE: &str = "check.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Paths relative to the file.
    scenarios: Vec<PathBuf>,
    /// Largest |now / then - 1| of a metric; metrics that are not named may not move.
    #[serde(default)]
    tolerance: BTreeMap<String, f64>,
}

/// What a baseline holds.
#[derive(Debug)]
pub(super) struct Config {
    /// The scenario files.
    pub(super) scenarios: Vec<PathBuf>,
    /// Largest |now / then - 1| by metric.
    pub(super) tolerance: BTreeMap<String, f64>,
}

impl Config {
    /// Reads the file in `directory`.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong.
    pub(super) fn read(directory: &Path) -> Result<Config> {
        let path = directory.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Config::parse(&text, directory).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, directory: &Path) -> Result<Config> {
        let Document { scenarios, tolerance } = toml::from_str(text)?;
        for (metric, limit) in &tolerance {
            if !record::COLUMNS.iter().any(|(name, _)| name == metric) {
                bail!("tolerance.{metric}: metrics.csv has no such column");
            }
            if !(*limit >= 0.0 && limit.is_finite()) {
                bail!("tolerance.{metric} is {limit}; expected a share from 0");
            }
        }
        let stems: Vec<String> = scenarios.iter().map(|path| stem(path)).collect();
        if let Some(twice) = stems.iter().enumerate().find(|(i, name)| stems[..*i].contains(name)) {
            bail!("two scenarios are called `{}`, and would share a file", twice.1);
        }
        if scenarios.is_empty() {
            bail!("`scenarios` is empty: nothing would be checked");
        }
        Ok(Config { scenarios: scenarios.into_iter().map(|path| directory.join(path)).collect(), tolerance })
    }
}

/// The name of a scenario's file without its ending.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        format!("{:#}", Config::parse(text, Path::new("d")).unwrap_err())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = "scenarios = ['a/x.toml', '../y.toml']\n[tolerance]\ndowntime_s = 0.1\n";
        assert_eq!(Config::parse(good, Path::new("d")).unwrap().scenarios, [Path::new("d/a/x.toml"), Path::new("d/../y.toml")]);
        assert!(complaint("scenarios = ['x.toml', 'a/x.toml']").contains("two scenarios are called `x`"));
        assert!(complaint("scenarios = []").contains("nothing would be checked"));
        assert!(complaint("scenarios = ['x.toml']\ntolerance = { downtime = 1 }").contains("no such column"));
        assert!(complaint("scenarios = ['x.toml']\ntolerance = { downtime_s = -1.0 }").contains("from 0"));
        assert!(complaint("scenarios = ['x.toml']\ntolerances = {}").contains("unknown field"));
    }
}
