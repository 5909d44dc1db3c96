//! What a drain is to do.

use crate::policy::order::Order;
use crate::policy::placement::Placement;
use crate::units::{Bytes, Rate};
use std::sync::Arc;

/// A host, by its place in [`Plan::hosts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostIndex(pub u32);

/// A VM, by its place in [`Plan::vms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmIndex(pub u32);

/// A VM as a drain sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedVm {
    /// Where it runs when the drain is requested.
    pub host: HostIndex,
    /// Its memory; above zero.
    pub memory: Bytes,
    /// Where it must go; `None` leaves that to [`Plan::placement`].
    pub to: Option<HostIndex>,
}

/// How much may go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Migrations from one host, each until its source is released; at least 1.
    pub per_host: u32,
    /// Migrations to one host, each until it is over; at least 1.
    pub per_destination: Option<u32>,
    /// Migrations in all, each until it is over; at least 1.
    pub per_cluster: Option<u32>,
    /// Hosts that are being drained or, if hosts return ([`Plan::returns`]), were drained and are not yet back; at least 1.
    pub hosts_at_once: Option<u32>,
}

impl Default for Limits {
    /// One migration from a host at a time, and no other limit.
    fn default() -> Limits {
        Limits { per_host: 1, per_destination: None, per_cluster: None, hosts_at_once: None }
    }
}

/// What a drain is to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Memory for guests of every host, of which what its guests take is not free; `None` for no limit.
    pub hosts: Vec<Option<Bytes>>,
    /// Every VM, also those on hosts that are not drained: they take room.
    pub vms: Vec<PlannedVm>,
    /// The hosts to drain, in the order of their turns.
    pub drained: Vec<HostIndex>,
    /// The hosts that guests may be placed on, in the order in which first fit tries them.
    pub candidates: Vec<HostIndex>,
    /// Hosts whose own turn is still to come may be destinations too, where no other candidate has room: those drained last first. Their
    /// guests then move again.
    pub onto_waiting: bool,
    /// A host that was drained comes back into service, which the driver tells with [`super::HostState::Returned`].
    pub returns: bool,
    /// In which order the guests of a host leave.
    pub order: Order,
    /// How a destination is chosen.
    pub placement: Placement,
    /// How much may go on at once.
    pub limits: Limits,
    /// How often a migration that failed and left its VM at the source is made again; at most [`Plan::MOST_RETRIES`].
    pub retries: u8,
    /// Limit of what the migrations from one host send, shared equally by those under way.
    pub rate_per_host: Option<Rate>,
    /// The strategy that migrates, by the driver's number.
    pub strategy: u16,
    /// The hosts that stage pages for every migration.
    pub via: Arc<[HostIndex]>,
}

/// Why a plan makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no such host.
    #[error("host {} does not exist", .0.0)]
    NoSuchHost(HostIndex),
    /// A host stands twice among those to drain or among the candidates.
    #[error("host {} is listed twice", .0.0)]
    Twice(HostIndex),
    /// A limit that lets nothing happen.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// More retries than are counted.
    #[error("`retries` must be at most {}", Plan::MOST_RETRIES)]
    TooManyRetries,
    /// A VM without memory.
    #[error("VM {} has no memory", .0.0)]
    NoMemory(VmIndex),
    /// A VM that is to go where it is.
    #[error("VM {} is to go to the host where it is", .0.0)]
    AlreadyThere(VmIndex),
    /// A rate that is not above zero.
    #[error("`rate_per_host` must be above zero")]
    NoRate,
    /// More than 2^32 - 1 of them.
    #[error("too many hosts or VMs")]
    TooMany,
}

impl Plan {
    /// The most retries.
    pub const MOST_RETRIES: u8 = 100;

    /// Checks that everything named exists, once, and that something can happen.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PlanError> {
        if u32::try_from(self.hosts.len()).is_err() || u32::try_from(self.vms.len()).is_err() {
            return Err(PlanError::TooMany);
        }
        let limits = self.limits;
        let zero = |limit: Option<u32>| limit == Some(0);
        match () {
            () if limits.per_host == 0 => return Err(PlanError::Zero("per_host")),
            () if zero(limits.per_destination) => return Err(PlanError::Zero("per_destination")),
            () if zero(limits.per_cluster) => return Err(PlanError::Zero("per_cluster")),
            () if zero(limits.hosts_at_once) => return Err(PlanError::Zero("hosts_at_once")),
            () if self.retries > Plan::MOST_RETRIES => return Err(PlanError::TooManyRetries),
            () if self.rate_per_host.is_some_and(|r| r.0 <= 0.0) => return Err(PlanError::NoRate),
            () => {}
        }
        for list in [&self.drained, &self.candidates] {
            self.check_hosts(list)?;
        }
        for (i, vm) in self.vms.iter().enumerate() {
            let index = VmIndex(i as u32);
            self.check_host(vm.host)?;
            vm.to.map_or(Ok(()), |to| self.check_host(to))?;
            if vm.memory.is_zero() {
                return Err(PlanError::NoMemory(index));
            }
            if vm.to == Some(vm.host) {
                return Err(PlanError::AlreadyThere(index));
            }
        }
        self.via.iter().try_for_each(|&host| self.check_host(host))
    }

    fn check_hosts(&self, list: &[HostIndex]) -> Result<(), PlanError> {
        let mut seen = vec![false; self.hosts.len()];
        for &host in list {
            self.check_host(host)?;
            if std::mem::replace(&mut seen[host.0 as usize], true) {
                return Err(PlanError::Twice(host));
            }
        }
        Ok(())
    }

    fn check_host(&self, host: HostIndex) -> Result<(), PlanError> {
        if (host.0 as usize) < self.hosts.len() { Ok(()) } else { Err(PlanError::NoSuchHost(host)) }
    }
}
