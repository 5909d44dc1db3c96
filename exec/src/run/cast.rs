//! What a scenario means for real guests: which hosts and guests there are, and what happens when.

use super::Options;
use crate::agent::message::Limits;
use crate::error::ExecError;
use crate::guest::GuestSpec;
use crate::net::Net;
use livemig_core::units::{Span, Time};
use livemig_models::world::{HostId, Incident, Role, Strategy, VmId, World};

/// A host with an agent of its own.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) name: String,
    pub(super) limits: Limits,
}

/// A guest.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) vm: VmId,
    /// Index of its host.
    pub(super) host: usize,
    pub(super) spec: GuestSpec,
}

/// A migration, its times counted from the moment at which every guest runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) vm: VmId,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) at: Span,
}

/// Something that goes wrong, by the index of a host or of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    Kill(usize),
    /// The host's cables are pulled.
    Cut(usize),
    /// They are plugged in again.
    Restore(usize),
    Cancel(usize),
}

/// Who takes part.
#[derive(Clone, Debug)]
pub(super) struct Cast {
    pub(super) hosts: Vec<Host>,
    pub(super) guests: Vec<Guest>,
    pub(super) moves: Vec<Move>,
    /// Of each migration the hosts that stage its pages.
    pub(super) via: Vec<Vec<usize>>,
    /// Whoever sends pages maps them task by task.
    pub(super) windows: bool,
    /// In the order of time.
    pub(super) mishaps: Vec<(Span, Mishap)>,
}

impl Cast {
    /// The cast of a world.
    ///
    /// # Errors
    /// What real guests cannot do.
    pub(super) fn of(world: &World, strategy: &Strategy, seed: u64, options: &Options) -> Result<Cast, ExecError> {
        let refuse = |what: String| Err(ExecError::Run(format!("real mode: {what}")));
        if world.drain.is_some() {
            return refuse("a drain is simulated only; migrate its VMs one by one with [migrate]".to_owned());
        }
        let Some(first) = world.moves.iter().map(|m| m.at).min() else {
            return refuse("the scenario has no migration".to_owned());
        };
        if strategy.spec.selection.is_some() {
            return refuse(format!("strategy `{}`: a selection by traffic is simulated only", strategy.name));
        }
        if strategy.spec.transfer.dedup {
            return refuse(format!("strategy `{}`: deduplication is simulated only", strategy.name));
        }
        let channels = strategy.spec.transfer.channels;
        if options.net == Net::Loopback && channels.nics.is_some_and(|nics| nics > 1) {
            return refuse(format!("strategy `{}`: loopback is one interface; hosts in namespaces have several", strategy.name));
        }
        if channels.threads.is_some_and(|t| t != strategy.spec.transfer.streams) {
            return refuse(format!("strategy `{}`: there is one thread per stream", strategy.name));
        }
        if channels.pipeline {
            return refuse(format!("strategy `{}`: a page goes through all stages on one thread", strategy.name));
        }
        if channels.encrypt && !options.lab.as_ref().is_some_and(|lab| lab.security.is_tls()) {
            let what = "pages are encrypted between agents that stand somewhere, with TLS; between others nothing is";
            return refuse(format!("strategy `{}`: {what}", strategy.name));
        }
        if let Some(m) = world.moves.iter().find(|m| world.vms[m.vm.0 as usize].disk.is_some()) {
            return refuse(format!("VM `{}`: disks are simulated only", world.vms[m.vm.0 as usize].name));
        }
        // With range locks nobody waits for another's mapping, which memory that is mapped once comes to; without, the kernel's lock of
        // the address space is what threads with tasks of their own compete for.
        let windows = channels.tasks.is_some() && strategy.spec.transfer.streams > 1 && !channels.range_lock;
        let mut cast =
            Cast { hosts: Vec::new(), guests: Vec::new(), moves: Vec::new(), via: Vec::new(), windows, mishaps: Vec::new() };
        for (index, vm) in (0..).zip(&world.vms) {
            let (host, seed) = (cast.host(world, vm.host), crate::mix::mix(seed ^ crate::mix::mix(u64::from(index))));
            cast.guests.push(Guest { vm: VmId(index), host, spec: GuestSpec::from_vm(vm, seed)? });
        }
        // Later times move with the first request.
        let shift = Span(first.0.saturating_sub(options.lead.0));
        let real = |at: Time| Span(at.0.saturating_sub(shift.0));
        for m in &world.moves {
            let (from, to) = (cast.host(world, world.vms[m.vm.0 as usize].host), cast.host(world, m.to));
            cast.moves.push(Move { vm: m.vm, from, to, at: real(m.at) });
            let stages = if strategy.spec.uses_intermediaries() { m.via.as_slice() } else { &[] };
            let via = stages.iter().map(|&host| cast.host(world, host)).collect();
            cast.via.push(via);
        }
        for event in &world.events {
            let mishap = match &event.what {
                Incident::Fail(host) => cast.index(*host).map(Mishap::Kill),
                Incident::Cut(_) | Incident::Restore(_) if options.net == Net::Loopback => {
                    return refuse("loopback cannot be cut; hosts in namespaces can be cut off".to_owned());
                }
                Incident::Cut(host) => cast.index(*host).map(Mishap::Cut),
                Incident::Restore(host) => cast.index(*host).map(Mishap::Restore),
                Incident::Cancel(vm) => cast.under_way(*vm, real(event.at)).map(Mishap::Cancel),
                Incident::Workload(..) | Incident::Traffic(..) => {
                    return refuse("the load of a guest changes with its workload's phases, not by an [[event]]".to_owned());
                }
            };
            cast.mishaps.extend(mishap.map(|m| (real(event.at), m)));
        }
        cast.mishaps.sort_by_key(|(at, _)| *at);
        Ok(cast)
    }

    /// The index of the migration of a VM that was requested last.
    fn under_way(&self, vm: VmId, at: Span) -> Option<usize> {
        self.moves.iter().rposition(|m| m.vm == vm && m.at <= at)
    }

    /// The index of a host that takes part.
    pub(super) fn index(&self, id: HostId) -> Option<usize> {
        self.hosts.iter().position(|h| h.id == id)
    }

    /// The index of a host, which is made part of the cast if it was not.
    fn host(&mut self, world: &World, id: HostId) -> usize {
        self.index(id).unwrap_or_else(|| {
            let host = &world.hosts[id.0 as usize];
            let limits = Limits {
                room: host.memory,
                // The memory of a host for guests is none for pages of others, of which it takes what comes.
                stage: host.memory.filter(|_| host.role != Role::Host),
                reception: host.reception,
                service: host.service,
            };
            self.hosts.push(Host { id, name: host.name.clone(), limits });
            self.hosts.len() - 1
        })
    }
}
