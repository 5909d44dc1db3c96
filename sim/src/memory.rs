//! Memory of destination hosts: where arriving guests do not fit, the host frees memory at its swap rate, and that is as fast as
//! new pages can arrive.

use crate::engine::{Engine, Happening};
use crate::fidelity::{Fidelity, GuestModel};
use crate::queue::Key;
use crate::wiring::Wiring;
use livemig_core::units::Span;
use livemig_models::world::{HostId, World};

/// The free memory of one host.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    /// Bytes free; infinite without a limit.
    free: f64,
    /// Migrations that bring new pages.
    arriving: Vec<Arriving>,
    full: Option<Key>,
    reclaiming: bool,
}

/// A migration that brings new pages to a host.
#[derive(Debug)]
struct Arriving {
    migration: u32,
    /// Bytes of pages per second, about: how fast pages pass changes while they do.
    rate: f64,
    /// Bytes of pages still to come when last looked at.
    left: f64,
    /// Bytes of free memory that it has taken.
    taken: f64,
}

impl HostMemory {
    pub(crate) fn of(world: &World, wiring: &Wiring) -> Vec<HostMemory> {
        let mut hosts: Vec<HostMemory> = (0..world.hosts.len() as u32)
            .map(|h| {
                let limit = world.hosts[h as usize].memory.filter(|_| wiring.reclaim(HostId(h)).is_some());
                HostMemory { free: limit.map_or(f64::INFINITY, |m| m.0 as f64), ..HostMemory::default() }
            })
            .collect();
        for vm in &world.vms {
            hosts[vm.host.0 as usize].free -= vm.memory.0 as f64;
        }
        hosts
    }

    /// Whether everything that is on its way fits.
    fn fits(&self) -> bool {
        self.free + 1.0 >= self.arriving.iter().map(|a| a.left).sum::<f64>()
    }

    fn inflow(&self) -> f64 {
        self.arriving.iter().map(|a| a.rate).sum()
    }

    /// Of the arriving migration number `i`, this much is still to come.
    fn arrived(&mut self, i: usize, left: f64) {
        let a = &mut self.arriving[i];
        let came = std::mem::replace(&mut a.left, left) - left;
        // What arrives while the host reclaims takes the place of what it has freed.
        if !self.reclaiming {
            a.taken += came;
            self.free -= came;
        }
    }
}

impl<F: Fidelity> Engine<'_, F> {
    /// A migration to `host` brings new pages at another rate.
    pub(crate) fn arrivals_changed(&mut self, host: HostId, m: u32) {
        if self.wiring.reclaim(host).is_none() {
            return;
        }
        let inflow = self.inflow(m);
        let brings = self.brings_new_pages(m);
        let known = self.memory[host.0 as usize].arriving.iter().position(|a| a.migration == m);
        match (brings, known) {
            (true, Some(i)) => self.memory[host.0 as usize].arriving[i].rate = inflow,
            (true, None) => {
                let left = self.new_pages_left(m);
                self.memory[host.0 as usize].arriving.push(Arriving { migration: m, rate: inflow, left, taken: 0.0 });
            }
            (false, Some(i)) => {
                let memory = &mut self.memory[host.0 as usize];
                // The rest of the guest, if it comes, comes by other transfers.
                memory.arrived(i, 0.0);
                self.drives[m as usize].memory_taken += memory.arriving.swap_remove(i).taken;
            }
            (false, None) => return,
        }
        let memory = &self.memory[host.0 as usize];
        if memory.full.is_none() && !memory.reclaiming && memory.fits() {
            return;
        }
        self.look_at_arrivals(host);
        self.reclaim(host);
    }

    /// Whether pages are on their way to the destination, or staged for it, that it must find memory for.
    fn brings_new_pages(&self, m: u32) -> bool {
        let drive = &self.drives[m as usize];
        let staged = drive.gathering.new_pages && self.guests[drive.vm.0 as usize].guest.staged() >= 1.0;
        staged || drive.carrier.brings_new_pages()
    }

    /// Bytes of these.
    fn new_pages_left(&self, m: u32) -> f64 {
        let drive = &self.drives[m as usize];
        let staged = if drive.gathering.new_pages { self.guests[drive.vm.0 as usize].guest.staged() } else { 0.0 };
        staged + drive.carrier.pending()
    }

    /// Brings a host's books to the present.
    fn look_at_arrivals(&mut self, host: HostId) {
        for i in 0..self.memory[host.0 as usize].arriving.len() {
            let m = self.memory[host.0 as usize].arriving[i].migration;
            self.sync(m);
            let left = self.new_pages_left(m);
            self.memory[host.0 as usize].arrived(i, left);
        }
    }

    /// A guest has left a host.
    pub(crate) fn memory_freed(&mut self, host: HostId, bytes: f64) {
        self.look_at_arrivals(host);
        self.memory[host.0 as usize].free += bytes;
        self.reclaim(host);
    }

    pub(crate) fn memory_full(&mut self, host: HostId) {
        self.memory[host.0 as usize].full = None;
        self.look_at_arrivals(host);
        self.reclaim(host);
    }

    /// Limits the arrival of new pages as long as there is no memory for them; otherwise computes when that will be.
    fn reclaim(&mut self, host: HostId) {
        let Some(link) = self.wiring.reclaim(host) else { return };
        let memory = &mut self.memory[host.0 as usize];
        let inflow = memory.inflow();
        let reclaiming = memory.free < 1.0 && !memory.arriving.is_empty();
        // A forecast: if there is still room then, there will be another one.
        let ahead = || Span::from_secs_f64(memory.free / inflow).max(Span(1));
        let full = (!reclaiming && inflow > 0.0 && !memory.fits()).then(|| self.now + ahead());
        let key = memory.full;
        if reclaiming != memory.reclaiming {
            memory.reclaiming = reclaiming;
            let capacity = if reclaiming { self.world.hosts[host.0 as usize].swap.0 } else { f64::INFINITY };
            self.net.set_capacity(link, capacity);
            self.net_changed = true;
        }
        let key = self.reset(key, full, || Happening::MemoryFull(host));
        self.memory[host.0 as usize].full = key;
    }
}
