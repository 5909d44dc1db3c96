//! `livemig exec` and `livemig doctor`, with real guests where there is KVM.

use assert_cmd::cargo::cargo_bin_cmd;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

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

/// The scenario of the other tests, with changes, in a file.
fn changed(directory: &Path, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(scenario()).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    let path = directory.join("changed.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_real_guests_cannot_do_is_said_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        directory.path(),
        &[(r#"["pre-copy", "post-copy"]"#, r#"["pre-copy", { name = "wide", preset = "pre-copy", streams = 2, threads = 3 }]"#)],
    );
    for check in [&["--check"][..], &[]] {
        let output = livemig(&[&["exec", &path][..], check].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("strategy `wide`: there is one thread per stream") && output.stdout.is_empty(), "{errors}");
    }
    let output = livemig(&["exec", scenario().to_str().unwrap(), "--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("the scenario is valid"));
}

#[test]
fn a_migration_that_does_not_complete_is_a_negative_answer() {
    if !have_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let strategies = r#"[{ name = "slow", preset = "pre-copy", limit = "100 Mbit/s" }]

[[event]]
at = "800 ms"
cancel = "vm1"
"#;
    let path = changed(directory.path(), &[(r#"["pre-copy", "post-copy"]"#, strategies)]);
    let output = livemig(&["exec", &path, "--format", "csv", "--observe", "100ms"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("did not complete") && errors.contains("cancelled"), "{errors}");
}

#[test]
fn an_agent_without_a_coordinator_says_what_it_is() {
    let output = livemig(&["agent"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("started by `livemig exec`"));
    let output = livemig(&["agent", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--insecure does without"));
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn agents_that_wait_on_their_machines_are_used() {
    if !have_kvm() {
        return;
    }
    let mut agents = Vec::new();
    let mut list = String::new();
    for host in ["src", "dst"] {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("livemig"));
        command.args(["agent", "--listen", "127.0.0.1:0", "--insecure"]).stderr(std::process::Stdio::null());
        let mut agent = Ended(command.stdout(std::process::Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(agent.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening at ").unwrap();
        list += &format!("[agent.{host}]\naddress = '{address}'\n");
        agents.push(agent);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agents.toml");
    fs::write(&file, list).unwrap();
    let words = ["exec", scenario().to_str().unwrap(), "--observe", "200ms", "--agents", file.to_str().unwrap()].map(str::to_owned);
    let output = livemig(&words.iter().map(String::as_str).chain(["--insecure"]).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // Nothing of [tls] is there.
    let output = livemig(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no [tls]"));
}

/// The processes that a process has started, and the network namespace of each.
fn agents_of(process: u32) -> Vec<(String, PathBuf)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children: String = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    let namespace = |child: &str| Some((child.to_owned(), fs::read_link(format!("/proc/{child}/ns/net")).ok()?));
    children.split_whitespace().filter_map(namespace).collect()
}

/// Waits until it is so; false when that takes too long.
fn comes(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn a_coordinator_that_is_killed_leaves_no_process_and_no_namespace() {
    if let Err(why) = livemig_exec::guest::kvm_available().and_then(|()| livemig_exec::doctor::network_namespaces()) {
        println!("skipped: {why}");
        return;
    }
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("livemig"));
    command.arg("exec").arg(scenario()).args(["--net", "namespaces", "--observe", "60s"]);
    let mut coordinator = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    // What the coordinator starts for a moment, to set the network up, is no agent.
    let is_agent = |(child, namespace): &(String, PathBuf)| {
        *namespace != ours && fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "livemig")
    };
    let mut agents = Vec::new();
    let started = comes(|| {
        agents = agents_of(coordinator.id());
        agents.retain(is_agent);
        agents.len() == 2
    });
    coordinator.kill().unwrap();
    coordinator.wait().unwrap();
    assert!(started, "{agents:?}");
    assert_ne!(agents[0].1, agents[1].1, "each has a namespace of its own");
    let in_use = |namespace: &PathBuf| {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|p| fs::read_link(p.path().join("ns/net")).ok()).any(|of| of == *namespace)
    };
    assert!(comes(|| !agents.iter().any(|(_, namespace)| in_use(namespace))), "{agents:?}");
    // One that has ended and that nobody has asked for its exit code has no program any more.
    let ended = |child: &str| fs::read_link(format!("/proc/{child}/exe")).is_err();
    assert!(comes(|| agents.iter().all(|(child, _)| ended(child))), "{agents:?}");
}
