//! Drains.

use super::moment;
use super::plan::Context;
use crate::scenario::error::Fault;
use crate::scenario::quantity::written_time;
use crate::scenario::raw::{self, Names};
use crate::scenario::value::At;
use crate::world::{Drain, HostId, Role, VmId};
use livemig_core::drain::{Limits, Plan};
use livemig_core::policy::order::Order;
use livemig_core::policy::placement::Placement;
use livemig_core::units::Time;

impl Context<'_> {
    /// The drain.
    ///
    /// # Errors
    /// When a name is unknown or that of a host that runs no guests, a limit lets nothing happen, or there is nothing to move.
    pub(super) fn drain(&self, raw: &At<raw::Drain>) -> Result<Drain, Fault> {
        let At { line, value: raw } = raw;
        let hosts = self.guest_hosts(&raw.host, "drain.host")?;
        let candidates = match &raw.destinations {
            Some(names) => self.guest_hosts(names, "drain.destinations")?,
            None => (0_u32..).zip(self.hosts).filter(|(_, h)| h.role == Role::Host).map(|(n, _)| HostId(n)).collect(),
        };
        let mut is_drained = vec![false; self.hosts.len()];
        for host in &hosts {
            is_drained[host.0 as usize] = true;
        }
        let leaving = |vm: &usize| is_drained[self.guests.vms[*vm].host.0 as usize];
        if !(0..self.guests.vms.len()).any(|vm| leaving(&vm)) {
            return Err(Fault::at(raw.host.line, "drain.host", "nothing migrates: there is no VM on these hosts"));
        }
        if let Some(vm) = self.guests.via.iter().position(Option::is_some) {
            let problem = "has no meaning in a drain, which chooses with `drain.via`";
            return Err(Fault::at(self.guests.blocks.line(vm), "vm.via", problem));
        }
        let given =
            (0..self.guests.to.len()).filter(leaving).filter_map(|vm| Some((VmId(vm as u32), self.guests.to[vm]?))).collect();
        let drain = Drain {
            hosts,
            at: raw.at.as_ref().map_or(Ok(Time::ZERO), |at| moment(at.value.0, self.frame.horizon, at.line, "drain.at"))?,
            candidates,
            given,
            onto_waiting: raw.onto_waiting.unwrap_or(false),
            returns_after: raw.returns_after.as_ref().map(|after| after.0),
            order: order(raw.order.unwrap_or_default()),
            placement: match raw.placement.unwrap_or_default() {
                raw::Placement::FirstFit => Placement::FirstFit,
                raw::Placement::MostRoom => Placement::MostRoom,
                raw::Placement::LeastTraffic => Placement::LeastTraffic,
            },
            limits: limits(raw)?,
            retries: retries(raw)?,
            rate_per_host: raw.rate_per_host.as_ref().map(rate).transpose()?,
            via: self.via(raw.via.as_ref(), "drain.via")?,
            via_is_chosen: raw.via.as_ref().is_some_and(|via| matches!(via.value, raw::Via::Auto(_))),
        };
        self.check_given(&drain)?;
        drain.check_via(raw.via.as_ref().map_or(*line, |via| via.line), |host| self.host(host).name.clone())?;
        Ok(drain)
    }

    /// The hosts that names and patterns mean, each once, in the order in which they are named.
    fn guest_hosts(&self, names: &At<Names>, key: &str) -> Result<Vec<HostId>, Fault> {
        let (mut hosts, mut seen) = (Vec::new(), vec![false; self.hosts.len()]);
        for (pattern, line) in names.iter() {
            let found = self.host_names.matching(pattern).map_err(|problem| Fault::at(line, key, problem))?;
            for host in found.into_iter().map(HostId) {
                if self.host(host).role != Role::Host {
                    // A pattern means those that can be meant.
                    if pattern.contains('*') {
                        continue;
                    }
                    return Err(Fault::at(line, key, format!("`{pattern}` does not run guests: its role is not `host`")));
                }
                if !std::mem::replace(&mut seen[host.0 as usize], true) {
                    hosts.push(host);
                }
            }
        }
        if hosts.is_empty() {
            return Err(Fault::at(names.line, key, "needs at least one host with the role `host`"));
        }
        Ok(hosts)
    }

    fn check_given(&self, drain: &Drain) -> Result<(), Fault> {
        for (vm, to) in &drain.given {
            let guest = self.vm(*vm);
            if guest.host == *to {
                let problem =
                    format!("`{}` is on `{}` already; its destination must be another host", guest.name, self.host(*to).name);
                return Err(Fault::at(self.guests.blocks.line(vm.0 as usize), "vm.to", problem));
            }
        }
        Ok(())
    }

    /// A VM that leaves a drained host can be taken out of the drain, once that was requested.
    pub(super) fn can_withdraw(&self, vm: VmId, at: Time, line: u32, drain: &Drain) -> Result<(), Fault> {
        let guest = self.vm(vm);
        if !drain.hosts.contains(&guest.host) && !drain.onto_waiting {
            return Err(Fault::at(line, "event.cancel", format!("`{}` does not migrate", guest.name)));
        }
        if at < drain.at {
            let when = written_time(drain.at - Time::ZERO);
            return Err(Fault::at(line, "event.cancel", format!("the drain is requested only at {when}")));
        }
        Ok(())
    }
}

impl Drain {
    /// A host that stages pages takes no part otherwise.
    fn check_via(&self, line: u32, name: impl Fn(HostId) -> String) -> Result<(), Fault> {
        match self.via.iter().find(|host| self.hosts.contains(host) || self.candidates.contains(host)) {
            Some(host) => Err(Fault::at(line, "drain.via", format!("`{}` is drained or a destination", name(*host)))),
            None => Ok(()),
        }
    }
}

fn order(raw: raw::Order) -> Order {
    match raw {
        raw::Order::AsListed => Order::AsListed,
        raw::Order::SmallestFirst => Order::SmallestFirst,
        raw::Order::LargestFirst => Order::LargestFirst,
        raw::Order::LeastDirtyingFirst => Order::LeastDirtyingFirst,
    }
}

fn limits(raw: &raw::Drain) -> Result<Limits, Fault> {
    let limit = |limit: &Option<At<u32>>, key: &str| match limit {
        Some(At { line, value: 0 }) => Err(Fault::at(*line, format!("drain.{key}"), "must be at least 1")),
        other => Ok(other.as_ref().map(|at| at.value)),
    };
    Ok(Limits {
        per_host: limit(&raw.per_host, "per_host")?.unwrap_or(Limits::default().per_host),
        per_destination: limit(&raw.per_destination, "per_destination")?,
        per_cluster: limit(&raw.per_cluster, "per_cluster")?,
        hosts_at_once: limit(&raw.hosts_at_once, "hosts_at_once")?,
    })
}

fn retries(raw: &raw::Drain) -> Result<u8, Fault> {
    let Some(at) = &raw.retries else { return Ok(0) };
    let most = Plan::MOST_RETRIES;
    u8::try_from(at.value)
        .ok()
        .filter(|retries| *retries <= most)
        .ok_or_else(|| Fault::at(at.line, "drain.retries", format!("must be at most {most}")))
}

fn rate(at: &At<crate::scenario::value::Constant<livemig_core::units::Rate>>) -> Result<livemig_core::units::Rate, Fault> {
    if at.value.0.0 > 0.0 { Ok(at.value.0) } else { Err(Fault::at(at.line, "drain.rate_per_host", "the rate must be above zero")) }
}
