//! What a scenario means for real guests: which hosts and guests there are, and what happens when.

use super::Options;
use crate::agent::message::Limits;
use crate::error::ExecError;
use crate::guest::GuestSpec;
use crate::net::Net;
use livemig_core::policy::selection;
use livemig_core::units::{Rate, Span, Time};
use livemig_models::world::{Drain, Endpoint, HostId, Incident, Role, ScheduledEvent, Strategy, Traffic, Vm, VmId, World};

/// The name of the host that stands for everything outside of the scenario.
pub(super) const OUTSIDE: &str = "outside";
/// Flows of traffic in a run: each is a thread at either end.
const MOST_FLOWS: usize = 256;

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

/// An end of traffic, by the index of a guest or a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Guest(usize),
    Host(usize),
}

/// Traffic from one end to another.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    /// It is a flow of the scenario's list, and not a guest's own traffic.
    pub(super) listed: bool,
    pub(super) from: End,
    pub(super) to: End,
    /// What is offered; `None` for as much as gets through.
    pub(super) rate: Option<Rate>,
    /// For how long from the first request on its mean is taken.
    pub(super) measured_for: Option<Span>,
}

impl Stream {
    /// A guest's own traffic.
    fn own(guest: &str, way: &str, (from, to): (End, End), rate: Rate) -> Stream {
        Stream { name: format!("{guest} {way}"), listed: false, from, to, rate: Some(rate), measured_for: None }
    }
}

/// Something that goes wrong or changes, by the index of a host, of a migration, of a flow or of a guest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mishap {
    Kill(usize),
    /// The host's cables are pulled.
    Cut(usize),
    /// They are plugged in again.
    Restore(usize),
    Cancel(usize),
    /// A VM is not to be drained any more.
    Withdraw(VmId),
    /// So much is offered by a flow from now on.
    Offer(usize, Rate),
    /// A guest changes its load: it goes to a phase of its specification.
    Load(usize, usize),
}

/// Who takes part.
#[derive(Clone, Debug, Default)]
pub(super) struct Cast {
    pub(super) hosts: Vec<Host>,
    pub(super) guests: Vec<Guest>,
    pub(super) moves: Vec<Move>,
    /// Of each migration the hosts that stage its pages.
    pub(super) via: Vec<Vec<usize>>,
    /// When the drain is requested, if there is one, and the hosts that may stage pages for it.
    pub(super) drain_at: Option<Span>,
    pub(super) drain_via: Vec<usize>,
    /// The hosts that each guest may come to be at, the one where it begins first.
    pub(super) reach: Vec<Vec<usize>>,
    /// Whoever sends pages maps them task by task.
    pub(super) windows: bool,
    /// In the order of time.
    pub(super) mishaps: Vec<(Span, Mishap)>,
    /// Guests' own traffic first, then the scenario's flows.
    pub(super) flows: Vec<Stream>,
    /// The host that stands for everything outside of the scenario, behind those that are in it.
    pub(super) outside: Option<usize>,
}

