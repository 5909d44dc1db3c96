//! Racks, hosts, guests and flows.

use super::plan::{MAX_VIA, MAX_VIA_TOTAL};
use super::{CORES, Frame, workload};
use crate::calibration::Calibration;
use crate::scenario::error::Fault;
use crate::scenario::files::Files;
use crate::scenario::fleet::Fleet;
use crate::scenario::names::{Blocks, Names};
use crate::scenario::quantity::{Count, Fraction, Quantity, written_size};
use crate::scenario::raw::{self, Document};
use crate::scenario::value::{At, Member, Text, Value};
use crate::world::{Content, Disk, Endpoint, Flow, Host, HostId, Nic, Rack, Role, Traffic, Vm, VmId, Workload};
use livemig_core::units::{Bytes, Rate, Span};
use std::collections::BTreeMap;

/// Largest guest: 2^50 bytes.
const MAX_MEMORY: Bytes = Bytes(1 << 50);
/// Largest sum of all guests' memory, so that sums cannot overflow.
const MAX_TOTAL: u128 = 1 << 62;

/// The value of an optional key.
fn optional<Q: Quantity>(value: Option<&Value<Q>>, member: &Member<'_>, key: &str) -> Result<Option<Q>, Fault> {
    value.map(|v| v.get(member, key)).transpose()
}

/// A rate that has to be above zero.
fn above_zero(value: &Value<Rate>, member: &Member<'_>, key: &str) -> Result<Rate, Fault> {
    let rate = value.get(member, key)?;
    if rate.0 > 0.0 { Ok(rate) } else { Err(member.fault(value.line, key, "the rate must be above zero")) }
}

pub(super) fn racks(document: &Document, frame: Frame, files: &mut Files) -> Result<(Vec<Rack>, Blocks), Fault> {
    let (mut racks, mut blocks) = (Vec::new(), Blocks::default());
    for raw in &document.rack {
        let made = racks.len();
        blocks.begin(made, raw.name.line);
        let fleet = Fleet { kind: "rack", count: raw.count.as_ref(), table: raw.table.as_ref(), name: &raw.name, seed: frame.seed };
        fleet.members(files, made, |member, _| {
            let uplink = raw.uplink.as_ref().map(|v| above_zero(v, member, "rack.uplink")).transpose()?;
            racks.push(Rack { name: member.name.to_owned(), uplink });
            Ok(())
        })?;
    }
    Ok((racks, blocks))
}

pub(super) fn hosts(
    document: &Document,
    frame: Frame,
    calibration: &Calibration,
    racks: &Names<'_>,
    files: &mut Files,
) -> Result<(Vec<Host>, Blocks), Fault> {
    let (mut hosts, mut blocks) = (Vec::new(), Blocks::default());
    for raw in &document.host {
        let made = hosts.len();
        blocks.begin(made, raw.name.line);
        if raw.nics.value.is_empty() {
            return Err(Fault::at(raw.nics.line, "host.nics", "a host needs at least one NIC, such as [{ rate = \"1 Gbit/s\" }]"));
        }
        let fleet = Fleet { kind: "host", count: raw.count.as_ref(), table: raw.table.as_ref(), name: &raw.name, seed: frame.seed };
        fleet.members(files, made, |member, _| {
            hosts.push(host(raw, member, calibration, racks)?);
            Ok(())
        })?;
    }
    Ok((hosts, blocks))
}

fn host(raw: &raw::Host, member: &Member<'_>, calibration: &Calibration, racks: &Names<'_>) -> Result<Host, Fault> {
    let cores = optional(raw.cores.as_ref(), member, "host.cores")?.map_or(CORES, |Count(n)| n);
    if let (0, Some(value)) = (cores, &raw.cores) {
        return Err(member.fault(value.line, "host.cores", "a host needs at least one core"));
    }
    let positive = |value: &Option<Value<Rate>>, key| value.as_ref().map(|v| above_zero(v, member, key)).transpose();
    Ok(Host {
        name: member.name.to_owned(),
        role: match raw.role {
            None | Some(raw::Role::Host) => Role::Host,
            Some(raw::Role::Intermediary) => Role::Intermediary,
            Some(raw::Role::Staging) => Role::Staging,
        },
        rack: raw.rack.as_ref().map(|text| reference(text, member, "host.rack", racks)).transpose()?,
        nics: raw.nics.value.iter().enumerate().map(|(n, nic)| self::nic(nic, n, member, calibration)).collect::<Result<_, _>>()?,
        cores,
        memory: optional(raw.memory.as_ref(), member, "host.memory")?,
        reception: positive(&raw.reception, "host.reception")?,
        swap: positive(&raw.swap, "host.swap")?.unwrap_or(calibration.swap),
        service: positive(&raw.service, "host.service")?,
        storage: positive(&raw.storage, "host.storage")?,
    })
}

