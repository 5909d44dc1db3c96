//! From the raw format to a world: names become indices, units numbers, fleets their members.

mod cluster;
mod drain;
mod fitting;
mod plan;
mod strategies;
mod workload;

use super::error::Fault;
use super::files::Files;
use super::names::Names;
use super::quantity::written_time;
use super::raw::{self, Document};
use crate::calibration::Calibration;
use crate::world::{Fidelity, Strategy, Vm, World};
use livemig_core::units::{Span, Time};

/// What holds for the whole scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) seed: u64,
    pub(crate) replicates: u32,
    pub(crate) horizon: Span,
    pub(crate) fidelity: Fidelity,
    pub(crate) rate_tolerance: f64,
}

/// Cores of a host that says nothing.
pub(crate) const CORES: u32 = 8;
/// Version of the format.
const VERSION: u32 = 1;
/// Most replicates.
const MAX_REPLICATES: u32 = 1_000_000;
/// Default horizon: a day.
const HORIZON: Span = Span::from_secs(86_400);
/// Longest horizon: ten years, so that times cannot overflow.
const MAX_HORIZON: Span = Span::from_secs(10 * 365 * 86_400);

/// Largest tolerance of rates.
const MAX_RATE_TOLERANCE: f64 = 0.1;

/// Checks the keys at the top.
///
/// # Errors
/// The first value out of range.
pub(crate) fn frame(document: &Document) -> Result<Frame, Fault> {
    let schema = &document.schema;
    if schema.value != VERSION {
        return Err(Fault::at(
            schema.line,
            "schema",
            format!("version {} of the format is unknown; allowed: {VERSION}", schema.value),
        ));
    }
    let replicates = document.replicates.as_ref().map_or(1, |at| at.value);
    if !(1..=MAX_REPLICATES).contains(&replicates) {
        let line = document.replicates.as_ref().map_or(0, |at| at.line);
        return Err(Fault::at(line, "replicates", format!("must be from 1 to {MAX_REPLICATES}")));
    }
    let horizon = document.horizon.as_ref().map_or(HORIZON, |at| at.value.0);
    if horizon == Span::ZERO || horizon > MAX_HORIZON {
        let line = document.horizon.as_ref().map_or(0, |at| at.line);
        return Err(Fault::at(line, "horizon", "must be above zero and at most 3650 d"));
    }
    let fidelity = match document.fidelity {
        None | Some(raw::Fidelity::Class) => Fidelity::Class,
        Some(raw::Fidelity::Page) => Fidelity::Page,
    };
    let rate_tolerance = document.rate_tolerance.as_ref().map_or(0.0, |at| at.value.0.0);
    if rate_tolerance > MAX_RATE_TOLERANCE {
        let line = document.rate_tolerance.as_ref().map_or(0, |at| at.line);
        return Err(Fault::at(line, "rate_tolerance", format!("must be at most {MAX_RATE_TOLERANCE}")));
    }
    Ok(Frame { seed: document.seed.unwrap_or(0), replicates, horizon, fidelity, rate_tolerance })
}

/// The world and the strategies of a document without a sweep.
///
/// # Errors
/// The first thing that has no meaning.
pub(crate) fn resolve(document: &Document, frame: Frame, files: &mut Files) -> Result<(World, Vec<Strategy>), Fault> {
    let calibration = match &document.calibration {
        Some(at) => Calibration::resolve(&at.value, files).map_err(|fault| fault.or_line(at.line).under("calibration"))?,
        None => Calibration::built_in("default").expect("the default calibration is built in"),
    };
    let (racks, rack_blocks) = cluster::racks(document, frame, files)?;
    let rack_names = Names::new("rack", racks.iter().map(|r| r.name.as_str()), &rack_blocks)?;
    let (hosts, host_blocks) = cluster::hosts(document, frame, &calibration, &rack_names, files)?;
    let host_names = Names::new("host", hosts.iter().map(|h| h.name.as_str()), &host_blocks)?;
    if hosts.is_empty() {
        return Err(Fault::at(1, "host", "a scenario needs at least one [[host]]"));
    }
    let guests = cluster::vms(document, frame, &calibration, &hosts, &host_names, files)?;
    let vm_names = Names::new("vm", guests.vms.iter().map(|v| v.name.as_str()), &guests.blocks)?;
    let largest = |vm: &Vm| vm.disk.as_ref().map_or(vm.memory, |disk| disk.size.max(vm.memory));
    let too_large = guests.vms.iter().find(|vm| frame.fidelity == Fidelity::Page && largest(vm) >= Fidelity::LARGEST_PAGED);
    if let Some(vm) = too_large {
        return Err(Fault::at(1, "fidelity", format!("`{}` has 16 TiB or more, which page fidelity does not model", vm.name)));
    }
    let flows = cluster::flows(document, frame, &vm_names, &host_names, files)?;
    if let (Some(_), Some(drain)) = (&document.migrate, &document.drain) {
        return Err(Fault::at(drain.line, "drain", "a scenario has either [migrate] or [drain], not both"));
    }
    let context = plan::Context { frame, hosts: &hosts, host_names: &host_names, guests: &guests, vm_names: &vm_names };
    let drain = document.drain.as_ref().map(|raw| context.drain(raw)).transpose()?;
    let moves = if drain.is_some() { Vec::new() } else { context.moves(document.migrate.as_ref())? };
    let strategies = strategies::resolve(document, context.moving_disk(&moves))?;
    let events = context.events(&document.event, &moves, drain.as_ref(), files)?;
    drop((rack_names, host_names, vm_names));
    let world = World { hosts, racks, vms: guests.vms, flows, moves, drain, events, calibration };
    fitting::check(document, &world, &strategies)?;
    Ok((world, strategies))
}

/// A moment of the plan; it must come before the horizon.
fn moment(at: Span, horizon: Span, line: u32, key: &str) -> Result<Time, Fault> {
    if at >= horizon {
        return Err(Fault::at(
            line,
            key,
            format!("{} is not before the horizon, {}: it would never happen", written_time(at), written_time(horizon)),
        ));
    }
    Ok(Time::ZERO + at)
}
