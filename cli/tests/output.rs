//! Output directories, exit codes, and what happens when something cannot be written.

use assert_cmd::cargo::cargo_bin_cmd;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn livemig(words: &[&str], scenario_name: &str, output: Option<&Path>) -> Output {
    let mut command = cargo_bin_cmd!("livemig");
    command.args(words).arg(scenario(scenario_name));
    if let Some(directory) = output {
        command.arg("-o").arg(directory);
    }
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Names and contents of all files of a directory but the manifest.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .filter(|(name, _)| name != "manifest.json")
        .collect();
    files.sort();
    files
}

#[test]
fn a_directory_holds_everything_and_does_not_depend_on_threads() {
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = livemig(&["run", "--threads", "1", "--format", "csv"], "sweep.toml", Some(one.path()));
    let second = livemig(&["run", "--threads", "5", "--format", "csv"], "sweep.toml", Some(many.path()));
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(stdout(&first), stdout(&second));
    let (one, many) = (files(one.path()), files(many.path()));
    assert_eq!(one, many);
    let names: Vec<&str> = one.iter().map(|(name, _)| name.as_str()).collect();
    let timelines = ["timeline-0-post-copy.svg", "timeline-0-pre-copy.svg", "timeline-1-post-copy.svg", "timeline-1-pre-copy.svg"];
    let expected = ["comparison.svg", "metrics.csv", "rounds.csv"].into_iter().chain(timelines).chain(["timeline.csv"]);
    assert_eq!(names, expected.collect::<Vec<_>>());
    // Two points, two strategies, three replicates, two VMs and the whole, below the header.
    let metrics = &one[1].1;
    assert_eq!(metrics.lines().count(), 1 + 2 * 2 * 3 * 3);
    assert_eq!(metrics, &stdout(&first));
    assert!(metrics.lines().next().unwrap().ends_with(",sweep.host.dst.reception"), "{metrics}");
    assert!(metrics.lines().nth(3).unwrap().starts_with("sweep,0,0,pre-copy,*,src,dst,pre-copy,completed,"), "{metrics}");
}

#[test]
fn the_manifest_says_what_was_run() {
    let directory = tempfile::tempdir().unwrap();
    let output = livemig(&["compare", "--seed", "11", "--strategy", "hybrid"], "small.toml", Some(directory.path()));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(directory.path().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&manifest["seed"], &manifest["effective"]["seed"]), (&11.into(), &11.into()));
    assert_eq!(manifest["strategies"], serde_json::json!(["hybrid"]));
    assert_eq!(manifest["scenario"]["name"], "small");
    assert_eq!(manifest["livemig"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&manifest["runs"], &manifest["finished"]), (&1.into(), &true.into()));
    assert!(manifest["effective"]["vm"].is_array() && manifest["machine"]["cores"].is_u64(), "{text}");
}

#[test]
fn charts_are_drawn_again_from_the_files() {
    let (results, charts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(livemig(&["compare"], "small.toml", Some(results.path())).status.success());
    cargo_bin_cmd!("livemig").arg("plot").arg(results.path()).arg("-o").arg(charts.path()).assert().success();
    let is_chart = |(name, _): &(String, String)| name.ends_with(".svg");
    let drawn: Vec<_> = files(results.path()).into_iter().filter(is_chart).collect();
    assert_eq!(drawn, files(charts.path()));
    assert_eq!(drawn.len(), 5);
    assert!(drawn.iter().all(|(_, svg)| svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>")));
    // What is no results directory is said.
    let output = cargo_bin_cmd!("livemig").arg("plot").arg(charts.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("metrics.csv"), "{}", stderr(&output));
}

#[test]
fn charts_of_an_earlier_run_do_not_stay() {
    let directory = tempfile::tempdir().unwrap();
    assert!(livemig(&["compare"], "small.toml", Some(directory.path())).status.success());
    assert!(livemig(&["compare", "--strategy", "hybrid"], "small.toml", Some(directory.path())).status.success());
    let names: Vec<String> = files(directory.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["comparison.svg", "metrics.csv", "rounds.csv", "timeline-0-hybrid.svg", "timeline.csv"]);
}

#[test]
fn a_drain_has_files_of_its_hosts_and_of_who_stayed() {
    let directory = tempfile::tempdir().unwrap();
    let output = livemig(&["run", "--format", "csv"], "drain.toml", Some(directory.path()));
    // A VM that stays is a negative answer.
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("1 of 3 migrations did not complete: vm2 with pre-copy, replicate 0, no room"),
        "{}",
        stderr(&output)
    );
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let hosts = read("hosts.csv");
    let [header, row] = hosts.lines().collect::<Vec<_>>()[..] else { panic!("{hosts}") };
    assert_eq!(header, "scenario,point,replicate,strategy,host,began_s,drain_time_s,evicted,left");
    // One VM stays, so that the host was not emptied.
    assert_eq!(row, "drain,0,0,pre-copy,old,0,,2,1");
    let unmoved = read("unmoved.csv");
    assert_eq!(unmoved, "scenario,point,replicate,strategy,vm,host,fate,reason\ndrain,0,0,pre-copy,vm2,old,unplaced,no room\n");
}

#[test]
fn json_has_an_object_per_line() {
    let output = livemig(&["run", "--format", "json"], "endless.toml", None);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&row["outcome"], &row["converged"]), (&"unfinished".into(), &false.into()));
    assert!(row["eviction_time_s"].is_null() && row["bytes_total"].is_u64(), "{text}");
    assert!(stderr(&output).contains("reproduce with: livemig run"), "{}", stderr(&output));
}

