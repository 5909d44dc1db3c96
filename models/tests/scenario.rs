//! Scenarios as users write them.

use livemig_core::policy::stop::{Escalation, KubeVirt, Qemu, StopRule};
use livemig_core::policy::throttle::{AutoConverge, ThrottlePolicy};
use livemig_core::policy::timeout::{CompletionTimeout, OnTimeout};
use livemig_core::strategy::{PRESETS, Push, preset};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_core::vocabulary::Prepaging;
use livemig_models::calibration::Calibration;
use livemig_models::scenario::{Loaded, ScenarioError, load, parse, parse_with_files};
use livemig_models::world::{Endpoint, HostId, Incident, Role, Traffic, VmId, Workload};
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/examples")
}

fn read(text: &str) -> Result<Loaded, ScenarioError> {
    parse(text, Path::new(""), "test.toml")
}

#[test]
fn a_program_may_carry_the_files_of_a_scenario_inside() {
    let text = r#"
schema = 1
calibration = "costs/own.toml"
host = [{ name = "a", nics = [{ rate = "1 Gbit/s" }] }, { name = "b", nics = [{ rate = "1 Gbit/s" }] }]
vm = [{ name = "v", host = "a", memory = "1 GiB" }]
migrate = { to = "b" }
"#;
    let costs = "base = \"ideal\"\nlatency = \"7 us\"\n";
    let inside = parse_with_files(text, "inside.toml", [("costs/own.toml", costs), ("other.toml", "")]).unwrap();
    assert_eq!((inside.scenario.name.as_str(), inside.scenario.points[0].world.calibration.latency), ("inside", Span(7000)));
    let error = parse_with_files(text, "inside.toml", []).unwrap_err().to_string();
    assert!(error.ends_with("calibration: there is no file `costs/own.toml`"), "{error}");
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
    assert_eq!(loaded.effective["calibration"]["goodput"], 0.9415);
    assert_eq!(loaded.effective["vm"][0]["workload"]["kind"], "idle");
    assert_eq!(loaded.effective["calibration"]["latency"], "30 us");
    assert_eq!(loaded.effective["migrate"]["strategies"][1]["name"], PRESETS[1].name);
}

/// A scenario like [`SMALL`] whose VM has these keys beside its name and host.
fn with_vm(keys: &str) -> Result<Loaded, ScenarioError> {
    read(&SMALL.replace("memory = \"1 GiB\"", keys))
}

fn workload(toml: &str) -> Workload {
    let loaded = with_vm(&format!("memory = \"1 GiB\"\nworkload = {toml}")).unwrap();
    loaded.scenario.points[0].world.vms[0].workload.clone()
}

#[test]
fn every_kind_of_workload_is_read() {
    assert_eq!(workload("'idle'"), Workload::Idle);
    let all = Bytes::from_gib(1);
    assert_eq!(
        workload("{ kind = 'uniform', writes = '1 pages/s' }"),
        Workload::Uniform { working_set: all, writes: 1.0, reads: 0.0 }
    );
    assert_eq!(
        workload("{ kind = 'sequential', working_set = '4 KiB', reads = '4096 B/s' }"),
        Workload::Sequential { working_set: Bytes(4096), writes: 0.0, reads: 1.0 }
    );
    assert_eq!(
        workload("{ kind = 'zipf', exponent = 1, writes = '0 B/s' }"),
        Workload::Zipf { working_set: all, exponent: 1.0, writes: 0.0, reads: 0.0 }
    );
    let phases = workload(
        "{ kind = 'phases', phases = [{ for = '2 s', kind = 'idle' }, { for = '3 s', kind = 'uniform' }, { kind = 'idle' }] }",
    );
    assert_eq!(phases.phase_at(Span::from_secs(1)), (&Workload::Idle, Some(Span::from_secs(1))));
    assert!(matches!(phases.phase_at(Span::from_secs(4)), (Workload::Uniform { .. }, Some(Span(1_000_000_000)))));
    assert_eq!(phases.phase_at(Span::from_secs(5)), (&Workload::Idle, None));
}

#[test]
fn extreme_sizes_and_rates_are_read() {
    let vm = |keys: &str| with_vm(keys).unwrap().scenario.points[0].world.vms[0].clone();
    assert_eq!(vm("memory = '1000000000000 B'").memory, Bytes(1_000_000_000_000));
    assert_eq!(vm("memory = '1 PiB'").memory, Bytes(1 << 50));
    assert_eq!(vm("memory = '1 B'\nworkload = { kind = 'uniform', writes = '0 pages/s', reads = '0 MB/s' }").memory, Bytes(1));
}

