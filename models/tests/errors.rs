//! What users are told about their mistakes: one change to a scenario that is right, and the whole message.

use livemig_models::scenario::{ScenarioError, parse};
use proptest::prelude::*;
use std::path::Path;

const RIGHT: &str = r#"schema = 1
name = "x"
replicates = 2
horizon = "1 h"

[[host]]
name = "src"
nics = [{ rate = "1 Gbit/s" }]
cores = 8

[[host]]
name = "dst"
nics = [{ rate = "1 Gbit/s" }, { rate = "1 Gbit/s", goodput = 0.9 }]

[[host]]
name = "mid"
role = "intermediary"
nics = [{ rate = "1 Gbit/s" }]

[[vm]]
name = "v"
host = "src"
memory = "1 GiB"
vcpus = 2
workload = { kind = "hot-cold", hot = "256 MiB", hot_writes = "20000 pages/s" }
traffic = { tx = "1 Mbit/s" }

[[vm]]
name = "w{i}"
count = 3
host = "dst"
memory = "{1 + i} GiB"

[migrate]
vms = ["v"]
to = "dst"
at = "10 s"
strategies = [
  "pre-copy",
  { name = "p", preset = "pre-copy", stop = { rule = "qemu", downtime_limit = "300 ms" } },
]

[[event]]
at = "20 s"
cut = "dst"

[sweep]
"vm.v.vcpus" = [1, 2]
"#;

/// The workload of [`RIGHT`].
const WORKLOAD: &str = "{ kind = \"hot-cold\", hot = \"256 MiB\", hot_writes = \"20000 pages/s\" }";

/// The message after `from` was replaced by `to`.
fn message(from: &str, to: &str) -> String {
    assert_eq!(RIGHT.matches(from).count(), 1, "`{from}` must be there once");
    match parse(&RIGHT.replacen(from, to, 1), Path::new("/nowhere"), "s.toml") {
        Ok(_) => format!("`{to}` is accepted"),
        Err(e @ (ScenarioError::Invalid { .. } | ScenarioError::Unreadable { .. })) => e.to_string(),
    }
}

#[test]
fn messages_are_as_they_were_agreed() {
    parse(RIGHT, Path::new(""), "s.toml").expect("without a change the scenario is right");
    let mut all = String::new();
    for (from, to) in CASES {
        let one = |text: &str| text.replace('\n', " / ");
        all += &format!("{}  ->  {}\n  {}\n", one(from), one(to), message(from, to));
    }
    insta::assert_snapshot!("messages", all);
}

proptest! {
    /// Whatever is done to a scenario, the answer is a result or a message that names a line.
    #[test]
    fn nothing_that_is_written_panics(at in 0..RIGHT.len(), length in 0_usize..40, put in "[\\[\\]{}=\"',. \\na-z*%/-]{0,8}") {
        let end = (at + length).min(RIGHT.len());
        let text = format!("{}{put}{}", &RIGHT[..at], &RIGHT[end..]);
        if let Err(e) = parse(&text, Path::new("/nowhere"), "s.toml") {
            let line = e.to_string().split(':').nth(1).and_then(|n| n.parse::<usize>().ok());
            prop_assert!(line.is_some_and(|n| (1..=text.lines().count() + 1).contains(&n)), "{e}");
        }
    }
}