impl Cast {
    /// The cast of a world.
    ///
    /// # Errors
    /// What real guests cannot do.
    pub(super) fn of(world: &World, strategy: &Strategy, seed: u64, options: &Options) -> Result<Cast, ExecError> {
        let refuse = |what: String| Err(ExecError::Run(format!("real mode: {what}")));
        let drain = world.drain.as_ref();
        let Some(first) = world.moves.iter().map(|m| m.at).chain(drain.map(|drain| drain.at)).min() else {
            return refuse("the scenario has no migration".to_owned());
        };
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
        let mut cast = Cast { windows, ..Cast::default() };
        for (index, vm) in (0..).zip(&world.vms) {
            let (host, seed) = (cast.host(world, vm.host), crate::mix::mix(seed ^ crate::mix::mix(u64::from(index))));
            cast.guests.push(Guest { vm: VmId(index), host, spec: GuestSpec::from_vm(vm, seed)? });
            cast.reach.push(vec![host]);
        }
        // Later times move with the first request.
        let shift = Span(first.0.saturating_sub(options.lead.0));
        let real = |at: Time| Span(at.0.saturating_sub(shift.0));
        for m in &world.moves {
            let (from, to) = (cast.host(world, world.vms[m.vm.0 as usize].host), cast.host(world, m.to));
            cast.moves.push(Move { vm: m.vm, from, to, at: real(m.at) });
            cast.may_be_at(m.vm, to);
            let stages = if strategy.spec.uses_intermediaries() { m.via.as_slice() } else { &[] };
            let via = stages.iter().map(|&host| cast.host(world, host)).collect();
            cast.via.push(via);
        }
        if let Some(drain) = drain {
            cast.drain_at = Some(real(drain.at));
            cast.add_drain(world, drain, strategy.spec.uses_intermediaries());
        }
        cast.add_flows(world, options)?;
        let mut events: Vec<_> = world.events.iter().collect();
        events.sort_by_key(|event| event.at);
        for event in events {
            let mishap = match &event.what {
                Incident::Fail(host) => cast.index(*host).map(Mishap::Kill),
                Incident::Cut(_) | Incident::Restore(_) if options.lab.is_some() => {
                    return refuse("the cables of machines of their own are not ours to pull".to_owned());
                }
                Incident::Cut(_) | Incident::Restore(_) if options.route.is_some() || options.via_route.is_some() => {
                    return refuse("who stands in for the network cannot be cut off".to_owned());
                }
                Incident::Cut(host) => cast.index(*host).map(Mishap::Cut),
                Incident::Restore(host) => cast.index(*host).map(Mishap::Restore),
                Incident::Cancel(vm) => match cast.under_way(*vm, real(event.at)) {
                    Some(index) => Some(Mishap::Cancel(index)),
                    None => drain.map(|_| Mishap::Withdraw(*vm)),
                },
                Incident::Traffic(vm, traffic) => {
                    let offers = cast.offers(*vm, *traffic);
                    cast.mishaps.extend(offers.into_iter().flatten().map(|offer| (real(event.at), offer)));
                    None
                }
                Incident::Workload(vm, workload) => {
                    let guest = vm.0 as usize;
                    Some(Mishap::Load(guest, cast.guests[guest].spec.add_workload(workload)?))
                }
            };
            cast.mishaps.extend(mishap.map(|m| (real(event.at), m)));
        }
        cast.mishaps.sort_by_key(|(at, _)| *at);
        Ok(cast)
    }

    /// Traffic, and the host outside if any of it goes or comes there.
    fn add_flows(&mut self, world: &World, options: &Options) -> Result<(), ExecError> {
        let refuse = |what: String| Err(ExecError::Run(format!("real mode: {what}")));
        for (guest, vm) in world.vms.iter().enumerate() {
            let later = |event: &ScheduledEvent| match event.what {
                Incident::Traffic(changed, traffic) if changed.0 as usize == guest => Some(traffic),
                _ => None,
            };
            let ever: Vec<Traffic> = std::iter::once(vm.traffic).chain(world.events.iter().filter_map(later)).collect();
            let inside = End::Guest(guest);
            if ever.iter().any(|traffic| traffic.tx > Rate::ZERO) {
                let outside = End::Host(self.outside(world));
                self.flows.push(Stream::own(&vm.name, "tx", (inside, outside), vm.traffic.tx));
            }
            if ever.iter().any(|traffic| traffic.rx > Rate::ZERO) {
                let outside = End::Host(self.outside(world));
                self.flows.push(Stream::own(&vm.name, "rx", (outside, inside), vm.traffic.rx));
            }
        }
        for flow in &world.flows {
            if flow.weight != 1.0 {
                return refuse(format!("flow `{}`: it is one TCP connection and has a weight of 1", flow.name));
            }
            if options.net == Net::Loopback && flow.rate.is_none() {
                return refuse(format!(
                    "flow `{}`: without a rate it would take all of loopback; hosts in namespaces have NICs",
                    flow.name
                ));
            }
            let (from, to) = (self.end(world, flow.from), self.end(world, flow.to));
            let (name, rate, measured_for) = (flow.name.clone(), flow.rate, flow.measured_for);
            self.flows.push(Stream { name, listed: true, from, to, rate, measured_for });
        }
        if self.flows.len() > MOST_FLOWS {
            return refuse(format!("{} flows of traffic, where {MOST_FLOWS} is the most", self.flows.len()));
        }
        Ok(())
    }

