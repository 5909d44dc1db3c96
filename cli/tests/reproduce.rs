//! `livemig reproduce`: files, and messages about collections that are wrong.

use assert_cmd::cargo::cargo_bin_cmd;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/papers")
}

fn reproduce(words: &[&str], from: Option<&Path>, output: Option<&Path>) -> Output {
    let mut command = cargo_bin_cmd!("livemig");
    command.arg("reproduce").args(words);
    for (option, path) in [("--from", from), ("-o", output)] {
        if let Some(path) = path {
            command.arg(option).arg(path);
        }
    }
    command.output().unwrap()
}

fn files(directory: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> =
        entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_directory_holds_a_table_per_paper_and_a_chart_per_figure() {
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = reproduce(&["--threads", "1", "--format", "csv"], Some(&data()), Some(one.path()));
    let second = reproduce(&["--threads", "4", "--format", "csv"], Some(&data()), Some(many.path()));
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(first.stdout, second.stdout);
    let files = [files(one.path()), files(many.path())];
    assert_eq!(files[0], files[1]);
    let names: Vec<&str> = files[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["another-paper-a-flow.svg", "another-paper.csv", "some-paper-two-vms.svg", "some-paper.csv"]);
    assert_eq!(files[0][3].1.lines().next().unwrap(), "paper,figure,quantity,unit,kind,paper_value,ours,deviation");
    // Two metrics stand on two panels, and the axes are those of figures.csv.
    let chart = &files[0][2].1;
    for text in ["memory of each VM, MiB", "eviction time, s", "downtime_s, %", "published", "Somebody and Somebody Else"] {
        assert!(chart.contains(text), "{text}: {chart}");
    }
}

/// A copy of the collection in which one text is replaced.
fn broken(file: &str, old: &str, new: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files(&data()) {
        let text = if name == file {
            assert!(text.contains(old), "{file}: {old}");
            text.replacen(old, new, 1)
        } else {
            text
        };
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    for (file, old, new, complaint) in [
        ("published.csv", ",eviction_time_s,", ",eviction_time,", "published.csv:2: there is no metric `eviction_time`"),
        ("published.csv", ",eviction_time_s,", ",eviction_time_s/times,", "published.csv:2: there is no metric `times`"),
        ("published.csv", ",ms,prediction,2200", ",msec,prediction,2200", "published.csv:4: there is no unit `msec`; allowed: "),
        ("published.csv", ",pair,1,", ",pair,2,", "pair: there is no point 2; the scenario has 2"),
        ("published.csv", ",pair,0-1,", ",pair,1-0,", "published.csv:9: `point` is `1-0`; expected a whole number from 0, or two"),
        ("published.csv", ",pair,0-1,", ",pair,0-2,", "pair: there is no point 2; the scenario has 2"),
        ("published.csv", "0,pre-copy,beside", "0,pre-copy,besides", "nothing is called `besides`; there are beside"),
        (
            "published.csv",
            "vm0,eviction_time_s,slow",
            "vm0,eviction_time_s,fast",
            "pair: there is no strategy `fast`; there are pre-copy",
        ),
        ("published.csv", "4.5,pair", "4.5s,pair", "published.csv:3: `paper_value` is `4.5s`, which is no number"),
        (
            "published.csv",
            ",prediction,2.10",
            ",guess,2.10",
            "published.csv:2: kinds.csv has no kind `guess`; it has prediction, unpublished",
        ),
        ("published.csv", ",x,prediction,5,", ",s,prediction,5,", "published.csv:5: with a baseline the unit is `%`"),
        ("papers.csv", "paper,citation", "paper,title", "papers.csv:1: there is no column `citation`"),
        ("pair.toml", "limit =", "limits =", "pair.toml:32: migrate.strategies[2].limits: unknown key"),
    ] {
        let folder = broken(file, old, new);
        let output = reproduce(&[], Some(folder.path()), None);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(complaint), "{stderr}");
    }
}

#[test]
fn the_program_needs_no_files() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = cargo_bin_cmd!("livemig");
    let output = command.args(["reproduce", "cpu-scheduling", "--format", "csv"]).current_dir(elsewhere.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().lines().count() > 2);
}