#[test]
fn strategies_are_presets_with_changes() {
    let text = SMALL.replace(
        "to = \"b\"",
        "to = 'b'\nstrategies = ['post-copy', { name = 'x', preset = 'pre-copy', streams = 4, limit = '1 Gbit/s', stop = 'qemu', \
         throttle = { policy = 'auto-converge', max = 0.5 }, skip_redirtied = false, timeout = { per_gib = '150 s', then = 'pause' } }, \
         { name = 'y', preset = 'hybrid', prepaging = { bubbling = 3 }, stop = { rule = 'kubevirt', on_stall = [{ raise_limit = '1 s' }, 'post-copy', 'abort'] } }]",
    );
    let strategies = &read(&text).unwrap().scenario.points[0].strategies;
    let named: Vec<(&str, &str)> = strategies.iter().map(|s| (s.name.as_str(), s.preset)).collect();
    assert_eq!(named, [("post-copy", "post-copy"), ("x", "pre-copy"), ("y", "hybrid")]);
    assert_eq!(strategies[0].spec, (preset("post-copy").unwrap().spec)());

    let x = &strategies[1].spec;
    assert_eq!((x.transfer.streams, x.transfer.limit), (4, Some(Rate(125e6))));
    assert_eq!(x.timeout, Some(CompletionTimeout { per_gib: Span::from_secs(150), then: OnTimeout::Pause }));
    let live = x.live.as_ref().unwrap();
    assert_eq!((&live.stop, live.skip_redirtied), (&StopRule::Qemu(Qemu::default()), false));
    let Some(ThrottlePolicy::AutoConverge(throttle)) = &live.throttle else { panic!("{live:?}") };
    assert_eq!((throttle.max, throttle.trigger), (0.5, AutoConverge::default().trigger));

    let y = &strategies[2].spec;
    assert_eq!(y.push, Some(Push { prepaging: Prepaging::Bubbling { pivots: 3 }, scatter: None }));
    let steps = vec![Escalation::RaiseLimit(Span::from_secs(1)), Escalation::PostCopy, Escalation::Abort];
    let kubevirt = KubeVirt::new(Span::from_millis(300), Span::from_secs(150), steps);
    assert_eq!(y.live.as_ref().unwrap().stop, StopRule::KubeVirt(kubevirt));
}

#[test]
fn the_effective_configuration_is_the_scenario_again() {
    let stops = "strategies = [{ name = '1', preset = 'pre-copy', stop = { rule = 'clark', max_factor = 2.5 } }, { name = '2', preset = 'pre-copy', stop = 'simgrid' }, \
                 { name = '3', preset = 'hybrid', stop = { rule = 'fixed-rounds', rounds = 2 }, limit = '0.1 bit/s' }, { name = '4', preset = 'pre-copy', stop = 'pmigrate' }, 'cpu-scheduling', \
                 { name = '5', preset = 'cpu-scheduling', throttle = { policy = 'cpu-scheduling', remaining = '64 MiB', rounds = 2, start = { below = 0.25 } } }, \
                 { name = '6', preset = 'pre-copy', throttle = { policy = 'cpu-scheduling', min_share = 0.05, start = 'not-shrinking' } }, \
                 { name = '7', preset = 'pre-copy', throttle = { policy = 'dirty-limit', limit = '40 MB/s' } }]";
    let mut texts: Vec<String> = ["first", "constrained-destination", "disk", "fleet", "traffic"]
        .iter()
        .map(|name| std::fs::read_to_string(examples().join(format!("{name}.toml"))).unwrap())
        .collect();
    texts.push(SMALL.replace("to = \"b\"", &format!("to = 'b'\n{stops}")));
    for text in texts {
        let written = read(&text).unwrap();
        let again = read(&toml::to_string(&written.effective).unwrap()).unwrap();
        assert_eq!(written.scenario.points.len(), again.scenario.points.len());
        for (a, b) in written.scenario.points.iter().zip(&again.scenario.points) {
            assert_eq!((&a.label, &a.strategies), (&b.label, &b.strategies));
            assert_eq!((&a.world.hosts, &a.world.vms, &a.world.moves), (&b.world.hosts, &b.world.vms, &b.world.moves));
            assert_eq!((&a.world.racks, &a.world.flows, &a.world.events), (&b.world.racks, &b.world.flows, &b.world.events));
            let named = |c: &Calibration| Calibration { name: String::new(), ..c.clone() };
            assert_eq!(named(&a.world.calibration), named(&b.world.calibration));
        }
        assert_eq!(written.effective, again.effective);
    }
}