    /// What changes when a guest's own traffic does.
    fn offers(&self, vm: VmId, traffic: Traffic) -> [Option<Mishap>; 2] {
        let inside = End::Guest(vm.0 as usize);
        let own = |of: fn(&Stream) -> End| self.flows.iter().position(|flow| !flow.listed && of(flow) == inside);
        let offer = |flow: Option<usize>, rate| flow.map(|flow| Mishap::Offer(flow, rate));
        [offer(own(|flow| flow.from), traffic.tx), offer(own(|flow| flow.to), traffic.rx)]
    }

    fn end(&mut self, world: &World, end: Endpoint) -> End {
        match end {
            Endpoint::Vm(vm) => End::Guest(vm.0 as usize),
            Endpoint::Host(host) => End::Host(self.host(world, host)),
            Endpoint::Outside => End::Host(self.outside(world)),
        }
    }

    /// The index of the host outside, which is made part of the cast if it was not.
    fn outside(&mut self, world: &World) -> usize {
        *self.outside.get_or_insert_with(|| {
            let id = HostId(u32::try_from(world.hosts.len()).unwrap_or(u32::MAX));
            self.hosts.push(Host { id, name: OUTSIDE.to_owned(), limits: Limits::default() });
            self.hosts.len() - 1
        })
    }

    /// Whether traffic may come to a host.
    pub(super) fn is_reached_by_traffic(&self, host: usize) -> bool {
        self.flows.iter().any(|flow| match flow.to {
            End::Host(to) => to == host,
            End::Guest(guest) => self.reach[guest].contains(&host),
        })
    }

    /// An end by the scenario's numbers.
    pub(super) fn counted(&self, end: End) -> selection::End {
        match end {
            End::Guest(guest) => selection::End::Guest(self.guests[guest].vm.0),
            End::Host(host) if self.outside == Some(host) => selection::End::Outside,
            End::Host(host) => selection::End::Host(self.hosts[host].id.0),
        }
    }

    /// The hosts that a guest is at, now or later.
    pub(super) fn hosts_of(&self, guest: usize) -> &[usize] {
        &self.reach[guest]
    }

    fn may_be_at(&mut self, vm: VmId, host: usize) {
        let reach = &mut self.reach[vm.0 as usize];
        if !reach.contains(&host) {
            reach.push(host);
        }
    }

    /// Whether guests may come to a host.
    pub(super) fn takes_in(&self, host: usize) -> bool {
        self.reach.iter().any(|reach| reach[1..].contains(&host)) || self.moves.iter().any(|m| m.to == host)
    }

    /// Whether a host may have to stage pages.
    pub(super) fn stages(&self, host: usize) -> bool {
        self.drain_via.contains(&host) || self.via.iter().any(|via| via.contains(&host))
    }

    /// The hosts that a drain may use.
    fn add_drain(&mut self, world: &World, drain: &Drain, uses_intermediaries: bool) {
        if uses_intermediaries {
            self.drain_via = drain.via.iter().map(|&host| self.host(world, host)).collect();
        }
        // Drained hosts that take guests before their turn, or afterwards.
        let back = if drain.onto_waiting || drain.returns_after.is_some() { drain.hosts.as_slice() } else { &[] };
        let leaving = |vm: &&(usize, &Vm)| drain.hosts.contains(&vm.1.host);
        for (index, _) in world.vms.iter().enumerate().collect::<Vec<_>>().iter().filter(leaving) {
            let vm = VmId(*index as u32);
            let given = drain.given.iter().filter(|(given, _)| *given == vm).map(|(_, to)| to);
            for &host in drain.candidates.iter().chain(back).chain(given) {
                let host = self.host(world, host);
                self.may_be_at(vm, host);
            }
        }
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