#[test]
fn exit_codes_are_as_documented() {
    let code = |words: &[&str], name| livemig(words, name, None).status.code();
    assert_eq!(code(&["run"], "small.toml"), Some(0));
    assert_eq!(code(&["run"], "endless.toml"), Some(1));
    assert_eq!(code(&["compare"], "endless.toml"), Some(0));
    assert_eq!(code(&["compare", "--require-converged"], "endless.toml"), Some(1));
    assert_eq!(code(&["compare", "--require-converged"], "small.toml"), Some(0));
    assert_eq!(code(&["run", "--check"], "endless.toml"), Some(0));
    assert_eq!(code(&["run", "--check"], "misspelt.toml"), Some(2));
    assert_eq!(code(&["run", "--nonsense"], "small.toml"), Some(2));
}

#[test]
fn the_schema_is_json() {
    let output = cargo_bin_cmd!("livemig").arg("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["migrate"].is_object(), "{schema}");
}

/// Runs the program with a reader that goes away after the first line.
fn with_impatient_reader(words: &[&str]) -> Output {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("livemig"))
        .args(words)
        .arg(scenario("sweep.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = child.stdout.take().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    drop(reader);
    child.wait_with_output().unwrap()
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    for command in ["run", "compare"] {
        let output = with_impatient_reader(&[command]);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{command}");
    }
}

#[test]
fn a_closed_pipe_does_not_keep_files_from_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let output = with_impatient_reader(&["run", "-o", directory.path().to_str().unwrap()]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let metrics = fs::read_to_string(directory.path().join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 1 + 2 * 2 * 3 * 3);
}

#[cfg(target_os = "linux")]
mod full_disk {
    use super::*;

    #[test]
    fn standard_output_that_is_full_is_an_error() {
        for words in [&["run"][..], &["compare"], &["run", "--format", "csv"]] {
            let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let mut command = Command::new(assert_cmd::cargo::cargo_bin!("livemig"));
            let output = command.args(words).arg(scenario("small.toml")).stdout(full).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert!(stderr(&output).contains("cannot write to standard output: No space left"), "{}", stderr(&output));
        }
    }

    #[test]
    fn a_file_that_cannot_be_made_is_known_before_anything_runs() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("rounds.csv")).unwrap();
        let output = livemig(&["run"], "small.toml", Some(directory.path()));
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains("rounds.csv: No space left"), "{}", stderr(&output));
    }

    #[test]
    fn rows_stay_when_the_disk_fills_up() {
        let directory = tempfile::tempdir().unwrap();
        // Room for the headers and some rows; a limit in blocks of 512 or 1024 bytes.
        let script = "trap '' XFSZ; ulimit -f 12; exec \"$@\"";
        let binary = assert_cmd::cargo::cargo_bin!("livemig");
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(binary).args(["run", "--format", "csv"]).arg(scenario("sweep.toml"));
        let output = shell.arg("-o").arg(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("error: cannot write ") && stderr(&output).contains(".csv: "), "{}", stderr(&output));
        assert!(stdout(&output).lines().count() > 1, "{}", stdout(&output));
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for output in [livemig(&["run"], "small.toml", Some(&file)), livemig(&["compare"], "small.toml", Some(&file.join("below")))] {
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains("cannot make the output directory"), "{}", stderr(&output));
    }
}

#[test]
fn a_seed_draws_the_values_of_fleets_anew() {
    let rows = |seed: &str| stdout(&livemig(&["run", "--format", "csv", "--seed", seed], "fleet.toml", None));
    let (first, same, other) = (rows("1"), rows("1"), rows("2"));
    assert_eq!(first, same);
    assert_ne!(first, other);
}
