//! Published figures, and the scenarios that stand beside them.
//!
//! A collection is a folder: `published.csv` says which value of which scenario stands beside which published figure, `papers.csv`
//! whose they are, `figures.csv` what the axes of a figure are, `kinds.csv` what a row proves. The program carries the collection of
//! `scenarios/papers` inside, so that it needs no files; a folder of the user's own is read in its place.

mod measured;
mod published;
mod shown;
mod table;

pub(crate) use measured::Runs;
pub(crate) use published::Published;
pub(crate) use shown::{Beside, Tally, header, number};

use crate::loaded::{self, Loaded};
use anyhow::{Context, Result, bail};
use livemig_models::scenario::Replaced;
use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use table::Table;

/// Names and contents of the files of the program's own collection.
const INSIDE: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/papers.rs"));

const PUBLISHED: &str = "published.csv";
const PAPERS: &str = "papers.csv";
const FIGURES: &str = "figures.csv";
const KINDS: &str = "kinds.csv";

/// Where a collection is.
#[derive(Clone, Debug)]
pub(crate) enum Collection {
    /// In the program.
    Inside,
    /// In a folder.
    Folder(PathBuf),
}

/// A paper whose figures are there.
#[derive(Clone, Debug)]
pub(crate) struct Paper {
    /// What users call it.
    pub(crate) name: String,
    /// Authors, where and when.
    pub(crate) citation: String,
}

/// The axes of a figure, or of the part of it that shows one metric.
#[derive(Clone, Debug)]
pub(crate) struct Axes {
    paper: String,
    figure: String,
    metric: String,
    /// What stands below the horizontal axis; empty when each value has a name of its own.
    pub(crate) x: String,
    /// What stands above the vertical axis.
    pub(crate) y: String,
}

/// What rows of a kind prove.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) meaning: String,
}

/// What a collection says, without its scenarios.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub(crate) papers: Vec<Paper>,
    pub(crate) kinds: Vec<Kind>,
    axes: Vec<Axes>,
    pub(crate) published: Vec<Published>,
}

impl Collection {
    /// Reads everything but the scenarios.
    ///
    /// # Errors
    /// When a file cannot be read or is wrong.
    pub(crate) fn contents(&self) -> Result<Contents> {
        let table = |name| Ok::<_, anyhow::Error>((self.place(name), self.text(name)?));
        let (place, text) = table(PAPERS)?;
        let papers = Table::parse(&place, &text, ["paper", "citation"])?;
        let papers = papers.rows(|row| Ok(Paper { name: row.filled("paper")?, citation: row.filled("citation")? }))?;
        let (place, text) = table(KINDS)?;
        let kinds = Table::parse(&place, &text, ["kind", "meaning"])?;
        let kinds = kinds.rows(|row| Ok(Kind { name: row.filled("kind")?, meaning: row.filled("meaning")? }))?;
        let (place, text) = table(FIGURES)?;
        let axes = Table::parse(&place, &text, ["paper", "figure", "metric", "x_axis", "y_axis"])?.rows(|row| {
            let [paper, figure, metric, y] = ["paper", "figure", "metric", "y_axis"].map(|name| row.filled(name));
            Ok(Axes { paper: paper?, figure: figure?, metric: metric?, x: row.text("x_axis"), y: y? })
        })?;
        let (place, text) = table(PUBLISHED)?;
        let published = Table::parse(&place, &text, published::COLUMNS)?
            .rows(|row| Published::read(row, papers.iter().map(|p| p.name.as_str()), kinds.iter().map(|k| k.name.as_str())))?;
        Ok(Contents { papers, kinds, axes, published })
    }

    /// Reads the scenario called `name`.
    ///
    /// # Errors
    /// When there is none, or it is wrong.
    pub(crate) fn scenario(&self, name: &str) -> Result<Loaded> {
        let file = format!("{name}.toml");
        match self {
            Collection::Inside => loaded::parse(&self.text(&file)?, &file, INSIDE.iter().copied()),
            Collection::Folder(folder) => loaded::load(&folder.join(file), Replaced::default()),
        }
    }

    fn text(&self, name: &str) -> Result<Cow<'static, str>> {
        match self {
            Collection::Inside => {
                let found = INSIDE.iter().find(|(file, _)| *file == name);
                let Some((_, text)) = found else { bail!("the program has no `{name}` inside") };
                Ok(Cow::Borrowed(text))
            }
            Collection::Folder(folder) => {
                let path = folder.join(name);
                Ok(Cow::Owned(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?))
            }
        }
    }

    /// What messages call a file.
    fn place(&self, name: &str) -> String {
        match self {
            Collection::Inside => name.to_owned(),
            Collection::Folder(folder) => folder.join(name).display().to_string(),
        }
    }
}

impl Contents {
    /// Keeps only these papers, in this order; all when there are none.
    ///
    /// # Errors
    /// When one is not there.
    pub(crate) fn select(&mut self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let find = |name: &String| {
            let known = || self.papers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
            self.papers
                .iter()
                .find(|p| p.name == *name)
                .cloned()
                .with_context(|| format!("no paper `{name}`; there are {}", known()))
        };
        self.papers = names.iter().map(find).collect::<Result<_>>()?;
        Ok(())
    }

    /// The rows of a paper.
    pub(crate) fn of(&self, paper: &Paper) -> Vec<&Published> {
        self.published.iter().filter(|row| row.paper == paper.name).collect()
    }

    /// The axes on which a row stands.
    pub(crate) fn axes(&self, row: &Published) -> Option<&Axes> {
        self.axes.iter().find(|a| (&a.paper, &a.figure, &a.metric) == (&row.paper, &row.figure, &row.metric))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_collection_inside_is_the_folder() {
        let folder = Collection::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/papers"));
        for (name, text) in INSIDE {
            assert_eq!(folder.text(name).unwrap(), *text, "{name}");
        }
        for row in Collection::Inside.contents().unwrap().published {
            Collection::Inside.scenario(&row.scenario).unwrap_or_else(|e| panic!("{e:#}"));
        }
    }

    #[test]
    fn every_figure_has_axes_and_all_axes_are_used() {
        let contents = Collection::Inside.contents().unwrap();
        for row in &contents.published {
            assert!(contents.axes(row).is_some(), "figures.csv: no axes for {}, {}, {}", row.paper, row.figure, row.metric);
        }
        for axes in &contents.axes {
            let used = contents.published.iter().filter_map(|row| contents.axes(row)).any(|a| std::ptr::eq(a, axes));
            assert!(used, "figures.csv: nothing stands on {axes:?}");
        }
    }

    #[test]
    fn papers_are_chosen_by_name() {
        let mut contents = Collection::Inside.contents().unwrap();
        let all: Vec<String> = contents.papers.iter().map(|p| p.name.clone()).collect();
        contents.select(&[]).unwrap();
        assert_eq!(contents.papers.len(), all.len());
        contents.select(&all[1..2]).unwrap();
        assert_eq!(contents.papers.len(), 1);
        let error = contents.select(&["nobody".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, format!("no paper `nobody`; there are {}", all[1]));
    }
}