fn nic(raw: &raw::Nic, number: usize, member: &Member<'_>, calibration: &Calibration) -> Result<Nic, Fault> {
    // The number makes the NICs of a host draw different values.
    let key = |key| format!("host.nics[{number}].{key}");
    let rate = above_zero(&raw.rate, member, &key("rate"))?;
    let goodput = optional(raw.goodput.as_ref(), member, &key("goodput"))?.map_or(calibration.goodput, |f| f.0);
    if let (true, Some(value)) = (goodput <= 0.0, &raw.goodput) {
        return Err(member.fault(value.line, &key("goodput"), "must be above 0, at most 1"));
    }
    Ok(Nic { rate, goodput })
}

/// The number of the thing that a text names.
fn reference(text: &Text, member: &Member<'_>, key: &str, names: &Names<'_>) -> Result<u32, Fault> {
    let mut name = String::new();
    text.put(member, key, &mut name)?;
    names.find(&name).map_err(|problem| member.fault(text.line, key, &problem))
}

/// The number of a host that can run guests.
fn running_host(text: &Text, member: &Member<'_>, key: &str, names: &Names<'_>, hosts: &[Host]) -> Result<HostId, Fault> {
    let number = reference(text, member, key, names)?;
    let host = &hosts[number as usize];
    if host.role != Role::Host {
        let problem = format!("`{}` does not run guests: its role is not `host`", host.name);
        return Err(member.fault(text.line, key, &problem));
    }
    Ok(HostId(number))
}

/// A guest's own intermediaries.
#[derive(Debug)]
pub(super) enum OwnVia {
    /// As many as it needs.
    Chosen,
    /// These.
    Hosts(Vec<HostId>),
}

fn own_via(via: &At<raw::Via<Text>>, member: &Member<'_>, names: &Names<'_>) -> Result<OwnVia, Fault> {
    let raw::Via::Hosts(list) = &via.value else { return Ok(OwnVia::Chosen) };
    if list.len() > MAX_VIA {
        return Err(member.fault(via.line, "vm.via", &format!("at most {MAX_VIA} intermediaries")));
    }
    let mut hosts = Vec::with_capacity(list.len());
    for text in list {
        let host = HostId(reference(text, member, "vm.via", names)?);
        if hosts.contains(&host) {
            return Err(member.fault(text.line, "vm.via", &format!("`{}` is there twice", text.get(member, "vm.via")?)));
        }
        hosts.push(host);
    }
    Ok(OwnVia::Hosts(hosts))
}

/// The guests and their own destinations.
#[derive(Debug, Default)]
pub(super) struct Guests {
    pub(super) vms: Vec<Vm>,
    /// Destination of each guest; empty when none has its own.
    pub(super) to: Vec<Option<HostId>>,
    /// The hosts that stage the pages of each guest; empty when none has its own.
    pub(super) via: Vec<Option<OwnVia>>,
    pub(super) blocks: Blocks,
}

