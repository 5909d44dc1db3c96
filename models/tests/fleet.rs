//! Fleets: patterns, tables, draws, and a million VMs; and the CSV files of workloads.

use livemig_core::units::{Bytes, Span};
use livemig_models::scenario::{Loaded, ScenarioError, load, parse};
use livemig_models::world::{HostId, Vm, Workload};
use std::path::Path;

const HOSTS: &str = r#"
schema = 1
seed = 3
[[host]]
count = 10
name = "h{i}"
nics = [{ rate = "{1 + i} Gbit/s" }]
cores = "{8 * (1 + i%2)}"
[migrate]
to = "h9"
"#;

fn read_in(dir: &Path, vms: &str) -> Result<Loaded, ScenarioError> {
    parse(&format!("{HOSTS}{vms}"), dir, "fleet.toml")
}

fn vms(text: &str) -> Vec<Vm> {
    read_in(Path::new(""), text).unwrap().scenario.points.remove(0).world.vms
}

#[test]
fn patterns_make_different_members() {
    let loaded = read_in(
        Path::new(""),
        "[[vm]]\nname = 'v{i}'\ncount = 50\nhost = 'h{(i/10 + i%10) % 9}'\nmemory = '{4000 + 500*(i%7)} MB'\n",
    );
    let world = loaded.unwrap().scenario.points.remove(0).world;
    assert_eq!((world.vms.len(), world.hosts.len(), world.moves.len()), (50, 10, 50));
    assert_eq!((world.hosts[3].cores, world.hosts[3].nics[0].rate.0), (16, 5e8));
    let vm = &world.vms[37];
    assert_eq!((vm.name.as_str(), vm.host, vm.memory), ("v37", HostId((3 + 7) % 9), Bytes(5_000_000_000)));
}

#[test]
fn a_table_is_an_inventory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vms.csv"), "# export\nname,hypervisor,bytes,cores\ndb, h1,1073741824,4\n\"web,1\",h2,4096,1\n")
        .unwrap();
    let block = "[[vm]]\ntable = 'vms.csv'\nname = '{name}'\nhost = '{hypervisor}'\nmemory = '{bytes} B'\nvcpus = '{cores * 2}'\n";
    let loaded = read_in(dir.path(), block).unwrap();
    let vms = &loaded.scenario.points[0].world.vms;
    assert_eq!((vms[0].name.as_str(), vms[0].host, vms[0].memory, vms[0].vcpus), ("db", HostId(1), Bytes::from_gib(1), 8));
    assert_eq!((vms[1].name.as_str(), vms[1].vcpus), ("web,1", 2));
    assert_eq!(loaded.inputs.len(), 1);
    assert_eq!(loaded.inputs[0].path, dir.path().join("vms.csv"));

    let message = |block: &str| read_in(dir.path(), block).unwrap_err().to_string();
    assert_eq!(
        message(&block.replace("{bytes}", "{byte}")),
        "fleet.toml:15: vm.memory: no column `byte` in `vms.csv`; did you mean `bytes`? allowed: name, hypervisor, bytes, cores (member `db`, vms.csv:3)"
    );
    std::fs::write(dir.path().join("vms.csv"), "name,hypervisor,bytes,cores\ndb,h1,7\n").unwrap();
    assert_eq!(message(block), "vms.csv:2: this row has 3 columns, and the header 4");
    std::fs::write(dir.path().join("vms.csv"), "name,hypervisor,bytes,cores\na,h1,7,1\nb,h77,7,1\n").unwrap();
    assert_eq!(
        message(block),
        "fleet.toml:14: vm.host: there is no host `h77`; did you mean `h7`? allowed: h0, h1, h2, h3, h4, h5, h6, h7, h8, h9 (member `b`, vms.csv:3)"
    );
}

#[test]
fn draws_do_not_depend_on_other_members() {
    let block = |name: &str, count: u32| {
        format!(
            "[[vm]]\nname = '{name}{{i}}'\ncount = {count}\nhost = 'h0'\nmemory = {{ uniform = ['1 GiB', '8 GiB'] }}\nvcpus = {{ choice = [1, 2, 4] }}\n\
             workload = {{ kind = 'uniform', working_set = {{ uniform = ['1 MiB', '1 GiB'] }}, writes = {{ lognormal = {{ median = '100 pages/s', sigma = 1 }} }} }}\n"
        )
    };
    let few = vms(&block("v", 20));
    let many = vms(&(block("other", 7) + &block("v", 40)));
    assert_eq!(few[..], many[7..27]);
    assert!(few.iter().any(|v| v.memory != few[0].memory) && few.iter().any(|v| v.vcpus != few[0].vcpus));
}

