//! What happens to hosts and guests from outside: failures, cut links, cancellations, changes of load.

use crate::engine::{Engine, Happening};
use crate::fidelity::{Fidelity, GuestModel, Run, TransferModel};
use livemig_core::drain::{self, VmIndex};
use livemig_core::machine::{Migration, Phase};
use livemig_core::units::Time;
use livemig_core::vocabulary::{Event, Failure, Peer, Region};
use livemig_models::world::{HostId, Incident, VmId, Workload};

impl<F: Fidelity> Engine<'_, F> {
    pub(crate) fn incident(&mut self, i: u32) {
        match &self.world.events[i as usize].what {
            Incident::Fail(host) => self.fail_host(*host),
            Incident::Cut(host) => self.cut_host(*host, true),
            Incident::Restore(host) => self.cut_host(*host, false),
            Incident::Cancel(vm) => match self.drive_of[vm.0 as usize].filter(|&m| !self.drives[m as usize].drained) {
                Some(m) => self.tell(m, Event::Cancel),
                None => self.tell_drain(drain::Event::Withdrawn(VmIndex(vm.0))),
            },
            Incident::Workload(vm, workload) => {
                self.guests[vm.0 as usize].workload = Some(i);
                self.guests[vm.0 as usize].workload_since = self.now;
                self.enter_phase(*vm, Region::Memory, workload);
            }
            Incident::Traffic(vm, traffic) => self.change_traffic(*vm, *traffic),
        }
    }

    /// What a guest does with a region enters its next phase.
    pub(crate) fn next_phase(&mut self, vm: VmId, region: Region) {
        let world = self.world;
        if let Some(disk) = world.vms[vm.0 as usize].disk.as_ref().filter(|_| region == Region::Disk) {
            return self.enter_phase(vm, region, &disk.workload);
        }
        let workload = match self.guests[vm.0 as usize].workload {
            Some(i) => match &world.events[i as usize].what {
                Incident::Workload(_, workload) => workload,
                Incident::Fail(_) | Incident::Cut(_) | Incident::Restore(_) | Incident::Cancel(_) | Incident::Traffic(..) => {
                    unreachable!("a workload comes from an event about a workload")
                }
            },
            None => &world.vms[vm.0 as usize].workload,
        };
        self.enter_phase(vm, region, workload);
    }

    fn enter_phase(&mut self, vm: VmId, region: Region, workload: &Workload) {
        let of = &self.world.vms[vm.0 as usize];
        let (size, since) = match (region, &of.disk) {
            (Region::Disk, Some(disk)) => (disk.size, Time::ZERO),
            (Region::Memory | Region::Disk, _) => (of.memory, self.guests[vm.0 as usize].workload_since),
        };
        let (phase, change) = workload.phase_at(self.now.since(since));
        let m = self.drive_of[vm.0 as usize];
        self.sync_guest(vm);
        let remap = self.guests[vm.0 as usize].region_mut(region).change_workload(phase, size);
        if let Some(m) = m {
            let prices = [self.wire_price(m, region, false), self.wire_price(m, region, true)];
            let (guest, drive) = (self.guests[vm.0 as usize].region(region), &mut self.drives[m as usize]);
            drive.remap_held(region, |set| F::Guest::remap(&remap, set));
            for transfer in drive.carrier.transfers(region) {
                let price = prices[usize::from(transfer.is_first())];
                transfer.remap(&remap, price, guest);
            }
            self.reschedule(m);
        }
        if let Some(change) = change {
            self.queue.push(self.now + change, Happening::NextPhase(vm, region));
        }
    }

    fn fail_host(&mut self, host: HostId) {
        if std::mem::replace(&mut self.down[host.0 as usize].dead, true) {
            return;
        }
        self.tell_drain_of_host(host, drain::HostState::Dead);
        for vm in 0..self.guests.len() {
            if self.guests[vm].host == host {
                if let Some(m) = self.drive_of[vm] {
                    self.sync(m);
                }
                self.guests[vm].guest.set_run(Run::Dead);
                self.route_traffic_of(VmId(vm as u32));
            }
        }
        for m in self.started_migrations_at(host) {
            let peer = self.peer(m, host);
            if let Peer::Intermediary(via) = peer {
                self.intermediary_dead(m, via);
                continue;
            }
            self.tell(m, Event::PeerDead { peer, recoverable: false });
            if peer == Peer::Destination {
                self.fail_gathering(m, Failure::Unreachable(peer));
            }
            self.fail_transfers(m, Failure::Unreachable(peer));
            if peer == Peer::Source && self.drives[m as usize].gathering.is_open() && self.source_is_gone(m) {
                self.go_on_without_source(m);
            }
            self.unpark(m);
        }
    }

    fn cut_host(&mut self, host: HostId, cut: bool) {
        if std::mem::replace(&mut self.down[host.0 as usize].cut, cut) == cut || self.down[host.0 as usize].dead {
            return;
        }
        self.tell_drain_of_host(host, if cut { drain::HostState::Cut } else { drain::HostState::Reachable });
        let nics = self.world.hosts[host.0 as usize].nics.iter();
        let links = self.wiring.nics(host).iter().copied();
        for (nic, (tx, rx)) in nics.zip(links) {
            let capacity = if cut { 0.0 } else { nic.rate.0 * nic.goodput };
            self.net.set_capacity(tx, capacity);
            self.net.set_capacity(rx, capacity);
            self.net_changed = true;
        }
        for m in self.started_migrations_at(host) {
            let peer = self.peer(m, host);
            if cut {
                self.tell(m, Event::LinkLost(peer));
            } else {
                self.tell(m, Event::LinkRestored(peer));
                self.unpark(m);
            }
        }
    }

    fn started_migrations_at(&self, host: HostId) -> Vec<u32> {
        self.drives
            .numbers()
            .filter(|&m| {
                let d = &self.drives[m as usize];
                let takes_part = d.source == host || d.destination == host || d.via.contains(&host);
                d.session.phase() != Phase::Waiting && !d.over && takes_part
            })
            .collect()
    }

    fn peer(&self, m: u32, host: HostId) -> Peer {
        let drive = &self.drives[m as usize];
        match drive.via_number(host) {
            Some(via) => Peer::Intermediary(via),
            None if drive.source == host => Peer::Source,
            None => Peer::Destination,
        }
    }
}
