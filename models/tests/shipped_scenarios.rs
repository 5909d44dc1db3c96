//! Every scenario that livemig ships can be read.

use livemig_models::scenario;
use std::fs;
use std::path::{Path, PathBuf};

fn scenarios(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|n| n != "calibration") {
            scenarios(&path, into);
        } else if path.extension().is_some_and(|e| e == "toml") {
            into.push(path);
        }
    }
}

#[test]
fn every_shipped_scenario_is_valid() {
    let mut found = Vec::new();
    scenarios(&Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios"), &mut found);
    assert!(found.len() >= 10, "{found:?}");
    for path in found {
        let loaded = scenario::load(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(
            loaded.scenario.points.iter().all(|p| !p.world.moves.is_empty() || p.world.drain.is_some()),
            "{} migrates nothing",
            path.display()
        );
    }
}
