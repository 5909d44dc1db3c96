//! Migrations and events.

use super::cluster::{Guests, OwnVia, traffic};
use super::{Frame, moment, workload};
use crate::scenario::error::Fault;
use crate::scenario::files::Files;
use crate::scenario::names::Names;
use crate::scenario::quantity::written_time;
use crate::scenario::raw::{self, Event, Migrate};
use crate::scenario::value::{At, Member};
use crate::world::{Drain, Host, HostId, Incident, Move, Role, ScheduledEvent, Vm, VmId, intermediaries};
use livemig_core::units::Time;

/// Most intermediaries: commands name them in 16 bits.
pub(super) const MAX_VIA: usize = u16::MAX as usize;
/// Most intermediaries of all migrations together.
pub(super) const MAX_VIA_TOTAL: usize = 100_000_000;

/// What migrations and events refer to.
pub(super) struct Context<'a> {
    pub(super) frame: Frame,
    pub(super) hosts: &'a [Host],
    pub(super) host_names: &'a Names<'a>,
    pub(super) guests: &'a Guests,
    pub(super) vm_names: &'a Names<'a>,
}

impl Context<'_> {
    /// The migrations, in the order of the VMs.
    ///
    /// # Errors
    /// When a name is unknown, a destination is missing or no other host, or nothing migrates.
    pub(super) fn moves(&self, raw: Option<&At<Migrate>>) -> Result<Vec<Move>, Fault> {
        let nothing = At { line: 1, value: Migrate::default() };
        let At { line, value: raw } = raw.unwrap_or(&nothing);
        let at = raw.at.as_ref().map_or(Ok(Time::ZERO), |at| moment(at.value.0, self.frame.horizon, at.line, "migrate.at"))?;
        let to = raw.to.as_ref().map(|to| self.destination(to)).transpose()?;
        let given = self.via(raw.via.as_ref(), "migrate.via")?;
        let all = self.via(None, "migrate.via")?;
        let moving = self.moving(raw, to)?;
        if moving.is_empty() {
            let problem = "nothing migrates: no VM has a destination other than its host; give `to` in [migrate] or in [[vm]]";
            return Err(Fault::at(*line, "migrate", problem));
        }
        if given.len().saturating_mul(moving.len()) > MAX_VIA_TOTAL {
            let problem = format!("all migrations together have more than {MAX_VIA_TOTAL} intermediaries; choose fewer with `via`");
            return Err(Fault::at(*line, "migrate.via", problem));
        }
        moving
            .into_iter()
            .map(|(vm, to)| {
                let (source, memory) = (self.vm(vm).host, self.vm(vm).memory);
                let is_end = |h: &HostId| *h == source || *h == to;
                let (named, chosen) = match self.guests.via.get(vm.0 as usize).and_then(Option::as_ref) {
                    Some(OwnVia::Hosts(hosts)) => (Some((self.guests.blocks.line(vm.0 as usize), "vm.via", hosts)), false),
                    Some(OwnVia::Chosen) => (None, true),
                    None => match &raw.via {
                        Some(At { line, value: raw::Via::Hosts(_) }) => (Some((*line, "migrate.via", &given)), false),
                        Some(At { value: raw::Via::Auto(_), .. }) => (None, true),
                        None => (None, false),
                    },
                };
                let Some((line, key, hosts)) = named else {
                    let mut others = all.clone();
                    others.retain(|h| !is_end(h));
                    let via = if chosen { intermediaries(self.hosts, source, memory, others) } else { others };
                    return Ok(Move { vm, to, at, via });
                };
                match hosts.iter().find(|h| is_end(h)) {
                    Some(end) => {
                        let problem = format!("`{}` is an end of the migration of `{}`", self.host(*end).name, self.vm(vm).name);
                        Err(Fault::at(line, key, problem))
                    }
                    None => Ok(Move { vm, to, at, via: hosts.clone() }),
                }
            })
            .collect()
    }

    /// The first VM that is moved with its disk; in a drain any may have to be.
    pub(super) fn moving_disk(&self, moves: &[Move]) -> Option<&Vm> {
        let with_disk = |vm: &&Vm| vm.disk.is_some();
        match moves {
            [] => self.guests.vms.iter().find(with_disk),
            moves => moves.iter().map(|m| self.vm(m.vm)).find(with_disk),
        }
    }

    pub(super) fn vm(&self, vm: VmId) -> &Vm {
        &self.guests.vms[vm.0 as usize]
    }

    pub(super) fn host(&self, host: HostId) -> &Host {
        &self.hosts[host.0 as usize]
    }

    fn find_host(&self, name: &At<String>, key: &str) -> Result<HostId, Fault> {
        self.host_names.find(&name.value).map(HostId).map_err(|problem| Fault::at(name.line, key, problem))
    }

    fn destination(&self, to: &At<String>) -> Result<HostId, Fault> {
        let host = self.find_host(to, "migrate.to")?;
        if self.host(host).role == Role::Host {
            Ok(host)
        } else {
            Err(Fault::at(to.line, "migrate.to", format!("`{}` does not run guests: its role is not `host`", to.value)))
        }
    }

    /// The VMs that migrate, in their order, with their destinations.
    fn moving(&self, raw: &Migrate, to: Option<HostId>) -> Result<Vec<(VmId, HostId)>, Fault> {
        let count = self.guests.vms.len();
        let destination = |vm: usize| self.guests.to.get(vm).copied().flatten().or(to);
        let Some(list) = &raw.vms else {
            let everybody = (0..count).filter_map(|vm| {
                let to = destination(vm).filter(|to| *to != self.guests.vms[vm].host)?;
                Some((VmId(vm as u32), to))
            });
            return Ok(everybody.collect());
        };
        let mut line_of = vec![None; count];
        for pattern in &list.value {
            let found = self.vm_names.matching(&pattern.value);
            for vm in found.map_err(|problem| Fault::at(pattern.line, "migrate.vms", problem))? {
                line_of[vm as usize].get_or_insert(pattern.line);
            }
        }
        let named = line_of.into_iter().enumerate().filter_map(|(vm, line)| Some((vm, line?)));
        named
            .map(|(number, line)| {
                let vm = VmId(number as u32);
                let name = &self.vm(vm).name;
                let to = destination(number).ok_or_else(|| {
                    let problem = format!("`{name}` has no destination; give `to` in [migrate] or in its [[vm]]");
                    Fault::at(line, "migrate.vms", problem)
                })?;
                if to == self.vm(vm).host {
                    let problem = format!("`{name}` is on `{}` already; its destination must be another host", self.host(to).name);
                    return Err(Fault::at(line, "migrate.vms", problem));
                }
                Ok((vm, to))
            })
            .collect()
    }

    /// The hosts that stage pages.
    pub(super) fn via(&self, via: Option<&At<raw::Via<At<String>>>>, key: &str) -> Result<Vec<HostId>, Fault> {
        let Some(At { line, value: raw::Via::Hosts(list) }) = via else {
            let all = (0_u32..).zip(self.hosts).filter(|(_, h)| h.role == Role::Intermediary).map(|(n, _)| HostId(n));
            return Ok(all.take(MAX_VIA).collect());
        };
        if list.len() > MAX_VIA {
            return Err(Fault::at(*line, key, format!("at most {MAX_VIA} intermediaries")));
        }
        let mut via = Vec::with_capacity(list.len());
        for name in list {
            let host = self.find_host(name, key)?;
            if via.contains(&host) {
                return Err(Fault::at(name.line, key, format!("`{}` is there twice", name.value)));
            }
            via.push(host);
        }
        Ok(via)
    }

    /// The events, in the order of the file.
    ///
    /// # Errors
    /// When an event is not exactly one thing, or about something that does not exist.
    pub(super) fn events(
        &self,
        raw: &[At<Event>],
        moves: &[Move],
        drain: Option<&Drain>,
        files: &mut Files,
    ) -> Result<Vec<ScheduledEvent>, Fault> {
        let mut events = Vec::new();
        for (number, At { line, value: event }) in raw.iter().enumerate() {
            let at = moment(event.at.value.0, self.frame.horizon, event.at.line, "event.at")?;
            let mut add = |what| events.push(ScheduledEvent { at, what });
            match Kind::of(event, *line)? {
                Kind::Fail(name) => add(Incident::Fail(self.find_host(name, "event.fail")?)),
                Kind::Cut(name) => add(Incident::Cut(self.find_host(name, "event.cut")?)),
                Kind::Restore(name) => add(Incident::Restore(self.find_host(name, "event.restore")?)),
                Kind::Cancel(name) => {
                    for vm in self.find_vms(name, "event.cancel")? {
                        match drain {
                            Some(drain) => self.can_withdraw(vm, at, name.line, drain)?,
                            None => self.can_cancel(vm, at, name.line, moves)?,
                        }
                        add(Incident::Cancel(vm));
                    }
                }
                Kind::Change(name) => {
                    for vm in self.find_vms(name, "event.vm")? {
                        let guest = self.vm(vm);
                        // The number makes different events draw different values.
                        let key = |what| format!("event[{number}].{what}");
                        let member = Member { index: None, row: None, seed: self.frame.seed, name: &guest.name };
                        if let Some(raw) = &event.workload {
                            let workload = workload::resolve(raw, &member, &key("workload"), guest.memory, files)?;
                            add(Incident::Workload(vm, workload));
                        }
                        if let Some(raw) = &event.traffic {
                            add(Incident::Traffic(vm, traffic(raw, &member, &key("traffic"))?));
                        }
                    }
                }
            }
        }
        Ok(events)
    }

    fn find_vms(&self, name: &At<String>, key: &str) -> Result<Vec<VmId>, Fault> {
        let found = self.vm_names.matching(&name.value).map_err(|problem| Fault::at(name.line, key, problem))?;
        Ok(found.into_iter().map(VmId).collect())
    }

    fn can_cancel(&self, vm: VmId, at: Time, line: u32, moves: &[Move]) -> Result<(), Fault> {
        let name = &self.vm(vm).name;
        match moves.binary_search_by_key(&vm, |m| m.vm) {
            Err(_) => Err(Fault::at(line, "event.cancel", format!("`{name}` does not migrate"))),
            Ok(m) if at < moves[m].at => {
                let problem = format!("the migration of `{name}` is requested only at {}", written_time(moves[m].at - Time::ZERO));
                Err(Fault::at(line, "event.cancel", problem))
            }
            Ok(_) => Ok(()),
        }
    }
}

