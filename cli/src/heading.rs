//! The first lines of a result: what is run.

use crate::human;
use crate::loaded::Loaded;
use livemig_core::units::{Bytes, Time};
use livemig_models::world::{Fidelity, Move, World};
use std::fmt::Write as _;

/// Name, file and seed of the scenario, and in short what it consists of; two or three lines.
pub(crate) fn of(loaded: &Loaded) -> String {
    let scenario = &loaded.scenario;
    let mut text = format!("{}: {}, xxh3 {}\n", scenario.name, loaded.path.display(), loaded.hash());
    let _ = write!(
        text,
        "seed {}, {}, horizon {}",
        scenario.seed,
        human::plural(scenario.replicates as usize, "replicate"),
        human::span(scenario.horizon)
    );
    if scenario.fidelity == Fidelity::Page {
        let _ = write!(text, ", page fidelity");
    }
    if let Some(first) = scenario.points.first() {
        let _ = writeln!(text, ", calibration {}", first.world.calibration.name);
        let _ =
            writeln!(text, "{}, {}", world(&first.world), human::plural(first.strategies.len(), "strategy").replace("ys", "ies"));
        if scenario.points.len() > 1 {
            let keys: Vec<&str> = first.label.iter().map(|(key, _)| key.as_str()).collect();
            let _ = writeln!(text, "{} of {}", human::plural(scenario.points.len(), "point"), keys.join(" x "));
        }
    } else {
        text.push('\n');
    }
    text
}

/// One point of a sweep: `host.dst.reception = 131 Mbit/s`.
pub(crate) fn point(label: &[(String, String)]) -> String {
    let parts: Vec<String> = label.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    parts.join(", ")
}

fn world(world: &World) -> String {
    let memory = human::memory(world.vms.iter().map(|vm| vm.memory).fold(Bytes::ZERO, |sum, m| Bytes(sum.0.saturating_add(m.0))).0);
    let vms = match world.vms.as_slice() {
        [vm] => format!("{} of {memory} with {}", vm.name, human::plural(vm.vcpus as usize, "vCPU")),
        vms => format!("{} of {memory} together", human::plural(vms.len(), "VM")),
    };
    let moves = match world.moves.as_slice() {
        [only] => path(world, only),
        // A drain chooses its migrations itself.
        [] if world.drain.is_some() => {
            let hosts = world.drain.as_ref().map_or(0, |drain| drain.hosts.len());
            format!("drain of {}", human::plural(hosts, "host"))
        }
        moves => human::plural(moves.len(), "migration"),
    };
    format!("{}, {vms}, {moves}", human::plural(world.hosts.len(), "host"))
}

fn path(world: &World, only: &Move) -> String {
    let host = |index: u32| world.hosts.get(index as usize).map_or("?", |host| host.name.as_str());
    let from = world.vms.get(only.vm.0 as usize).map_or("?", |vm| host(vm.host.0));
    format!("{from} -> {} at {}", host(only.to.0), human::span(only.at.since(Time::ZERO)))
}
