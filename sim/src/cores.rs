//! Cores of hosts, shared by the vCPUs of their guests and the threads of migrations.
//!
//! Where there are more of both than cores, each has the same claim, and a thread or vCPU that does not use its own leaves it to the others:
//! a migration that waits for the network slows guests by what its threads do, and no more. Guests are taken to use all that they get.

use crate::engine::Engine;
use crate::fidelity::{Fidelity, GuestModel};
use crate::threads::End;
use livemig_core::units::PAGE_SIZE;
use livemig_core::vocabulary::Region;
use livemig_models::world::{HostId, VmId, World};

/// Guests and migrations of one host and what they claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostCores {
    guests: Vec<VmId>,
    vcpus: u64,
    cores: u64,
    /// Migrations that send from here or to here, and their threads.
    movers: Vec<(u32, u32)>,
    threads: u64,
    /// Cores that these threads use, as guests have last been told.
    load: f64,
    /// What they use has changed at this instant.
    strained: bool,
}

/// A change of the load by less than this share of a host's cores leaves guests as they are. Where many migrations share links, each event
/// changes the rates of all by a little.
const GRAIN: f64 = 0.002;

impl HostCores {
    pub(crate) fn guests(&self) -> &[VmId] {
        &self.guests
    }

    pub(crate) fn of(world: &World) -> Vec<HostCores> {
        let host = |h: &livemig_models::world::Host| HostCores { cores: u64::from(h.cores), ..HostCores::default() };
        let mut hosts: Vec<HostCores> = world.hosts.iter().map(host).collect();
        for (i, vm) in world.vms.iter().enumerate() {
            hosts[vm.host.0 as usize].guests.push(VmId(i as u32));
            hosts[vm.host.0 as usize].vcpus += u64::from(vm.vcpus);
        }
        hosts
    }

    /// Whether there are more vCPUs and threads than cores.
    fn is_short(&self) -> bool {
        self.vcpus + self.threads > self.cores
    }

    /// The share of a core that each thread can count on.
    fn claim(&self) -> f64 {
        if self.is_short() { self.cores as f64 / (self.vcpus + self.threads) as f64 } else { 1.0 }
    }

    /// The share of a core that each vCPU has.
    fn guest_share(&self) -> f64 {
        let free = (self.cores as f64 - self.load).max(self.claim() * self.vcpus as f64);
        if self.vcpus as f64 > free { free / self.vcpus as f64 } else { 1.0 }
    }
}