/// What an event is.
enum Kind<'a> {
    Fail(&'a At<String>),
    Cut(&'a At<String>),
    Restore(&'a At<String>),
    Cancel(&'a At<String>),
    Change(&'a At<String>),
}

impl Kind<'_> {
    fn of(event: &Event, line: u32) -> Result<Kind<'_>, Fault> {
        let raw::Event { at: _, fail, cut, restore, cancel, vm, workload, traffic } = event;
        let kinds = [
            fail.as_ref().map(Kind::Fail),
            cut.as_ref().map(Kind::Cut),
            restore.as_ref().map(Kind::Restore),
            cancel.as_ref().map(Kind::Cancel),
            vm.as_ref().map(Kind::Change),
        ];
        let mut given = kinds.into_iter().flatten();
        let (Some(kind), None) = (given.next(), given.next()) else {
            return Err(Fault::at(line, "event", "an event has exactly one of fail, cut, restore, cancel, vm"));
        };
        let changes = workload.is_some() || traffic.is_some();
        match kind {
            Kind::Change(_) if !changes => Err(Fault::at(line, "event.vm", "says nothing new; add `workload` or `traffic`")),
            Kind::Fail(_) | Kind::Cut(_) | Kind::Restore(_) | Kind::Cancel(_) if changes => {
                Err(Fault::at(line, "event", "`workload` and `traffic` belong to an event with `vm`"))
            }
            kind => Ok(kind),
        }
    }
}
