//! Scenarios as users write them.

use livemig_core::strategy::PRESETS;
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_models::scenario::{Loaded, ScenarioError, load, parse};
use livemig_models::world::{HostId, Incident, Role, VmId, Workload};
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/examples")
}

fn read(text: &str) -> Result<Loaded, ScenarioError> {
    parse(text, Path::new(""), "test.toml")
}

#[test]
fn the_example_of_the_design_is_read() {
    let loaded = load(&examples().join("constrained-destination.toml")).unwrap();
    let scenario = loaded.scenario;
    assert_eq!((scenario.name.as_str(), scenario.seed, scenario.replicates), ("constrained-destination", 7, 5));
    assert_eq!(scenario.horizon, Span::from_secs(7200));
    assert_eq!(scenario.points.len(), 3);
    let point = &scenario.points[1];
    assert_eq!(point.label, [("host.dst.reception".to_owned(), "342 Mbit/s".to_owned())]);
    let world = &point.world;
    assert_eq!(world.hosts[1].reception, Some(Rate(342e6 / 8.0)));
    assert_eq!((world.hosts[0].cores, world.hosts[1].cores, world.hosts[2].role), (8, 8, Role::Intermediary));
    assert_eq!((world.hosts[0].nics[0].rate, world.hosts[0].nics[0].goodput), (Rate(125e6), 0.9415));
    let vm = &world.vms[0];
    assert_eq!((vm.memory, vm.vcpus, vm.traffic.rx), (Bytes::from_gib(5), 2, Rate(50e6)));
    let Workload::HotCold { hot, hot_writes, cold_reads, .. } = vm.workload else { panic!("{:?}", vm.workload) };
    assert_eq!((hot, hot_writes, cold_reads), (Bytes::from_mib(256), 20_000.0, 500.0));
    let m = &world.moves[0];
    assert_eq!((m.vm, m.to, m.at, &m.via[..]), (VmId(0), HostId(1), Time::ZERO + Span::from_secs(200), &[HostId(2)][..]));
    assert_eq!(world.events[0].what, Incident::Fail(HostId(2)));
    assert_eq!(point.strategies.len(), 3);
    assert_eq!(loaded.inputs.len(), 1);
}

#[test]
fn every_example_is_read() {
    let mut seen = 0;
    for entry in std::fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            load(&path).unwrap_or_else(|e| panic!("{e}"));
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

const SMALL: &str = r#"
schema = 1
[[host]]
name = "a"
nics = [{ rate = "1 Gbit/s" }]
[[host]]
name = "b"
nics = [{ rate = "1 Gbit/s" }]
[[vm]]
name = "v"
host = "a"
memory = "1 GiB"
[migrate]
to = "b"
"#;

#[test]
fn defaults_are_filled_in_and_reported() {
    let loaded = read(SMALL).unwrap();
    let scenario = &loaded.scenario;
    assert_eq!((scenario.name.as_str(), scenario.seed, scenario.replicates), ("test", 0, 1));
    assert_eq!(scenario.horizon, Span::from_secs(86_400));
    assert_eq!(scenario.points.len(), 1);
    assert_eq!(scenario.points[0].label, []);
    let strategies: Vec<&str> = scenario.points[0].strategies.iter().map(|s| s.preset).collect();
    assert_eq!(strategies, PRESETS.map(|p| p.name));
    assert_eq!(loaded.effective["host"][1]["nics"][0]["goodput"], 0.9415);
    assert_eq!(loaded.effective["vm"][0]["workload"]["kind"], "idle");
    assert_eq!(loaded.effective["calibration"]["latency"], "50000 ns");
    assert_eq!(loaded.effective["migrate"]["strategies"][1]["name"], PRESETS[1].name);
}
