//! The guide to adding a strategy shows files as they are.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_guide_shows_a_preset_as_it_is() {
    let guide = read("docs/ADDING_A_STRATEGY.md");
    let file = heading(&guide, "## 1. One file: ");
    let block = guide.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(block, read(file));
    let module = Path::new(file).file_stem().unwrap().to_str().unwrap();
    let registry = read(heading(&guide, "## 2. One registration: "));
    for line in [format!("mod {module};"), format!("{module}::PRESET")] {
        assert!(registry.contains(&line) && guide.contains(&format!("`{line}`")), "{line}");
    }
    let name = block.split("name: \"").nth(1).unwrap().split('"').next().unwrap();
    let scenario = heading(&guide, "## 3. One scenario: ");
    assert!(read(scenario).contains(name), "{scenario} does not use {name}");
    assert!(guide.contains(&format!("compare {scenario}")));
}

/// The path in a heading.
fn heading<'a>(guide: &'a str, begin: &str) -> &'a str {
    let line = guide.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no heading `{begin}`"));
    line[begin.len()..].trim_matches('`')
}

#[test]
fn the_files_that_the_guide_names_are_there() {
    let guide = read("docs/ADDING_A_STRATEGY.md");
    let quoted = guide.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|text| ["core/", "sim/", "models/", "scenarios/"].iter().any(|start| text.starts_with(start)));
    let paths: Vec<&str> = paths.collect();
    assert!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).exists(), "{path}");
    }
}
