//! A drain as a scenario asks for it.

use super::{HostId, VmId, World, intermediaries};
use livemig_core::drain::{self, Fate, HostIndex, HostReport, Limits, PlannedVm, Report, Whole};
use livemig_core::policy::order::Order;
use livemig_core::policy::placement::Placement;
use livemig_core::units::{Rate, Span, Time};

/// Hosts to empty. Each list names a host at most once.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// The hosts, in the order of their turns.
    pub hosts: Vec<HostId>,
    /// When the drain is requested.
    pub at: Time,
    /// The hosts that guests may be placed on, in the order in which first fit tries them.
    pub candidates: Vec<HostId>,
    /// Where certain guests must go, by VM.
    pub given: Vec<(VmId, HostId)>,
    /// Hosts whose own turn is still to come may be destinations too; their guests then move again.
    pub onto_waiting: bool,
    /// How long after its last guest was evicted a host takes guests again; `None` for never.
    pub returns_after: Option<Span>,
    /// In which order the guests of a host leave.
    pub order: Order,
    /// How a destination is chosen.
    pub placement: Placement,
    /// How much may go on at once.
    pub limits: Limits,
    /// How often a migration that failed is made again.
    pub retries: u8,
    /// Limit of what the migrations from one host send, shared equally by those under way.
    pub rate_per_host: Option<Rate>,
    /// The hosts that stage pages for every migration.
    pub via: Vec<HostId>,
    /// Of these, each migration uses as many as it needs ([`super::intermediaries`]).
    pub via_is_chosen: bool,
}

impl Drain {
    /// Of the hosts that may stage pages, those that do so for this VM, which is on `source`.
    #[must_use]
    pub fn stages(&self, world: &World, vm: VmId, source: HostId) -> Vec<HostId> {
        let all = self.via.clone();
        if self.via_is_chosen { intermediaries(&world.hosts, source, world.vms[vm.0 as usize].memory, all) } else { all }
    }

    /// What the drain of `world` is told; VMs and hosts have the same numbers there.
    #[must_use]
    pub fn plan(&self, world: &World) -> drain::Plan {
        let index = |hosts: &[HostId]| hosts.iter().map(|h| HostIndex(h.0)).collect::<Vec<_>>();
        let planned = world.vms.iter().map(|vm| PlannedVm { host: HostIndex(vm.host.0), memory: vm.memory, to: None });
        let mut vms: Vec<PlannedVm> = planned.collect();
        for (vm, to) in &self.given {
            vms[vm.0 as usize].to = Some(HostIndex(to.0));
        }
        drain::Plan {
            hosts: world.hosts.iter().map(|h| h.memory).collect(),
            vms,
            drained: index(&self.hosts),
            candidates: index(&self.candidates),
            onto_waiting: self.onto_waiting,
            returns: self.returns_after.is_some(),
            order: self.order,
            placement: self.placement,
            limits: self.limits,
            retries: self.retries,
            rate_per_host: self.rate_per_host,
            strategy: 0,
            via: index(&self.via).into(),
        }
    }
}

/// What came of a drain. Hosts and VMs have the numbers that they have in the world.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrainResult {
    /// The drain as a whole.
    pub whole: Whole,
    /// One entry per host to be drained, in the order in which their turns ended.
    pub hosts: Vec<HostReport>,
    /// The VMs that did not leave, or not well, in the order in which that was clear. Those that never had a place have no migration.
    pub not_moved: Vec<NotMoved>,
}

/// A VM that did not leave a host that was to be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMoved {
    /// The VM.
    pub vm: VmId,
    /// The host.
    pub host: HostId,
    /// Why.
    pub fate: Fate,
}

impl DrainResult {
    /// Takes down what the drain reports.
    pub fn note(&mut self, report: Report) {
        match report {
            Report::Vm { fate: Fate::Moved { .. }, .. } => {}
            Report::Vm { vm, host, fate } => self.not_moved.push(NotMoved { vm: VmId(vm.0), host: HostId(host.0), fate }),
            Report::Host(report) => self.hosts.push(report),
        }
    }
}
