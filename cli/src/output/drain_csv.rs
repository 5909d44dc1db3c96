//! `hosts.csv` and `unmoved.csv`: what came of the hosts of a drain, and of the VMs that did not leave them.

use super::CsvFile;
use crate::value::Value;
use anyhow::Result;
use livemig_core::drain::{Fate, HostReport};
use livemig_core::units::Time;
use livemig_models::world::{HostId, World};
use livemig_sim::{DrainResult, NotMoved};

/// Columns of `hosts.csv` after those of the run: when the host's turn came, from the drain's request to its last eviction, and how
/// many VMs were evicted and were not.
pub(super) const HOST_COLUMNS: [&str; 5] = ["host", "began_s", "drain_time_s", "evicted", "left"];
/// Columns of `unmoved.csv` after those of the run.
pub(super) const UNMOVED_COLUMNS: [&str; 4] = ["vm", "host", "fate", "reason"];

/// Writes a row per host, in the order in which their turns ended.
pub(super) fn write_hosts(file: &mut CsvFile, run: &[Value], world: &World, drain: &DrainResult) -> Result<()> {
    drain.hosts.iter().try_for_each(|report| file.row(run.iter().cloned().chain(host_values(world, report))))
}

/// Writes a row per VM that did not leave.
pub(super) fn write_unmoved(file: &mut CsvFile, run: &[Value], world: &World, drain: &DrainResult) -> Result<()> {
    drain.not_moved.iter().try_for_each(|vm| file.row(run.iter().cloned().chain(unmoved_values(world, vm))))
}

fn host_values(world: &World, report: &HostReport) -> [Value; HOST_COLUMNS.len()] {
    [
        host_name(world, HostId(report.host.0)),
        report.began.map(|at| at.since(Time::ZERO)).into(),
        report.drain_time().into(),
        Value::Count(report.evicted.into()),
        Value::Count(report.left.into()),
    ]
}

fn unmoved_values(world: &World, left: &NotMoved) -> [Value; UNMOVED_COLUMNS.len()] {
    let reason = if let Fate::Unplaced(reason) = left.fate { reason.name().into() } else { Value::Empty };
    let vm = world.vms.get(left.vm.0 as usize).map_or(Value::Empty, |vm| vm.name.as_str().into());
    [vm, host_name(world, left.host), left.fate.name().into(), reason]
}

fn host_name(world: &World, id: HostId) -> Value {
    world.hosts.get(id.0 as usize).map_or(Value::Empty, |host| host.name.as_str().into())
}