const CASES: &[(&str, &str)] = &[
    ("hot_writes =", "hot_writs ="),
    ("replicates = 2", "replicats = 2"),
    ("[[event]]", "[[evnt]]"),
    ("schema = 1", "schema = 2"),
    ("schema = 1\n", ""),
    ("schema = 1", "schema = "),
    ("replicates = 2", "replicates = 0"),
    ("replicates = 2", "replicates = -3"),
    ("replicates = 2", "replicates = \"two\""),
    ("horizon = \"1 h\"", "horizon = 3600"),
    ("horizon = \"1 h\"", "horizon = \"1 hour\""),
    ("horizon = \"1 h\"", "horizon = \"0 s\""),
    ("replicates = 2", "fidelity = \"pages\""),
    ("cores = 8", "cores = 2.5"),
    ("cores = 8", "cores = 0"),
    ("cores = 8", "memory = \"5 gb\""),
    ("cores = 8", "memory = \"-5 GB\""),
    ("cores = 8", "rack = \"r1\""),
    ("cores = 8", "reception = \"0 Mbit/s\""),
    ("nics = [{ rate = \"1 Gbit/s\" }]\ncores", "nics = []\ncores"),
    ("nics = [{ rate = \"1 Gbit/s\" }]\ncores", "cores"),
    ("nics = [{ rate = \"1 Gbit/s\" }]\ncores", "nics = [{ rate = \"0 Gbit/s\" }]\ncores"),
    ("nics = [{ rate = \"1 Gbit/s\" }]\ncores", "nics = [{ rate = \"1 Gbps\" }]\ncores"),
    ("goodput = 0.9", "goodput = 1.5"),
    ("goodput = 0.9", "goodput = 0"),
    ("role = \"intermediary\"", "role = \"intermediate\""),
    ("name = \"mid\"", "name = \"dst\""),
    ("host = \"src\"", "host = \"scr\""),
    ("host = \"src\"\n", ""),
    ("host = \"src\"", "host = \"mid\""),
    ("host = \"src\"", "host = \"dst\""),
    ("host = \"src\"", "host = \"src\"\nto = \"src\""),
    ("memory = \"1 GiB\"", "memory = \"0 B\""),
    ("memory = \"1 GiB\"", "memory = \"1.1 PiB\""),
    ("memory = \"1 GiB\"", "memory = \"128 MiB\""),
    ("memory = \"1 GiB\"", "memory = { unifrom = [\"1 GiB\", \"2 GiB\"] }"),
    ("memory = \"1 GiB\"", "memory = \"{i} GiB\""),
    ("vcpus = 2", "vcpus = 2\nzero = 1.2"),
    ("vcpus = 2", "vcpus = 2\ncontent = { group = \"os\" }"),
    ("vcpus = 2", "vcpus = 2\ncontent = { shared = 1.2 }"),
    ("kind = \"hot-cold\"", "kind = \"hotcold\""),
    ("kind = \"hot-cold\", ", ""),
    (WORKLOAD, "{ kind = \"uniform\", hot = \"1 MiB\" }"),
    (WORKLOAD, "{ kind = \"uniform\", working_set = \"2 GiB\" }"),
    (WORKLOAD, "{ kind = \"curve\", file = \"c.csv\" }"),
    (WORKLOAD, "{ kind = \"phases\", phases = [{ kind = \"idle\" }, { for = \"1 s\", kind = \"idle\" }] }"),
    (WORKLOAD, "{ kind = \"phases\", phases = [{ for = \"1 s\", kind = \"uniform\", wrtes = \"1 B/s\" }] }"),
    (WORKLOAD, "{ kind = \"zipf\" }"),
    (WORKLOAD, "{ kind = \"idle\", writes = \"1 B/s\" }"),
    (WORKLOAD, "3"),
    ("\"20000 pages/s\"", "\"20000\""),
    ("\"20000 pages/s\"", "\"NaN pages/s\""),
    ("\"20000 pages/s\"", "\"-1 pages/s\""),
    ("count = 3", "count = 20000000"),
    ("count = 3", "count = 3\ntable = \"t.csv\""),
    ("count = 3", "table = \"t.csv\""),
    ("w{i}", "w"),
    ("w{i}", "w{j}"),
    ("w{i}", "w{i"),
    ("{1 + i} GiB", "{1 + } GiB"),
    ("{1 + i} GiB", "{1 / i} GiB"),
    ("{1 + i} GiB", "{1 - i} GiB"),
    ("{1 + i} GiB", "{1 + i}"),
    ("vms = [\"v\"]", "vms = [\"u*\"]"),
    ("vms = [\"v\"]", "vms = [\"vv\"]"),
    ("vms = [\"v\"]", "vms = [\"w0\"]"),
    ("vms = [\"v\"]", "vms = \"v\""),
    ("to = \"dst\"", "to = \"dest\""),
    ("to = \"dst\"", "to = \"mid\""),
    ("to = \"dst\"\n", ""),
    ("at = \"10 s\"", "at = \"2 h\""),
    ("at = \"10 s\"", "via = [\"dst\"]"),
    ("at = \"10 s\"", "via = [\"mid\", \"mid\"]"),
    ("at = \"10 s\"", "via = \"automatic\""),
    ("at = \"10 s\"", "via = [\"mdi\"]"),
    ("vcpus = 2", "vcpus = 2\nvia = [\"dst\"]"),
    ("vcpus = 2", "vcpus = 2\nvia = [\"mid\", \"mid\"]"),
    ("vcpus = 2", "vcpus = 2\nvia = [\"mid{i}\"]"),
    ("  \"pre-copy\",", "  \"precopy\","),
    ("  \"pre-copy\",", "  \"pre-copy\", \"pre-copy\","),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", streams = 0 },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", prepaging = { bubbling = 7 } },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", scatter = {} },"),
    ("  \"pre-copy\",", "  { preset = \"scatter-gather\", scatter = { copies = 0 } },"),
    ("  \"pre-copy\",", "  { preset = \"scatter-gather\", scatter = { copies = 2 } },"),
    ("  \"pre-copy\",", "  { preset = \"scatter-gather\", scatter = { gather = \"later\" } },"),
    ("  \"pre-copy\",", "  { preset = \"scatter-gather\", scatter = { gather_limit = \"0 bit/s\" } },"),
    ("  \"pre-copy\",", "  { preset = \"post-copy\", staging = true },"),
    ("  \"pre-copy\",", "  { preset = \"post-copy\", dedup = true },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", snapshots = \"fixed\", staging = true },"),
    (
        "at = \"10 s\"\nstrategies = [\n",
        "at = \"10 s\"\nvia = []\nstrategies = [\n  { preset = \"post-copy\", snapshots = \"fixed\", staging = true },\n",
    ),
    ("at = \"10 s\"\nstrategies = [\n", "strategies = [\n  { preset = \"post-copy\", snapshots = \"fixed\" },\n"),
    ("[sweep]\n\"vm.v.vcpus\" = [1, 2]\n", "[[flow]]\nname = \"f\"\nfrom = \"v\"\nto = \"outside\"\nmeasured_for = \"0 s\"\n"),
    ("  \"pre-copy\",", "  { preset = \"post-copy\", stop = \"clark\" },"),
    ("  \"pre-copy\",", "  { preset = \"post-copy\", timeout = { per_gib = \"1 s\", then = \"abort\" } },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", unlimited_while_paused = true },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", stop = { rule = \"kubevirt\", on_stall = [\"restart\"] } },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", stop = { rule = \"kubevirt\", on_stall = [{ raise_limit = 3 }] } },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", throttle = { policy = \"auto-converge\", max = 1 } },"),
    ("  \"pre-copy\",", "  { preset = \"cpu-scheduling\", stop = { rule = \"fixed-rounds\", rounds = 5 } },"),
    ("  \"pre-copy\",", "  { preset = \"pre-copy\", throttle = { policy = \"cpu-scheduling\", start = { round = 0 } } },"),
    ("rule = \"qemu\", downtime_limit = \"300 ms\"", "rule = \"qemu\", downtime = \"300 ms\""),
    ("rule = \"qemu\", downtime_limit = \"300 ms\"", "rule = \"xen\""),
    ("rule = \"qemu\", downtime_limit = \"300 ms\"", "rule = \"qemu\", downtime_limit = \"0 s\""),
    ("cut = \"dst\"", "cut = \"dest\""),
    ("cut = \"dst\"", "cut = \"dst\"\nfail = \"src\""),
    ("cut = \"dst\"", ""),
    ("cut = \"dst\"", "cancel = \"w1\""),
    ("cut = \"dst\"", "vm = \"v\""),
    ("at = \"20 s\"\ncut = \"dst\"", "at = \"5 s\"\ncancel = \"v\""),
    ("\"vm.v.vcpus\" = [1, 2]", "\"vm.vv.vcpus\" = [1, 2]"),
    ("\"vm.v.vcpus\" = [1, 2]", "\"vm.v.vcpu\" = [1, 2]"),
    ("\"vm.v.vcpus\" = [1, 2]", "\"vm.v.memory\" = [\"1 GiB\", \"100 MiB\"]"),
    ("[sweep]\n\"vm.v.vcpus\" = [1, 2]\n", "[drain]\nhost = \"src\"\n"),
    ("name = \"x\"", "calibration = \"defalt\""),
    ("name = \"x\"", "calibration = { latency = 5 }"),
    ("traffic = {", "disk = { size = \"0 B\" }\ntraffic = {"),
    ("traffic = {", "disk = { size = \"1 GiB\", writes = \"1 MB/s\" }\ntraffic = {"),
    ("traffic = {", "disk = { size = \"1 GiB\", workload = { kind = \"uniform\", working_set = \"2 GiB\" } }\ntraffic = {"),
    ("traffic = {", "disk = { size = \"1 GiB\", workload = { kind = \"uniform\", reads = \"5 pages/s\" } }\ntraffic = {"),
    ("cores = 8", "cores = 8\nstorage = \"0 MB/s\""),
];