pub(super) fn vms(
    document: &Document,
    frame: Frame,
    calibration: &Calibration,
    hosts: &[Host],
    names: &Names<'_>,
    files: &mut Files,
) -> Result<Guests, Fault> {
    let mut guests = Guests::default();
    let any_to = document.vm.iter().any(|raw| raw.to.is_some());
    let any_via = document.vm.iter().any(|raw| raw.via.is_some());
    let (mut total, mut total_via) = (0_u128, 0);
    let mut groups = Groups::new();
    for raw in &document.vm {
        let made = guests.vms.len();
        guests.blocks.begin(made, raw.name.line);
        let fleet = Fleet { kind: "vm", count: raw.count.as_ref(), table: raw.table.as_ref(), name: &raw.name, seed: frame.seed };
        let (vms, destinations, vias) = (&mut guests.vms, &mut guests.to, &mut guests.via);
        fleet.members(files, made, |member, files| {
            let host = running_host(&raw.host, member, "vm.host", names, hosts)?;
            if any_to {
                let to = raw.to.as_ref().map(|text| running_host(text, member, "vm.to", names, hosts)).transpose()?;
                if let (true, Some(text)) = (to == Some(host), &raw.to) {
                    let problem =
                        format!("the VM is on `{}` already; its destination must be another host", hosts[host.0 as usize].name);
                    return Err(member.fault(text.line, "vm.to", &problem));
                }
                destinations.push(to);
            }
            if any_via {
                let via = raw.via.as_ref().map(|via| own_via(via, member, names)).transpose()?;
                if let (Some(raw), Some(OwnVia::Hosts(list))) = (&raw.via, &via) {
                    total_via += list.len();
                    if total_via > MAX_VIA_TOTAL {
                        let problem = format!("all VMs together have more than {MAX_VIA_TOTAL} intermediaries; choose fewer");
                        return Err(member.fault(raw.line, "vm.via", &problem));
                    }
                }
                vias.push(via);
            }
            let vm = vm(raw, member, host, calibration, &mut groups, files)?;
            total += u128::from(vm.memory.0) + vm.disk.as_ref().map_or(0, |disk| u128::from(disk.size.0));
            if total > MAX_TOTAL {
                return Err(member.fault(raw.memory.line, "vm.memory", "all VMs together have more than 2^62 bytes"));
            }
            vms.push(vm);
            Ok(())
        })?;
    }
    Ok(guests)
}

/// Numbers of groups of VMs with common contents, by name.
type Groups = BTreeMap<String, u32>;

fn content(raw: &raw::Content, member: &Member<'_>, groups: &mut Groups) -> Result<Content, Fault> {
    let shared = raw.shared.get(member, "vm.content.shared")?.0;
    let mut name = String::new();
    if let Some(text) = &raw.group {
        text.put(member, "vm.content.group", &mut name)?;
    }
    let next = u32::try_from(groups.len()).expect("there are no more groups than VMs");
    Ok(Content { shared, group: *groups.entry(name).or_insert(next) })
}

fn vm(
    raw: &raw::Vm,
    member: &Member<'_>,
    host: HostId,
    calibration: &Calibration,
    groups: &mut Groups,
    files: &mut Files,
) -> Result<Vm, Fault> {
    let memory = raw.memory.get(member, "vm.memory")?;
    if memory.is_zero() || memory > MAX_MEMORY {
        let problem = format!("a VM has from 1 B to 1 PiB of memory, not {}", written_size(memory));
        return Err(member.fault(raw.memory.line, "vm.memory", &problem));
    }
    let vcpus = optional(raw.vcpus.as_ref(), member, "vm.vcpus")?.map_or(1, |Count(n)| n);
    if let (0, Some(value)) = (vcpus, &raw.vcpus) {
        return Err(member.fault(value.line, "vm.vcpus", "a VM needs at least one vCPU"));
    }
    let workload = match &raw.workload {
        Some(raw) => workload::resolve(raw, member, "vm.workload", memory, files)?,
        None => Workload::Idle,
    };
    Ok(Vm {
        name: member.name.to_owned(),
        host,
        memory,
        vcpus,
        workload,
        traffic: raw.traffic.as_ref().map_or(Ok(Traffic::default()), |raw| traffic(raw, member, "vm.traffic"))?,
        zero_share: optional(raw.zero.as_ref(), member, "vm.zero")?.map_or(0.0, |f| f.0),
        compressed: compressed(raw.compressed.as_ref(), member, "vm.compressed", calibration)?,
        content: raw.content.as_ref().map(|raw| content(raw, member, groups)).transpose()?,
        disk: raw.disk.as_ref().map(|at| disk(at, member, calibration, files).map(Box::new)).transpose()?,
    })
}

fn compressed(value: Option<&Value<Fraction>>, member: &Member<'_>, key: &str, calibration: &Calibration) -> Result<f64, Fault> {
    let Some(value) = value else { return Ok(calibration.compressed) };
    let Fraction(share) = value.get(member, key)?;
    if share > 0.0 { Ok(share) } else { Err(member.fault(value.line, key, "must be above 0, at most 1")) }
}