impl<F: Fidelity> Engine<'_, F> {
    pub(crate) fn share_cores_at_start(&mut self) {
        for host in 0..self.world.hosts.len() as u32 {
            self.share_cores(HostId(host), true);
        }
    }

    /// A guest now runs on another host.
    pub(crate) fn move_guest(&mut self, vm: VmId, to: HostId) {
        let from = std::mem::replace(&mut self.guests[vm.0 as usize].host, to);
        let vcpus = u64::from(self.world.vms[vm.0 as usize].vcpus);
        let before = [from, to].map(|host| (host, self.cores[host.0 as usize].claim()));
        self.cores[from.0 as usize].guests.retain(|&g| g != vm);
        self.cores[from.0 as usize].vcpus -= vcpus;
        self.cores[to.0 as usize].guests.push(vm);
        self.cores[to.0 as usize].vcpus += vcpus;
        for (host, claim) in before {
            self.share_cores(host, false);
            self.claims_changed(host, claim);
        }
    }

    /// Gives every vCPU of a host the same share of the cores that threads leave; at the beginning it is what guests are measured against.
    fn share_cores(&mut self, host: HostId, at_start: bool) {
        let share = self.cores[host.0 as usize].guest_share();
        for i in 0..self.cores[host.0 as usize].guests.len() {
            let vm = self.cores[host.0 as usize].guests[i];
            if self.guests[vm.0 as usize].guest.cores_share() != share {
                self.sync_guest(vm);
                self.guests[vm.0 as usize].guest.set_cores_share(share, at_start);
            }
        }
    }

    /// Both ends of a migration, with what a page costs there.
    fn ends(&self, m: u32) -> [(HostId, End); 2] {
        let (c, drive) = (&self.world.calibration, &self.drives[m as usize]);
        let region = drive.carrier.ways.region().unwrap_or(Region::Memory);
        let source = End::source(c, drive.channels, drive.elide_zero_pages, region);
        [(drive.source, source), (drive.destination, End::destination(c, drive.channels))]
    }

    /// Threads of a migration at each end, of each stage where stages have their own.
    fn threads(&self, m: u32) -> u32 {
        let drive = &self.drives[m as usize];
        let cores = |host: HostId| self.world.hosts[host.0 as usize].cores;
        let threads = u32::from(drive.channels.threads.unwrap_or(drive.carrier.ways.streams()));
        threads.min(cores(drive.source)).min(cores(drive.destination))
    }

    /// Wire bytes per second that the migration's threads can count on handling; `None` where that costs nothing.
    pub(crate) fn processing_rate(&self, m: u32) -> Option<f64> {
        let (threads, channels) = (self.threads(m), self.drives[m as usize].channels);
        let rate = |(host, end): (HostId, End)| end.rate(threads, self.cores[host.0 as usize].claim(), channels);
        let pages = self.ends(m).into_iter().filter_map(rate).min_by(f64::total_cmp)?;
        Some(pages * self.content(m))
    }

    /// Wire bytes per byte of the content of the pages that a migration is sending.
    fn content(&self, m: u32) -> f64 {
        self.wire_price(m, self.drives[m as usize].carrier.ways.region().unwrap_or(Region::Memory), false).content
    }

    /// A migration's threads begin to work.
    pub(crate) fn claim_cores(&mut self, m: u32) {
        let (threads, channels) = (self.threads(m), self.drives[m as usize].channels);
        for (host, end) in self.ends(m) {
            let count = end.threads(threads, channels);
            if count > 0 {
                let cores = &mut self.cores[host.0 as usize];
                let claim = cores.claim();
                cores.movers.push((m, count));
                cores.threads += u64::from(count);
                self.claims_changed(host, claim);
            }
        }
    }

    /// Whether guests may feel how fast a migration sends.
    pub(crate) fn uses_cores(&self, m: u32) -> bool {
        let drive = &self.drives[m as usize];
        [drive.source, drive.destination].iter().any(|host| self.cores[host.0 as usize].movers.iter().any(|mover| mover.0 == m))
    }

    /// A migration's threads rest.
    pub(crate) fn leave_cores(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        for host in [drive.source, drive.destination] {
            let cores = &mut self.cores[host.0 as usize];
            if let Some(at) = cores.movers.iter().position(|mover| mover.0 == m) {
                let (_, count) = cores.movers.swap_remove(at);
                let claim = cores.claim();
                cores.threads -= u64::from(count);
                self.claims_changed(host, claim);
            }
        }
    }

    /// There may be more or fewer claims on the cores of a host than when each thread could count on `before`: its migrations handle
    /// another rate.
    fn claims_changed(&mut self, host: HostId, before: f64) {
        let cores = &self.cores[host.0 as usize];
        if cores.claim() == before {
            return;
        }
        for m in cores.movers.iter().map(|mover| mover.0).collect::<Vec<_>>() {
            self.cap_flows(m);
        }
        self.strain(host);
    }

    /// A migration sends at another rate.
    pub(crate) fn load_changed(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        for host in [drive.source, drive.destination] {
            self.strain(host);
        }
    }

    /// What threads use of a host's cores is to be looked at when the network has settled, if it matters to guests.
    fn strain(&mut self, host: HostId) {
        let cores = &mut self.cores[host.0 as usize];
        if (cores.is_short() || cores.load > 0.0) && !std::mem::replace(&mut cores.strained, true) {
            self.strained.push(host);
        }
    }

    /// Lets guests feel what threads use of their cores.
    pub(crate) fn feel_load(&mut self, host: HostId) {
        let cores = &self.cores[host.0 as usize];
        let load = if cores.is_short() { cores.movers.iter().map(|mover| self.load_of(mover.0, host)).sum() } else { 0.0 };
        let cores = &mut self.cores[host.0 as usize];
        cores.strained = false;
        if load > 0.0 && (load - cores.load).abs() <= GRAIN * cores.cores as f64 {
            return;
        }
        if std::mem::replace(&mut cores.load, load) == load {
            return;
        }
        self.share_cores(host, false);
        // What is skipped because it is dirty again depends on how fast guests work.
        for i in 0..self.cores[host.0 as usize].guests.len() {
            if let Some(m) = self.drive_of[self.cores[host.0 as usize].guests[i].0 as usize] {
                self.reschedule(m);
            }
        }
    }

    /// Cores that the threads of a migration use on a host.
    fn load_of(&self, m: u32, host: HostId) -> f64 {
        let ways = &self.drives[m as usize].carrier.ways;
        let ends = self.ends(m).into_iter().zip([ways.wire_rate(), ways.direct_rate()]);
        let used = ends.filter(|((at, _), _)| *at == host).map(|((_, end), rate)| rate * end.busy());
        used.sum::<f64>() / (PAGE_SIZE as f64 * self.content(m))
    }
}
