//! `livemig exec` and `livemig doctor`, with real guests where there is KVM.

use assert_cmd::cargo::cargo_bin_cmd;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn scenario() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real.toml")
}

fn livemig(words: &[&str]) -> Output {
    cargo_bin_cmd!("livemig").args(words).output().unwrap()
}

/// Whether there are real guests here; says that a test is skipped, and why, when not.
fn have_kvm() -> bool {
    let doctor = livemig(&["doctor", "--format", "csv"]);
    let text = String::from_utf8(doctor.stdout).unwrap();
    let fit = doctor.status.code() == Some(0);
    let line = text.lines().find(|line| line.starts_with("check,/dev/kvm,")).unwrap();
    if !fit {
        assert_eq!(doctor.status.code(), Some(1));
        println!("skipped: {line}");
    }
    fit
}

#[test]
fn the_doctor_tells_what_is_there_and_what_mends_the_rest() {
    let output = livemig(&["doctor", "--format", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
    assert!(of("check") >= 4 && of("floor") >= 4, "{text}");
    for row in rows.iter().filter(|row| row["kind"] == "check") {
        assert_eq!(row["value"] == true, row["missing"].is_null(), "{row}");
        assert_eq!(row["missing"].is_null(), row["mend"].is_null(), "{row}");
    }
    let copy = rows.iter().find(|row| row["name"] == "memory copy, one thread").unwrap();
    assert!(copy["value"].as_f64().unwrap() > 0.01, "{copy}");
}

#[test]
fn real_guests_are_migrated_compared_and_filed() {
    if !have_kvm() {
        let output = livemig(&["exec", scenario().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("real guests need KVM"));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let output = livemig(&["exec", scenario().to_str().unwrap(), "--format", "csv", "--observe", "200ms", "-o", path]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");

    let mut metrics = csv::Reader::from_path(directory.path().join("metrics.csv")).unwrap();
    let header = metrics.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    let rows: Vec<csv::StringRecord> = metrics.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!(&row[column("outcome")], "completed");
        assert!(row[column("bytes_total")].parse::<u64>().unwrap() > 32 << 20);
        assert!(row[column("total_migration_time_s")].parse::<f64>().unwrap() > 0.0);
    }

    let manifest = fs::read_to_string(directory.path().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["finished"], true);
    assert!(manifest["clock_error_s"].as_f64().unwrap() < 0.1);
    assert!(manifest["machine"]["kernel"].is_string());
    let migrations = manifest["migrations"].as_array().unwrap();
    assert_eq!(migrations.len(), 2);
    for migration in migrations {
        assert!(migration["verification"].as_str().unwrap().starts_with("0 of "), "{migration}");
        assert!(migration["commands_replayed"].as_u64().unwrap() > 0, "{migration}");
    }
}

#[test]
fn an_agent_without_a_coordinator_says_what_it_is() {
    let output = livemig(&["agent"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("started by `livemig exec`"));
}