#[test]
fn a_million_vms_are_read() {
    let text = "[[vm]]\nname = 'v{i}'\ncount = 1000000\nhost = 'h{i%9}'\nmemory = { uniform = ['1 GiB', '8 GiB'] }\n\
                workload = { kind = 'hot-cold', hot = '{1 + i%64} MiB', hot_writes = '100 pages/s' }\n";
    let world = read_in(Path::new(""), text).unwrap().scenario.points.remove(0).world;
    assert_eq!((world.vms.len(), world.moves.len()), (1_000_000, 1_000_000));
    assert_eq!((world.vms[999_999].name.as_str(), world.vms[999_999].host), ("v999999", HostId(999_999 % 9)));
    assert!(matches!(world.vms[70].workload, Workload::HotCold { hot, .. } if hot == Bytes::from_mib(7)));
}

#[test]
fn memory_adds_up_without_overflow() {
    let text = "[[vm]]\nname = 'v{i}'\ncount = 5000\nhost = 'h0'\nmemory = '1 PiB'\n";
    assert!(
        read_in(Path::new(""), text).unwrap_err().to_string().contains("vm.memory: all VMs together have more than 2^62 bytes")
    );
}

fn file_workload(dir: &Path, kind: &str, content: &str) -> Result<Workload, String> {
    std::fs::write(dir.join("w.csv"), content).unwrap();
    let block = format!("[[vm]]\nname = 'v'\nhost = 'h0'\nmemory = '1 MiB'\nworkload = {{ kind = '{kind}', file = 'w.csv' }}\n");
    let loaded = read_in(dir, &block).map_err(|e| e.to_string())?;
    Ok(loaded.scenario.points[0].world.vms[0].workload.clone())
}

#[test]
fn curves_are_read_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let read = |content: &str| file_workload(dir.path(), "curve", content);
    let Workload::Curve { curve, .. } = read("seconds,pages\n0,0\n1,10\n2,10\n4,16\n5,16\n").unwrap() else { panic!("a curve") };
    assert_eq!(curve.points, [(0.0, 0.0), (1.0, 40960.0), (4.0, 65536.0)]);
    for (content, message) in [
        ("seconds,page\n1,1\n", "w.csv:1: no column `pages`; the header must have seconds,pages"),
        ("seconds,pages,extra\n1,1,1\n", "w.csv:1: unknown column `extra`; allowed: seconds, pages"),
        ("seconds,pages\n1,1\n1,2\n", "w.csv:3: `seconds` must grow from row to row"),
        ("seconds,pages\n1,2\n2,1\n", "w.csv:3: `pages` must not fall from row to row"),
        ("seconds,pages\n0,3\n", "w.csv:2: at 0 seconds a curve has 0 pages"),
        ("seconds,pages\n1,-3\n", "w.csv:2: `pages` is `-3`; expected a finite number, not negative"),
        ("seconds,pages\n1,nan\n", "w.csv:2: `pages` is `nan`; expected a finite number, not negative"),
        ("seconds,pages\n0,0\n", "w.csv:1: a curve needs at least one row with pages above 0"),
        ("seconds,pages\n1,257\n", "fleet.toml:15: vm.workload.file: 1028 KiB is more than the memory of the VM, 1 MiB"),
        ("seconds,pages\n1,1e300\n", "w.csv:2: `pages` is more than 2^50 bytes of memory"),
    ] {
        assert_eq!(read(content).unwrap_err(), message);
    }
}

#[test]
fn traces_are_phases() {
    let dir = tempfile::tempdir().unwrap();
    let read = |content: &str| file_workload(dir.path(), "trace", content);
    let header = "seconds,writes_per_s,reads_per_s,working_set_pages\n";
    let trace = read(&format!("{header}0,5,6,7\n1.5,8,9,10\n")).unwrap();
    let uniform = |pages, writes, reads| Workload::Uniform { working_set: Bytes::from_pages(pages), writes, reads };
    assert_eq!(trace.phase_at(Span::ZERO), (&uniform(7, 5.0, 6.0), Some(Span(1_500_000_000))));
    assert_eq!(trace.phase_at(Span::from_secs(9)), (&uniform(10, 8.0, 9.0), None));
    for (rows, message) in [
        ("1,5,6,7\n", "w.csv:2: a trace begins at 0 seconds"),
        ("0,5,6,7\n0,5,6,7\n", "w.csv:3: `seconds` must grow from row to row by at least 1 ns"),
        ("", "w.csv:1: a trace needs at least one row"),
        ("0,5,6,257\n", "fleet.toml:15: vm.workload.file: 1028 KiB is more than the memory of the VM, 1 MiB"),
    ] {
        assert_eq!(read(&format!("{header}{rows}")).unwrap_err(), message);
    }
}

#[test]
fn a_missing_scenario_is_said() {
    let error = load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert!(matches!(error, ScenarioError::Unreadable { .. }));
    assert!(error.to_string().starts_with("/nowhere/x.toml: No such file"));
}
