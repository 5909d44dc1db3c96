//! Sweeps: the values of some keys are replaced in the document, before it is read.

use super::document::{Item, Node, Table};
use super::error::{Fault, choices};
use livemig_core::strategy::PRESETS;

/// Most points of a sweep.
const MAX_POINTS: u64 = 100_000;

/// Keys that hold for the whole scenario.
const FIXED: [&str; 8] = ["schema", "name", "seed", "replicates", "horizon", "fidelity", "rate_tolerance", "sweep"];

/// The swept keys in the file's order; every combination of their values is a point.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    axes: Vec<Axis>,
    points: u64,
}

#[derive(Debug)]
struct Axis {
    key: String,
    line: u32,
    values: Vec<Node>,
}

impl Axis {
    fn fault(&self, problem: impl Into<String>) -> Fault {
        Fault::at(self.line, format!("sweep.\"{}\"", self.key), problem)
    }
}

impl Sweep {
    /// Takes the sweep out of a document.
    ///
    /// # Errors
    /// When it is no table of lists, has too many points, or sweeps what cannot be swept.
    pub(crate) fn take(root: &mut Node) -> Result<Sweep, Fault> {
        let entry = match &mut root.item {
            Item::Table(table) => table.remove("sweep"),
            _ => None,
        };
        let mut sweep = Sweep { axes: Vec::new(), points: 1 };
        let Some(entry) = entry else { return Ok(sweep) };
        let Item::Table(table) = entry.node.item else {
            return Err(Fault::at(entry.line, "sweep", "expected a table of key paths and lists of values"));
        };
        for entry in table.entries {
            let mut axis = Axis { key: entry.key.to_string(), line: entry.line, values: Vec::new() };
            match entry.node.item {
                Item::List(values) if !values.is_empty() => axis.values = values,
                Item::Table(_) => return Err(axis.fault("a key path needs quotes: \"host.dst.memory\" = [...]")),
                _ => return Err(axis.fault("expected a list of at least one value")),
            }
            sweep.points = sweep.points.saturating_mul(axis.values.len() as u64);
            if sweep.points > MAX_POINTS {
                return Err(axis.fault(format!("the sweep has more than {MAX_POINTS} points")));
            }
            if FIXED.contains(&axis.key.as_str()) {
                return Err(axis.fault("this key holds for the whole scenario and cannot be swept"));
            }
            if let Some(before) = sweep.axes.iter().find(|a| a.key.strip_prefix(&axis.key).is_some_and(|r| r.starts_with('.'))) {
                return Err(axis.fault(format!("would overwrite \"{}\"; put it before that key", before.key)));
            }
            sweep.axes.push(axis);
        }
        Ok(sweep)
    }

    /// Whether nothing is swept.
    pub(crate) fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    /// How many points there are; 1 without a sweep.
    pub(crate) fn points(&self) -> u64 {
        self.points
    }

    /// Sets the values of a point in `root`; the last key changes fastest. Returns the point's label.
    ///
    /// # Errors
    /// When a path leads nowhere.
    pub(crate) fn apply(&self, root: &mut Node, point: u64) -> Result<Vec<(String, String)>, Fault> {
        let mut stride = self.points;
        let mut label = Vec::with_capacity(self.axes.len());
        for axis in &self.axes {
            stride /= axis.values.len() as u64;
            let value = &axis.values[(point / stride % axis.values.len() as u64) as usize];
            set_at_top(root, &axis.key, value).map_err(|problem| axis.fault(problem))?;
            label.push((axis.key.clone(), value.label()));
        }
        Ok(label)
    }
}

fn empty_table(line: u32) -> Node {
    Node { line, item: Item::Table(Table::default()) }
}

/// Splits a path after its first key.
fn first(path: &str) -> (&str, Option<&str>) {
    path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)))
}

/// Sets a path that begins at the top of the document.
fn set_at_top(root: &mut Node, path: &str, value: &Node) -> Result<(), String> {
    let (key, rest) = first(path);
    let Item::Table(table) = &mut root.item else { return Err("the document is no table".to_owned()) };
    match (key, rest) {
        ("strategy", Some(rest)) => {
            let key = if table.get("drain").is_some() { "drain" } else { "migrate" };
            let plan = table.get_or_insert(key, empty_table(value.line));
            let Item::Table(plan) = &mut plan.item else { return Err(format!("`{key}` is no table")) };
            let all = PRESETS.iter().map(|p| Node::text(value.line, p.name)).collect();
            let list = plan.get_or_insert("strategies", Node { line: value.line, item: Item::List(all) });
            set(list, rest, value)
        }
        ("strategy", None) => Err("say which strategy and which key: strategy.NAME.KEY".to_owned()),
        ("calibration", Some(rest)) => {
            let node = table.get_or_insert("calibration", empty_table(value.line));
            if node.as_text().is_some() {
                wrap(node, "base");
            }
            set(node, rest, value)
        }
        ("host" | "vm" | "rack" | "flow" | "event", _) if table.get(key).is_none() => Err(format!("there is no [[{key}]]")),
        _ => set(root, path, value),
    }
}

/// Makes text the value of `key` in a table in its place.
fn wrap(node: &mut Node, key: &str) {
    let line = node.line;
    let text = std::mem::replace(node, empty_table(line));
    if let Item::Table(table) = &mut node.item {
        table.get_or_insert(key, text);
    }
}