#[test]
fn a_disk_is_read_and_leaves_out_what_cannot_move_it() {
    let with = |disk: &str| with_vm(&format!("memory = '1 GiB'\ndisk = {disk}"));
    let disk = |text: &str| with(text).unwrap().scenario.points.remove(0).world.vms.remove(0).disk.expect("a disk");
    assert_eq!(disk("{ size = '3 GiB' }").workload, Workload::Idle);
    let whole = disk("{ size = '8 KiB', zero = 0.5, workload = { kind = 'uniform', writes = '4096 B/s' } }");
    let uniform = Workload::Uniform { working_set: Bytes(8192), writes: 1.0, reads: 0.0 };
    assert_eq!((whole.size, whole.zero_share, whole.workload), (Bytes(8192), 0.5, uniform));
    let names = |loaded: Result<Loaded, ScenarioError>| {
        let strategies = loaded.unwrap().scenario.points.remove(0).strategies;
        strategies.into_iter().map(|s| s.name).collect::<Vec<_>>()
    };
    let all = names(with_vm("memory = '1 GiB'"));
    let able = names(with("{ size = '1 GiB' }"));
    let unable: Vec<&String> = all.iter().filter(|name| !able.contains(name)).collect();
    assert_eq!(unable, ["post-copy", "scatter-gather", "traffic-sensitive"]);
    let named = SMALL
        .replace("memory = \"1 GiB\"", "memory = '1 GiB'\ndisk = { size = '1 GiB' }")
        .replace("to = \"b\"", "to = 'b'\nstrategies = ['hybrid', 'post-copy']");
    let message = read(&named).unwrap_err().to_string();
    assert!(
        message.contains("migrate.strategies[1]") && message.contains("has a `disk`, and `post-copy`: it cannot move a disk"),
        "{message}"
    );
}

#[test]
fn who_migrates_follows_from_names_and_destinations() {
    let text = r#"
schema = 1
host = [
  { name = "h{i}", count = 3, nics = [{ rate = "1 Gbit/s" }] },
  { name = "m{i}", count = 2, role = "intermediary", nics = [{ rate = "1 Gbit/s" }] },
]
vm = [
  { name = "a{i}", count = 4, host = "h{i%3}", memory = "1 MiB" },
  { name = "b", host = "h0", to = "h1", memory = "1 MiB" },
]
"#;
    let moves = |migrate: &str| {
        let world = read(&format!("{text}{migrate}")).unwrap().scenario.points.remove(0).world;
        world.moves.iter().map(|m| (m.vm.0, m.to.0, m.via.iter().map(|h| h.0).collect::<Vec<_>>())).collect::<Vec<_>>()
    };
    // Without [migrate]: who has a destination. With `to`: everybody who is not there. With names: these.
    assert_eq!(moves(""), [(4, 1, vec![3, 4])]);
    assert_eq!(moves("[migrate]\nto = 'h2'"), [(0, 2, vec![3, 4]), (1, 2, vec![3, 4]), (3, 2, vec![3, 4]), (4, 1, vec![3, 4])]);
    assert_eq!(moves("[migrate]\nvms = ['a3', '*1', 'a1']\nto = 'h2'\nvia = ['m1']"), [(1, 2, vec![4]), (3, 2, vec![4])]);
    assert_eq!(moves("[migrate]\nvms = ['a0']\nto = 'h2'\nvia = []"), [(0, 2, vec![])]);
    assert_eq!(moves("[migrate]\nvms = ['a0']\nto = 'h2'\nvia = 'auto'"), [(0, 2, vec![3])], "one line is as fast as the source's");
    let own = text.replace("to = \"h1\",", "to = \"h1\", via = [\"m1\"],");
    let world = read(&format!("{own}[migrate]\nvms = ['a0', 'b']\nto = 'h2'")).unwrap().scenario.points.remove(0).world;
    let via: Vec<_> = world.moves.iter().map(|m| m.via.iter().map(|h| h.0).collect::<Vec<_>>()).collect();
    assert_eq!(via, [vec![3, 4], vec![4]], "a VM's own come before those of all");
}

