//! `livemig check`: exit codes, and what it says of a metric that moved.

use assert_cmd::cargo::cargo_bin_cmd;
use std::fs;
use std::path::Path;
use std::process::Output;

fn check(directory: &Path, words: &[&str]) -> Output {
    cargo_bin_cmd!("livemig").arg("check").arg(directory).args(words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A baseline of two scenarios, as they are now.
fn baseline(tolerance: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let scenarios = ["small.toml", "sweep.toml"].map(|name| format!("'{}'", data.join(name).display()));
    let text = format!("scenarios = [{}]\n[tolerance]\n{tolerance}\n", scenarios.join(", "));
    fs::write(directory.path().join("check.toml"), text).unwrap();
    let made = check(directory.path(), &["--update"]);
    assert_eq!((made.status.code(), stderr(&made).as_str()), (Some(0), ""));
    assert!(stdout(&made).contains("small.csv: written"), "{}", stdout(&made));
    directory
}

/// Replaces the value of `metric` in line `line` (from 1) of a baseline's file.
fn change(directory: &Path, file: &str, line: usize, metric: &str, write: impl Fn(&str) -> String) {
    let path = directory.join(file);
    let text = fs::read_to_string(&path).unwrap();
    let column = text.lines().next().unwrap().split(',').position(|name| name == metric).unwrap();
    let edit = |(number, row): (usize, &str)| {
        let mut cells: Vec<String> = row.split(',').map(str::to_owned).collect();
        if number + 1 == line {
            cells[column] = write(&cells[column]);
        }
        cells.join(",") + "\n"
    };
    fs::write(&path, text.lines().enumerate().map(edit).collect::<String>()).unwrap();
}

fn scaled(factor: f64) -> impl Fn(&str) -> String {
    move |cell| (cell.parse::<f64>().unwrap() * factor).to_string()
}

#[test]
fn the_same_is_the_same_on_any_number_of_threads() {
    let directory = baseline("");
    for threads in ["1", "4"] {
        let output = check(directory.path(), &["--threads", threads]);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{}", stdout(&output));
        assert!(
            stdout(&output).starts_with("small: ") && stdout(&output).contains(" values as before\nsweep: "),
            "{}",
            stdout(&output)
        );
    }
    assert!(stdout(&check(directory.path(), &["--update"])).contains("sweep.csv: the same"));
}

#[test]
fn a_metric_that_moved_is_named() {
    let directory = baseline("downtime_s = 0.01");
    change(directory.path(), "small.csv", 3, "downtime_s", scaled(1.005));
    assert_eq!(check(directory.path(), &[]).status.code(), Some(0), "within its tolerance");
    change(directory.path(), "small.csv", 3, "downtime_s", scaled(1.25));
    change(directory.path(), "sweep.csv", 20, "rounds", |_| "7777".to_owned());
    let output = check(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("small: 1 of ") && text.contains("sweep: 1 of "), "{text}");
    for words in [["pre-copy, vm1", "downtime_s", "-20.4 %"], ["point 1", "rounds", "7777"]] {
        assert!(text.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(stderr(&output).contains("2 of 2 scenarios differ") && stderr(&output).contains("--update"), "{}", stderr(&output));
    let rows = stdout(&check(directory.path(), &["--format", "csv"]));
    assert_eq!(rows.lines().count(), 3, "{rows}");
    assert!(rows.contains("small,0,0,pre-copy,vm1,downtime_s,"), "{rows}");
    assert_eq!(check(directory.path(), &["--update"]).status.code(), Some(0));
    assert_eq!(check(directory.path(), &[]).status.code(), Some(0));
}

#[test]
fn rows_that_come_or_go_are_changes() {
    let directory = baseline("");
    let path = directory.path().join("small.csv");
    let text = fs::read_to_string(&path).unwrap();
    let without_last: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
    fs::write(&path, without_last).unwrap();
    let output = check(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("row new: hybrid, vm1\n"), "{}", stdout(&output));
    fs::write(&path, text.clone() + &text.lines().last().unwrap().replace("hybrid", "magic") + "\n").unwrap();
    assert!(stdout(&check(directory.path(), &[])).contains("row gone: magic, vm1\n"));
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let directory = baseline("");
    fs::remove_file(directory.path().join("sweep.csv")).unwrap();
    let output = check(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("sweep.csv (to make it: livemig check "), "{}", stderr(&output));
    fs::write(directory.path().join("check.toml"), "scenarios = ['none.toml']").unwrap();
    assert_eq!(check(directory.path(), &[]).status.code(), Some(2));
    fs::write(directory.path().join("check.toml"), "scenario = []").unwrap();
    assert!(stderr(&check(directory.path(), &[])).contains("unknown field `scenario`"));
    assert_eq!(check(&directory.path().join("nowhere"), &[]).status.code(), Some(2));
}