/// Sets `path` below `node`; tables on the way are made where they are missing.
fn set(node: &mut Node, path: &str, value: &Node) -> Result<(), String> {
    let kind = node.kind();
    match &mut node.item {
        Item::Table(table) => match first(path) {
            (key, None) => {
                *table.get_or_insert(key, value.clone()) = value.clone();
                Ok(())
            }
            (key, Some(rest)) => set(table.get_or_insert(key, empty_table(value.line)), rest, value),
        },
        Item::List(nodes) => {
            let mut found = false;
            for (number, node) in nodes.iter_mut().enumerate() {
                let Some(rest) = selected(node, number, path) else { continue };
                found = true;
                if rest.is_empty() {
                    *node = value.clone();
                    continue;
                }
                if node.as_text().is_some() {
                    wrap(node, "preset");
                }
                set(node, rest, value)?;
            }
            if found {
                return Ok(());
            }
            let names: Vec<&str> = nodes.iter().filter_map(name).collect();
            Err(format!("`{path}` begins with no name in the list; {}", choices(first(path).0, &names)))
        }
        _ => Err(format!("`{path}` leads into {kind}, which has no keys")),
    }
}

/// The name by which an element of a list is called.
fn name(node: &Node) -> Option<&str> {
    match &node.item {
        Item::Text(text) => Some(text),
        Item::Table(table) => table.get("name").or_else(|| table.get("preset")).and_then(|e| e.node.as_text()),
        _ => None,
    }
}

/// What follows in `path` after the element's name, its number or `*`; `None` when the path is not about the element.
fn selected<'p>(node: &Node, number: usize, path: &'p str) -> Option<&'p str> {
    let after = |word: &str| {
        let rest = path.strip_prefix(word)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
    };
    match name(node) {
        Some(name) => after(name).or_else(|| after("*")),
        None => after(&number.to_string()).or_else(|| after("*")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Label and document of every point.
    type Points = Vec<(Vec<(String, String)>, serde_json::Value)>;

    fn points(text: &str) -> Result<Points, Fault> {
        let mut root = Node::parse(text).unwrap();
        let sweep = Sweep::take(&mut root)?;
        (0..sweep.points()).map(|n| Ok((sweep.apply(&mut root, n)?, root.to_json()))).collect()
    }

    #[test]
    fn every_combination_is_a_point() {
        let points = points(concat!(
            "calibration = 'ideal'\n[[host]]\nname = 'a.b'\nnics = [{ rate = 'x' }]\n[[host]]\nname = 'c'\n",
            "[migrate]\nstrategies = ['pre-copy', { name = 'n', preset = 'pre-copy' }]\n[sweep]\n",
            "'host.a.b.memory' = ['1 B', '2 B']\n'host.a.b.nics.0.rate' = ['y']\n'host.*.cores' = [4]\n'strategy.pre-copy.streams' = [1, 2, 3]\n",
            "'strategy.n.limit' = ['z']\n'calibration.latency' = ['0 s']\n'migrate.to' = ['c']\n"
        ))
        .unwrap();
        assert_eq!(points.len(), 6);
        assert_eq!(points[4].0[0], ("host.a.b.memory".to_owned(), "2 B".to_owned()));
        assert_eq!(points[4].0[3], ("strategy.pre-copy.streams".to_owned(), "2".to_owned()));
        let json = &points[4].1;
        assert_eq!(json["host"][0], serde_json::json!({"name": "a.b", "nics": [{"rate": "y"}], "memory": "2 B", "cores": 4}));
        assert_eq!(json["host"][1]["cores"], 4);
        assert_eq!(json["migrate"]["strategies"][0], serde_json::json!({"preset": "pre-copy", "streams": 2}));
        assert_eq!(json["migrate"]["strategies"][1]["limit"], "z");
        assert_eq!(json["calibration"], serde_json::json!({"base": "ideal", "latency": "0 s"}));
    }

    #[test]
    fn the_default_strategies_can_be_swept() {
        let name = PRESETS[1].name;
        let points = points(&format!("[sweep]\n'strategy.{name}.streams' = [4]\n")).unwrap();
        let list = points[0].1["migrate"]["strategies"].as_array().unwrap();
        assert_eq!((list.len(), &list[1]["streams"]), (PRESETS.len(), &serde_json::json!(4)));
    }

    #[test]
    fn what_cannot_be_swept_is_said() {
        for (text, part) in [
            ("[sweep]\n'seed' = [1]", "whole scenario"),
            ("[sweep]\nhost.a.memory = [1]", "needs quotes"),
            ("[sweep]\n'host.a.memory' = ['1 B']", "there is no [[host]]"),
            ("[[host]]\nname = 'dst'\n[sweep]\n'host.dts.memory' = ['1 B']", "did you mean `dst`"),
            ("[sweep]\n'strategy.x.streams' = [1]", "allowed: "),
            ("[sweep]\n'migrate.to' = []", "at least one value"),
            ("[sweep]\n'a.b' = [1]\n'a' = [1]", "would overwrite"),
            ("[migrate]\nto = 'x'\n[sweep]\n'migrate.to.y' = [1]", "has no keys"),
        ] {
            let fault = points(text).unwrap_err();
            assert!(fault.problem.contains(part), "{text}: {fault}");
        }
        let many = format!("[sweep]\n'a' = [{0}]\n'b' = [{0}]", "1,".repeat(400));
        assert!(points(&many).unwrap_err().problem.contains("more than 100000 points"));
    }
}