/// Hosts are added until the source's uplink and the VM's memory are covered; what a host takes in is the least of its limits.
#[test]
fn intermediaries_are_chosen_by_bandwidth_and_memory() {
    let chosen = |mid: &str, memory: &str| {
        let text = format!(
            r#"
schema = 1
host = [
  {{ name = "h{{i}}", count = 2, nics = [{{ rate = "1 Gbit/s" }}] }},
  {{ name = "m{{i}}", count = 5, role = "intermediary", nics = [{{ rate = "1 Gbit/s" }}], {mid} }},
]
vm = [{{ name = "v", host = "h0", to = "h1", memory = "{memory}" }}]
migrate = {{ via = "auto" }}
"#
        );
        read(&text).unwrap().scenario.points.remove(0).world.moves[0].via.len()
    };
    assert_eq!(chosen("memory = '16 GiB'", "8 GiB"), 1);
    assert_eq!(chosen("memory = '4 GiB'", "8 GiB"), 2, "memory");
    assert_eq!(chosen("reception = '300 Mbit/s'", "8 GiB"), 4, "941 Mbit/s of payload at 300 each");
    assert_eq!(chosen("service = '500 Mbit/s'", "8 GiB"), 2, "what it stores and hands out");
    assert_eq!(chosen("memory = '1 GiB'", "8 GiB"), 5, "all, when they are too few");
}

#[test]
fn flows_events_and_traffic_are_read() {
    let loaded = load(&examples().join("traffic.toml")).unwrap();
    let world = &loaded.scenario.points[0].world;
    assert_eq!((world.flows[0].from, world.flows[0].to), (Endpoint::Vm(VmId(0)), Endpoint::Vm(VmId(1))));
    assert_eq!((world.flows[0].rate, world.flows[0].weight), (None, 1.0));
    let what: Vec<&Incident> = world.events.iter().map(|e| &e.what).collect();
    let traffic = Traffic { tx: Rate(75e6), rx: Rate::ZERO };
    assert_eq!(what, [&Incident::Cut(HostId(1)), &Incident::Restore(HostId(1)), &Incident::Traffic(VmId(2), traffic)]);
    assert_eq!(world.calibration.latency, Span(100_000));
    let ends = r#"[[flow]]
name = "f{i}"
count = 2
from = "outside"
to = "{x}:{y}"
"#;
    assert!(read(&format!("{SMALL}{ends}")).unwrap_err().to_string().contains("flow.to: `x` is unknown"));
    let both = SMALL.replace("name = \"v\"", "name = \"b\"");
    let flow = |to: &str| read(&format!("{both}[[flow]]\nname = 'f'\nfrom = 'outside'\nto = '{to}'\n"));
    assert!(flow("b").unwrap_err().to_string().contains("write `vm:b` or `host:b`"));
    assert_eq!(flow("host:b").unwrap().scenario.points[0].world.flows[0].to, Endpoint::Host(HostId(1)));
    assert_eq!(flow("vm:b").unwrap().scenario.points[0].world.flows[0].to, Endpoint::Vm(VmId(0)));
}

#[test]
fn a_selection_is_read_and_written_out() {
    let text = SMALL.replace(
        "to = \"b\"",
        "to = 'b'\nstrategies = ['traffic-sensitive', { name = 'x', preset = 'hybrid', select = { policy = 'traffic', window = '3 s' } }, \
         { name = 'y', preset = 'traffic-sensitive', select = 'traffic' }]",
    );
    let loaded = read(&text).unwrap();
    let strategies = &loaded.scenario.points[0].strategies;
    let windows: Vec<_> = strategies.iter().map(|s| s.spec.selection.map(|p| p.window())).collect();
    assert_eq!(windows, [10, 3, 10].map(|s| Some(Span::from_secs(s))));
    assert_eq!(loaded.effective["migrate"]["strategies"][1]["select"]["window"], "3 s");
    assert_eq!(loaded.effective["migrate"]["strategies"][1]["select"]["policy"], "traffic");
    for (select, preset, part) in [
        ("'none'", "hybrid", "traffic"),
        ("{ policy = 'traffic', window = '0 s' }", "hybrid", "above zero"),
        ("'traffic'", "pre-copy", "one of them is missing"),
        ("'traffic'", "post-copy", "one of them is missing"),
    ] {
        let text = SMALL.replace("to = \"b\"", &format!("to = 'b'\nstrategies = [{{ preset = '{preset}', select = {select} }}]"));
        let error = read(&text).expect_err(select).to_string();
        assert!(error.contains(part), "{select} over {preset}: {error}");
    }
}
