//! Charts of an output directory, drawn from its CSV files only, so that they can be drawn again at any time.

mod canvas;
mod comparison;
mod data;
pub(crate) mod figures;
mod palette;
mod scale;
mod timeline;

use anyhow::{Context, Result};
use data::Results;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// File of the comparison of all strategies.
const COMPARISON: &str = "comparison.svg";

/// Draws the charts of the results in `from` into the directory `to`: the comparison of all strategies, and the timeline of the
/// first migration of each strategy at each point of the sweep.
///
/// # Errors
/// When the CSV files cannot be read or a chart cannot be written.
pub(crate) fn draw(from: &Path, to: &Path) -> Result<()> {
    let results = Results::read(from)?;
    let write = |name: &str, svg: String| {
        let path = to.join(name);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(picture) = comparison::draw(&results) {
        write(COMPARISON, picture.svg()?)?;
    }
    let mut names = BTreeSet::new();
    for group in &results.groups {
        if let Some(picture) = timeline::draw(&results, group) {
            write(&file_name(group.point, &group.strategy, &mut names), picture.svg()?)?;
        }
    }
    Ok(())
}

/// `timeline-<point>-<strategy>.svg`, and a number where that made two alike.
fn file_name(point: usize, strategy: &str, taken: &mut BTreeSet<String>) -> String {
    unique(&format!("timeline-{point}-{}", clean(strategy)), taken)
}

/// A name with what may not stand in a file name replaced.
fn clean(name: &str) -> String {
    let clean = name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c.to_ascii_lowercase() } else { '-' });
    // File names have at most 255 bytes.
    clean.take(40).collect()
}

/// The SVG file called `base`, with a number when there is one already.
fn unique(base: &str, taken: &mut BTreeSet<String>) -> String {
    let names = std::iter::once(format!("{base}.svg")).chain((2..).map(|n| format!("{base}-{n}.svg")));
    let name = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_else(|| format!("{base}.svg"));
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_clean_and_different() {
        let mut taken = BTreeSet::new();
        assert_eq!(file_name(0, "pre-copy", &mut taken), "timeline-0-pre-copy.svg");
        assert_eq!(file_name(1, "Four streams/2", &mut taken), "timeline-1-four-streams-2.svg");
        assert_eq!(file_name(1, "four streams 2", &mut taken), "timeline-1-four-streams-2-2.svg");
        assert!(file_name(0, &"x".repeat(300), &mut taken).len() < 100);
    }
}
