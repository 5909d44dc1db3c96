//! The seam: drivers know no strategy, and the simulator and the real mode do not know each other.

use livemig_core::strategy::PRESETS;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn no_strategy_is_named_in_a_driver() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for driver in ["sim/src", "exec/src"] {
        sources(&root.join(driver), &mut files);
    }
    assert!(files.len() > 10);
    for file in files {
        let text = fs::read_to_string(&file).unwrap().to_lowercase();
        for preset in PRESETS {
            for name in [preset.name.to_owned(), preset.name.replace('-', "_"), preset.name.replace('-', "")] {
                assert!(!text.contains(&name), "{} names the strategy {name}", file.display());
            }
        }
    }
}

#[test]
fn drivers_do_not_depend_on_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (driver, other) in [("sim", "livemig-exec"), ("exec", "livemig-sim"), ("core", "livemig-models"), ("models", "livemig-sim")]
    {
        let manifest = fs::read_to_string(root.join(driver).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains(other), "{driver} depends on {other}");
    }
}
