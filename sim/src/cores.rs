//! Cores of hosts, shared by the vCPUs of their guests.

use crate::engine::Engine;
use crate::fidelity::{Fidelity, GuestModel};
use livemig_core::units::Time;
use livemig_models::world::{HostId, VmId, World};

/// The guests of one host and their vCPUs.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostCores {
    guests: Vec<VmId>,
    vcpus: u64,
}

impl HostCores {
    pub(crate) fn guests(&self) -> &[VmId] {
        &self.guests
    }

    pub(crate) fn of(world: &World) -> Vec<HostCores> {
        let mut hosts = vec![HostCores::default(); world.hosts.len()];
        for (i, vm) in world.vms.iter().enumerate() {
            hosts[vm.host.0 as usize].guests.push(VmId(i as u32));
            hosts[vm.host.0 as usize].vcpus += u64::from(vm.vcpus);
        }
        hosts
    }
}

impl<F: Fidelity> Engine<'_, F> {
    pub(crate) fn share_cores_at_start(&mut self) {
        for host in 0..self.world.hosts.len() as u32 {
            self.share_cores(HostId(host));
        }
    }

    /// A guest now runs on another host.
    pub(crate) fn move_guest(&mut self, vm: VmId, to: HostId) {
        let from = std::mem::replace(&mut self.guests[vm.0 as usize].host, to);
        let vcpus = u64::from(self.world.vms[vm.0 as usize].vcpus);
        self.cores[from.0 as usize].guests.retain(|&g| g != vm);
        self.cores[from.0 as usize].vcpus -= vcpus;
        self.cores[to.0 as usize].guests.push(vm);
        self.cores[to.0 as usize].vcpus += vcpus;
        self.share_cores(from);
        self.share_cores(to);
    }

    /// Gives every vCPU of a host the same share of its cores.
    fn share_cores(&mut self, host: HostId) {
        let (cores, used) = (u64::from(self.world.hosts[host.0 as usize].cores), &self.cores[host.0 as usize]);
        let share = if used.vcpus > cores { cores as f64 / used.vcpus as f64 } else { 1.0 };
        for i in 0..used.guests.len() {
            let vm = self.cores[host.0 as usize].guests[i];
            if self.guests[vm.0 as usize].guest.cores_share() != share {
                self.sync_guest(vm);
                self.guests[vm.0 as usize].guest.set_cores_share(share, self.now == Time::ZERO);
            }
        }
    }
}
