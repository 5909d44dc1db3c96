//! The scenario format: TOML with units, described in `docs/SCENARIO.md`.
//!
//! A file becomes a [`crate::world::Scenario`] in four steps: TOML text to a document whose values know their lines
//! (`document`); for each point of the sweep, the document with that point's values (`sweep`); that to the raw types of the
//! format (`deserializer`, `raw`); and those to indices and numbers (`resolve`), with fleets expanded (`fleet`, `value`,
//! `expression`). Every error names file, line and key, and what is allowed.

pub(crate) mod deserializer;
pub(crate) mod document;
mod effective;
pub(crate) mod error;
mod expression;
pub(crate) mod files;
mod fleet;
mod names;
pub(crate) mod quantity;
mod raw;
mod resolve;
mod schema;
mod sweep;
pub(crate) mod value;

pub use error::ScenarioError;
pub use files::Input;
pub use schema::schema;

use crate::world::{Fidelity, Point, Scenario, Strategy, World};
use document::Node;
use error::Fault;
use files::Files;
use raw::Document;
use resolve::Frame;
use std::path::Path;
use sweep::Sweep;

/// Largest scenario file, in bytes.
const MAX_SCENARIO: u64 = 256 << 20;
/// Most hosts, VMs and migrations of all points together.
const MAX_TOTAL: usize = 30_000_000;

/// A scenario with what a manifest says about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The scenario.
    pub scenario: Scenario,
    /// The effective configuration: the file with every default filled in, its fleets and its sweep as they are written.
    pub effective: serde_json::Value,
    /// The files that it was made from, the scenario first.
    pub inputs: Vec<Input>,
}

/// Reads the scenario file at `path`. Files that it names are found relative to it.
///
/// # Errors
/// When the file cannot be read, or the first thing in it that is wrong.
pub fn load(path: &Path) -> Result<Loaded, ScenarioError> {
    load_with(path, Replaced::default())
}

/// What replaces values of a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replaced {
    /// Its seed, from which also the values of its fleets are drawn.
    pub seed: Option<u64>,
    /// How exactly memory is modelled.
    pub fidelity: Option<Fidelity>,
}

/// Reads the scenario file at `path` like [`load`], with some of its values replaced.
///
/// # Errors
/// Those of [`load`].
pub fn load_with(path: &Path, replaced: Replaced) -> Result<Loaded, ScenarioError> {
    let file = path.display().to_string();
    let unreadable = |source| ScenarioError::Unreadable { file: file.clone(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_SCENARIO {
        return Err(Fault::at(1, "", format!("the file has {size} bytes; at most {MAX_SCENARIO} are read")).in_document(&file));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    let mut loaded = build(&text, Files::new(base_dir), &file, replaced).map_err(|fault| fault.in_document(&file))?;
    loaded.inputs.insert(0, Input { path: path.to_owned(), hash: files::hash(text.as_bytes()) });
    Ok(loaded)
}

/// Reads a scenario from `text`. Files that it names are found relative to `base_dir`; `file_name` is what errors call the
/// text, and its stem the name of a scenario that has none.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str, base_dir: &Path, file_name: &str) -> Result<Loaded, ScenarioError> {
    build(text, Files::new(base_dir), file_name, Replaced::default()).map_err(|fault| fault.in_document(file_name))
}

/// Reads a scenario from `text` like [`parse`], for programs that carry their scenarios inside: `files` are names and contents of
/// the files that it may refer to, beside which there are no others.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_with_files<'a>(
    text: &str,
    file_name: &str,
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Loaded, ScenarioError> {
    build(text, Files::in_memory(files), file_name, Replaced::default()).map_err(|fault| fault.in_document(file_name))
}

fn build(text: &str, mut files: Files, file_name: &str, replaced: Replaced) -> Result<Loaded, Fault> {
    let mut root = Node::parse(text)?;
    let written = root.to_json();
    let sweep = Sweep::take(&mut root)?;
    let unswept = (!sweep.is_empty()).then(|| root.clone());
    let mut points = Vec::new();
    let mut head = None;
    let mut total = 0;
    for number in 0..sweep.points() {
        let label = sweep.apply(&mut root, number)?;
        let Resolved { frame, name, world, strategies } =
            resolved(&root, replaced, &mut files).map_err(|fault| blame(fault, &label, unswept.as_ref(), &mut files))?;
        total += world.hosts.len() + world.vms.len() + world.moves.len();
        if total > MAX_TOTAL {
            return Err(Fault::at(1, "sweep", format!("all points together have more than {MAX_TOTAL} hosts, VMs and migrations")));
        }
        head.get_or_insert((frame, name));
        points.push(Point { label, world, strategies });
    }
    let (frame, name) = head.expect("a sweep has at least one point");
    let effective = effective::fill_in(written, frame, &points[0]);
    let stem = || Path::new(file_name).file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(stem);
    let Frame { seed, replicates, horizon, fidelity, rate_tolerance } = frame;
    let scenario = Scenario { name, seed, replicates, horizon, fidelity, rate_tolerance, points };
    Ok(Loaded { scenario, effective, inputs: files.inputs })
}

/// A document without a sweep, resolved.
struct Resolved {
    frame: Frame,
    name: Option<String>,
    world: World,
    strategies: Vec<Strategy>,
}

fn resolved(root: &Node, replaced: Replaced, files: &mut Files) -> Result<Resolved, Fault> {
    let all = deserializer::read::<Document>(root).and_then(|mut document| {
        document.seed = replaced.seed.or(document.seed);
        let mut frame = resolve::frame(&document)?;
        frame.fidelity = replaced.fidelity.unwrap_or(frame.fidelity);
        let (world, strategies) = resolve::resolve(&document, frame, files)?;
        Ok(Resolved { frame, name: document.name.map(|at| at.value), world, strategies })
    });
    all.map_err(without_block_number)
}

/// Adds the point to a fault that the document has only there.
fn blame(mut fault: Fault, label: &[(String, String)], unswept: Option<&Node>, files: &mut Files) -> Fault {
    let without_sweep = unswept.and_then(|root| resolved(root, Replaced::default(), files).err());
    if !label.is_empty() && without_sweep.as_ref() != Some(&fault) {
        let values: Vec<String> = label.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        fault.problem = format!("{} (at the point {} of the sweep)", fault.problem, values.join(", "));
    }
    fault
}

/// Blocks like [[vm]] are told apart by their lines: `vm[3].memory` becomes `vm.memory`.
fn without_block_number(mut fault: Fault) -> Fault {
    let first = fault.key.find(['[', '.']).filter(|at| fault.key[*at..].starts_with('['));
    if let (Some(open), Some(close)) = (first, fault.key.find(']')) {
        fault.key.replace_range(open..=close, "");
    }
    fault
}
