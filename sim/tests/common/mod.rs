//! Worlds for the tests and the benchmarks of the simulator.
#![allow(dead_code, reason = "each of these files uses what it needs")]

pub(crate) mod fleets;

use livemig_core::policy::stop::{SimGrid, StopRule};
use livemig_core::strategy::{Spec, preset};
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span, Time};
use livemig_models::calibration::Calibration;
use livemig_models::world::{Host, HostId, Move, Nic, Role, Strategy, Traffic, Vm, VmId, Workload, World};
use livemig_sim::{Fidelity, RunResult, Settings};

/// No cost and no latency anywhere.
pub(crate) fn ideal() -> Calibration {
    Calibration::built_in("ideal").expect("it is built in")
}

pub(crate) fn host(name: &str, rate: f64) -> Host {
    Host {
        name: name.into(),
        role: Role::Host,
        rack: None,
        nics: vec![Nic { rate: Rate(rate), goodput: 1.0 }],
        cores: 64,
        memory: None,
        reception: None,
        swap: Rate(60e6),
        service: None,
        storage: None,
    }
}

pub(crate) fn vm(host: u32, memory: Bytes, workload: Workload) -> Vm {
    let traffic = Traffic::default();
    Vm {
        name: "vm".into(),
        host: HostId(host),
        memory,
        vcpus: 1,
        workload,
        traffic,
        zero_share: 0.0,
        compressed: 1.0,
        content: None,
        disk: None,
    }
}

/// One guest that moves between two hosts with one NIC of `rate` bytes per second each.
pub(crate) fn one_vm(memory: Bytes, workload: Workload, rate: f64) -> World {
    World {
        hosts: vec![host("src", rate), host("dst", rate)],
        racks: Vec::new(),
        vms: vec![vm(0, memory, workload)],
        flows: Vec::new(),
        moves: vec![Move { vm: VmId(0), to: HostId(1), at: Time::ZERO, via: Vec::new() }],
        drain: None,
        events: Vec::new(),
        calibration: ideal(),
    }
}

/// A guest of any size on ordinary servers with 10 Gbit/s: it writes 256 MiB again and again and touches the rest now and then.
pub(crate) fn ordinary(memory: Bytes) -> World {
    let workload = Workload::HotCold {
        hot: Bytes::from_mib(256),
        hot_writes: 20_000.0,
        hot_reads: 80_000.0,
        cold_writes: 50.0,
        cold_reads: 500.0,
    };
    World { calibration: Calibration::built_in("default").unwrap(), ..one_vm(memory, workload, 1250e6) }
}

/// Guests that dirty 16 MiB faster than it is sent, each between hosts of its own: with [`endless_rule`], rounds of 13.4 ms for ever.
pub(crate) fn endless(guests: u32) -> World {
    let memory = Bytes::from_mib(16);
    let mut world = one_vm(memory, Workload::Idle, 1250e6);
    world.hosts = (0..2 * guests).map(|h| host(&format!("h{h}"), 1250e6)).collect();
    world.vms = (0..guests).map(|h| vm(h, memory, constant(2000e6, memory))).collect();
    world.moves = (0..guests).map(|h| Move { vm: VmId(h), to: HostId(guests + h), at: Time::ZERO, via: Vec::new() }).collect();
    world
}

/// The rule of [`like_simgrid`] with a limit that [`endless`] guests never meet.
pub(crate) fn endless_rule() -> Strategy {
    strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::SimGrid(SimGrid { downtime_limit: Span::from_millis(1) });
        live.skip_redirtied = false;
    })
}

/// A constant dirty rate in bytes per second, up to a working set.
pub(crate) fn constant(rate: f64, working_set: Bytes) -> Workload {
    Workload::Sequential { working_set, writes: rate / PAGE_SIZE as f64, reads: 0.0 }
}

pub(crate) fn strategy(name: &str, change: impl FnOnce(&mut Spec)) -> Strategy {
    let p = preset(name).unwrap();
    let mut spec = (p.spec)();
    change(&mut spec);
    spec.check().unwrap();
    Strategy { name: name.into(), preset: p.name, spec }
}

/// Pre-copy as the reference simulator does it.
pub(crate) fn like_simgrid() -> Strategy {
    strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::SimGrid(SimGrid::default());
        live.skip_redirtied = false;
    })
}

pub(crate) fn run(world: &World, strategy: &Strategy) -> RunResult {
    run_for(world, strategy, Span::from_secs(86_400))
}

pub(crate) fn run_for(world: &World, strategy: &Strategy, horizon: Span) -> RunResult {
    livemig_sim::run(
        world,
        strategy,
        Settings { horizon, seed: 1, timeline: false, sampled: false, fidelity: Fidelity::Class, rate_tolerance: 0.0 },
    )
}
/// So many guests on hosts with ten each, of which the first moves.
pub(crate) fn idle_fleet(guests: u32) -> World {
    let memory = Bytes::from_mib(16);
    let mut world = one_vm(memory, Workload::Idle, 1250e6);
    world.hosts = (0..=guests.div_ceil(10)).map(|h| host(&format!("h{h}"), 1250e6)).collect();
    world.vms = (0..guests).map(|i| vm(i / 10, memory, Workload::Idle)).collect();
    world.moves[0].to = HostId(guests.div_ceil(10));
    world
}
