//! A guest with its disk, and where it is.

use crate::fidelity::{Fidelity, GuestModel, Lanes};
use livemig_core::ledger::Observation;
use livemig_core::units::{Span, Time};
use livemig_core::vocabulary::Region;
use livemig_models::world::{HostId, Vm};

/// Where a guest is and what it does.
#[derive(Debug)]
pub(crate) struct Placed<G> {
    /// The guest, with its memory.
    pub(crate) guest: G,
    /// Its disk: another address space, which it writes as fast as it works.
    disk: Option<Box<Disk<G>>>,
    pub(crate) host: HostId,
    /// When its workload began.
    pub(crate) workload_since: Time,
    /// The workload of an incident, which replaces that of the scenario.
    pub(crate) workload: Option<u32>,
}

#[derive(Debug)]
struct Disk<G> {
    blocks: G,
    since: Time,
}

/// Sets the random choices of a disk apart from those of its guest's memory.
const DISK_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

impl<G: GuestModel> Placed<G> {
    pub(crate) fn new(vm: &Vm, seed: u64) -> Placed<G> {
        let guest = G::new(vm.memory, vm.vcpus, vm.workload.phase_at(Span::ZERO).0, seed);
        let disk = vm.disk.as_ref().map(|disk| {
            let workload = disk.workload.phase_at(Span::ZERO).0;
            let blocks = G::new(disk.size, vm.vcpus, workload, seed ^ DISK_SEED);
            Box::new(Disk { blocks, since: Time::ZERO })
        });
        Placed { guest, disk, host: vm.host, workload_since: Time::ZERO, workload: None }
    }

    /// Its memory or its disk.
    ///
    /// # Panics
    /// When it has no disk: nobody speaks of the disk of such a guest.
    pub(crate) fn region(&self, region: Region) -> &G {
        match region {
            Region::Memory => &self.guest,
            Region::Disk => &self.disk.as_ref().expect("the guest has a disk").blocks,
        }
    }

    /// Its memory or its disk.
    ///
    /// # Panics
    /// When it has no disk.
    pub(crate) fn region_mut(&mut self, region: Region) -> &mut G {
        match region {
            Region::Memory => &mut self.guest,
            Region::Disk => &mut self.disk.as_mut().expect("the guest has a disk").blocks,
        }
    }

    /// Writes are tracked from now on; a first write to a page of memory costs so many seconds. A virtual disk's writes pass through the
    /// hypervisor anyway.
    pub(crate) fn start_tracking(&mut self, cost: f64) {
        self.guest.start_tracking(cost);
        if let Some(disk) = &mut self.disk {
            disk.blocks.start_tracking(0.0);
        }
    }

    pub(crate) fn stop_tracking(&mut self) {
        self.guest.stop_tracking();
        if let Some(disk) = &mut self.disk {
            disk.blocks.stop_tracking();
        }
    }

    /// Brings the guest and its disk to `now`, with the transfer that has the migration's bandwidth and the region that it is of.
    pub(crate) fn advance<F: Fidelity<Guest = G>>(
        &mut self,
        front: Option<(Region, &mut F::Transfer)>,
        lanes: &Lanes<'_>,
        now: Time,
        observe: &mut impl FnMut(Observation),
    ) {
        let Some(disk) = &mut self.disk else {
            return F::advance(&mut self.guest, front.map(|f| f.1), lanes, now, observe);
        };
        let others = lanes.gathering_alone();
        let ((memory, memory_lanes), (blocks, blocks_lanes)) = match front {
            Some((Region::Memory, transfer)) => ((Some(transfer), lanes), (None, &others)),
            Some((Region::Disk, transfer)) => ((None, &others), (Some(transfer), lanes)),
            None => ((None, lanes), (None, &others)),
        };
        let (mut at, mut work) = (disk.since, 0.0);
        F::advance(&mut self.guest, memory, memory_lanes, now, &mut |o| {
            if let Observation::Work { until, rate } = &o {
                work += rate * until.since(at).as_secs_f64();
                at = at.max(*until);
            }
            observe(o);
        });
        let elapsed = now.since(disk.since).as_secs_f64();
        disk.since = disk.since.max(now);
        if elapsed > 0.0 {
            disk.blocks.set_cores_share(work * self.guest.baseline() / elapsed, false);
            F::advance(&mut disk.blocks, blocks, blocks_lanes, now, &mut |_| {});
        }
        // What is foretold is for a guest that goes on as fast as it may.
        disk.blocks.set_cores_share(self.guest.speed(), false);
    }
}