fn disk(
    At { line, value: raw }: &At<raw::Disk>,
    member: &Member<'_>,
    calibration: &Calibration,
    files: &mut Files,
) -> Result<Disk, Fault> {
    let size = raw.size.get(member, "vm.disk.size")?;
    if size.is_zero() || size > MAX_MEMORY {
        let problem = format!("a disk has from 1 B to 1 PiB, not {}", written_size(size));
        return Err(member.fault(raw.size.line, "vm.disk.size", &problem));
    }
    let workload = match &raw.workload {
        Some(raw) => workload::of_disk(raw, member, "vm.disk.workload", size, files, *line)?,
        None => Workload::Idle,
    };
    let zero_share = optional(raw.zero.as_ref(), member, "vm.disk.zero")?.map_or(0.0, |f| f.0);
    let compressed = compressed(raw.compressed.as_ref(), member, "vm.disk.compressed", calibration)?;
    Ok(Disk { size, workload, zero_share, compressed })
}

pub(super) fn traffic(raw: &raw::Traffic, member: &Member<'_>, key: &str) -> Result<Traffic, Fault> {
    let rate = |value: &Option<Value<Rate>>, end| match value {
        Some(value) => value.get_under(member, key, end),
        None => Ok(Rate::ZERO),
    };
    Ok(Traffic { tx: rate(&raw.tx, "tx")?, rx: rate(&raw.rx, "rx")? })
}

pub(super) fn flows(
    document: &Document,
    frame: Frame,
    vms: &Names<'_>,
    hosts: &Names<'_>,
    files: &mut Files,
) -> Result<Vec<Flow>, Fault> {
    let (mut flows, mut blocks) = (Vec::new(), Blocks::default());
    for raw in &document.flow {
        let made = flows.len();
        blocks.begin(made, raw.name.line);
        let fleet = Fleet { kind: "flow", count: raw.count.as_ref(), table: raw.table.as_ref(), name: &raw.name, seed: frame.seed };
        fleet.members(files, made, |member, _| {
            let from = endpoint(&raw.from, member, "flow.from", vms, hosts)?;
            let to = endpoint(&raw.to, member, "flow.to", vms, hosts)?;
            if from == to {
                return Err(member.fault(raw.to.line, "flow.to", "both ends of the flow are the same"));
            }
            let rate = optional(raw.rate.as_ref(), member, "flow.rate")?;
            let weight = optional(raw.weight.as_ref(), member, "flow.weight")?.map_or(1.0, |w| w.0);
            let measured_for = optional(raw.measured_for.as_ref(), member, "flow.measured_for")?;
            if let Some(value) = raw.measured_for.as_ref().filter(|_| measured_for == Some(Span::ZERO)) {
                return Err(member.fault(value.line, "flow.measured_for", "the time must be above zero"));
            }
            flows.push(Flow { name: member.name.to_owned(), from, to, rate, weight, measured_for });
            Ok(())
        })?;
    }
    Names::new("flow", flows.iter().map(|f| f.name.as_str()), &blocks)?;
    Ok(flows)
}

/// An end of a flow: `vm:NAME`, `host:NAME`, `outside`, or the name of a VM or host where only one of them has it.
fn endpoint(text: &Text, member: &Member<'_>, key: &str, vms: &Names<'_>, hosts: &Names<'_>) -> Result<Endpoint, Fault> {
    let name = text.get(member, key)?;
    let fault = |problem: String| member.fault(text.line, key, &problem);
    let vm = |name: &str| vms.find(name).map(|n| Endpoint::Vm(VmId(n)));
    let host = |name: &str| hosts.find(name).map(|n| Endpoint::Host(HostId(n)));
    if let Some(name) = name.strip_prefix("vm:") {
        return vm(name).map_err(fault);
    }
    if let Some(name) = name.strip_prefix("host:") {
        return host(name).map_err(fault);
    }
    match (vms.get(&name), hosts.get(&name)) {
        (Some(_), Some(_)) => Err(fault(format!("`{name}` is a VM and a host; write `vm:{name}` or `host:{name}`"))),
        (Some(n), None) => Ok(Endpoint::Vm(VmId(n))),
        (None, Some(n)) => Ok(Endpoint::Host(HostId(n))),
        (None, None) if name == "outside" => Ok(Endpoint::Outside),
        (None, None) => Err(fault(format!("there is no VM and no host `{name}`; allowed: a VM, a host, outside"))),
    }
}
