//! `livemig list`: strategies and policies with their origin.

use crate::args::{Format, ListArgs};
use crate::csv_rows;
use crate::failure::Answer;
use crate::stdout::Output;
use crate::table::{self, Style, left};
use crate::value::{Value, json_object};
use anyhow::Result;
use livemig_core::policy::selection::SELECTIONS;
use livemig_core::policy::snapshot::SNAPSHOT_POLICIES;
use livemig_core::policy::stop::STOP_RULES;
use livemig_core::policy::throttle::THROTTLE_POLICIES;
use livemig_core::policy::{PolicyEntry, intermediaries, order, placement, timeout};
use livemig_core::strategy::PRESETS;

const COLUMNS: [&str; 4] = ["kind", "name", "summary", "origin"];

/// What can be put into a scenario.
struct Entry {
    kind: &'static str,
    name: &'static str,
    summary: &'static str,
    origin: &'static str,
}

pub(super) fn run(args: &ListArgs) -> Result<Answer> {
    let entries = entries();
    let text = match args.format {
        Format::Table => sections(&entries),
        Format::Csv => csv_rows::text(|rows| {
            rows.words(COLUMNS)?;
            entries.iter().try_for_each(|e| rows.words(e.fields()))
        }),
        Format::Json => entries.iter().map(json_line).collect(),
        Format::Md => {
            let rows = entries.iter().map(|e| e.fields().map(str::to_owned).to_vec()).collect();
            table::render(&COLUMNS.map(left), rows, Style::Markdown, true)
        }
    };
    Output::new(false).write(&text)?;
    Ok(Answer::Done)
}

fn entries() -> Vec<Entry> {
    let presets = PRESETS.iter().map(|p| Entry { kind: "strategy", name: p.name, summary: p.summary, origin: p.origin });
    let policy = |kind| move |p: &PolicyEntry| Entry { kind, name: p.name, summary: p.summary, origin: p.origin };
    presets
        .chain(STOP_RULES.iter().map(policy("stop rule")))
        .chain(THROTTLE_POLICIES.iter().map(policy("throttle")))
        .chain(SNAPSHOT_POLICIES.iter().map(policy("snapshots")))
        .chain([policy("timeout")(&timeout::ENTRY)])
        .chain(SELECTIONS.iter().map(policy("selection")))
        .chain(order::ENTRIES.iter().map(policy("order")))
        .chain(placement::ENTRIES.iter().map(policy("placement")))
        .chain([policy("via")(&intermediaries::ENTRY)])
        .collect()
}

impl Entry {
    fn fields(&self) -> [&'static str; COLUMNS.len()] {
        [self.kind, self.name, self.summary, self.origin]
    }
}

fn json_line(entry: &Entry) -> String {
    let values = entry.fields().map(Value::from);
    json_object(COLUMNS.into_iter().zip(&values)) + "\n"
}

/// A table per kind, 80 columns wide.
fn sections(entries: &[Entry]) -> String {
    let layout = [left("").fitting(entries.iter().map(|e| e.name)), left("").at_most(56)];
    let mut text = String::new();
    for group in entries.chunk_by(|a, b| a.kind == b.kind) {
        let title = match group[0].kind {
            "strategy" => "STRATEGIES",
            "stop rule" => "STOP RULES",
            "throttle" => "THROTTLE POLICIES",
            "order" => "ORDERS OF A DRAIN",
            "placement" => "PLACEMENTS OF A DRAIN",
            "via" => "CHOICE OF INTERMEDIARIES",
            other => &other.to_uppercase(),
        };
        let rows = group.iter().map(|e| vec![e.name.to_owned(), format!("{}\n[{}]", e.summary, e.origin)]).collect();
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{title}\n{}", table::render(&layout, rows, Style::Plain, false));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The names in constants called `PRESET` or `ENTRY` in the files below `folder`.
    fn written(folder: &Path, names: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                written(&path, names);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for constant in ["const PRESET: Preset = Preset {", "const ENTRY: PolicyEntry = PolicyEntry {"] {
                let bodies = text.split(constant).skip(1);
                names.extend(bodies.map(|body| body.split("name: \"").nth(1).unwrap().split('"').next().unwrap().to_owned()));
            }
        }
    }

    #[test]
    fn whatever_is_written_is_listed_with_its_origin() {
        let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
        let mut names = Vec::new();
        written(&core.join("strategy"), &mut names);
        assert_eq!(names.len(), PRESETS.len(), "{names:?}");
        written(&core.join("policy"), &mut names);
        let mut listed: Vec<String> = entries().iter().map(|e| e.name.to_owned()).collect();
        names.sort();
        listed.sort();
        assert_eq!(names, listed);
        for entry in entries() {
            assert!(!entry.origin.is_empty() && !entry.summary.is_empty(), "{}", entry.name);
        }
    }
}
