//! The links of a world and the routes over them.

use crate::network::{LinkId, Network};
use livemig_core::vocabulary::Region;
use livemig_models::world::{HostId, World};

/// The links of one host.
#[derive(Debug)]
struct HostLinks {
    /// Transmit and receive side of each NIC.
    nics: Vec<(LinkId, LinkId)>,
    rack: Option<u32>,
    /// Limit of incoming migration traffic.
    reception: Option<LinkId>,
    /// Limit of what it stores and hands out for migrations.
    service: Option<LinkId>,
    /// Limit of what its disks read and write for migrations.
    storage: Option<LinkId>,
    /// Limit of incoming new pages while the host must free memory for them; open otherwise.
    reclaim: Option<LinkId>,
}

/// A route: one link after the other.
pub(crate) type Route = Vec<LinkId>;

/// All links of a world.
#[derive(Debug)]
pub(crate) struct Wiring {
    hosts: Vec<HostLinks>,
    /// Uplink and downlink of each rack.
    racks: Vec<Option<(LinkId, LinkId)>>,
}

impl Wiring {
    pub(crate) fn new(world: &World, net: &mut Network) -> Wiring {
        let racks =
            world.racks.iter().map(|r| r.uplink.map(|rate| (net.add_link(rate.0), net.add_link(rate.0)))).collect::<Vec<_>>();
        let hosts = world
            .hosts
            .iter()
            .map(|h| HostLinks {
                nics: h.nics.iter().map(|n| (net.add_link(n.rate.0 * n.goodput), net.add_link(n.rate.0 * n.goodput))).collect(),
                rack: h.rack,
                reception: h.reception.map(|r| net.add_link(r.0)),
                service: h.service.map(|r| net.add_link(r.0)),
                storage: h.storage.map(|r| net.add_link(r.0)),
                reclaim: h.memory.map(|_| net.add_link(f64::INFINITY)),
            })
            .collect();
        Wiring { hosts, racks }
    }

    pub(crate) fn reclaim(&self, host: HostId) -> Option<LinkId> {
        self.hosts[host.0 as usize].reclaim
    }

    /// Both sides of each NIC of a host.
    pub(crate) fn nics(&self, host: HostId) -> &[(LinkId, LinkId)] {
        &self.hosts[host.0 as usize].nics
    }

    /// The route of traffic between two hosts, or between a host and the outside, over the NICs that `choice` falls on.
    pub(crate) fn traffic(&self, from: Option<HostId>, to: Option<HostId>, choice: usize) -> Route {
        let mut route = Route::new();
        if from == to {
            return route;
        }
        let rack = |h: Option<HostId>| h.and_then(|h| self.hosts[h.0 as usize].rack);
        let leaves_rack = rack(from) != rack(to);
        if let Some(from) = from {
            let nics = self.nics(from);
            route.push(nics[choice % nics.len()].0);
        }
        if leaves_rack {
            route.extend(rack(from).and_then(|r| self.racks[r as usize]).map(|(up, _)| up));
            route.extend(rack(to).and_then(|r| self.racks[r as usize]).map(|(_, down)| down));
        }
        if let Some(to) = to {
            let nics = self.nics(to);
            route.push(nics[choice % nics.len()].1);
        }
        route
    }

    /// The routes of a migration's streams: over as many NIC pairs as both hosts have, but over at most so many. Blocks of a disk pass
    /// through the storage of both hosts and take no memory.
    pub(crate) fn migration(&self, region: Region, from: HostId, to: HostId, most: u16, choice: usize) -> Vec<Route> {
        let pairs = self.nics(from).len().max(self.nics(to).len()).min(usize::from(most));
        (0..pairs)
            .map(|i| {
                let mut route = self.traffic(Some(from), Some(to), if pairs > 1 { i } else { choice });
                let host = &self.hosts[to.0 as usize];
                route.extend(self.hosts[from.0 as usize].service);
                route.extend(host.service);
                route.extend(host.reception);
                match region {
                    Region::Memory => route.extend(host.reclaim),
                    Region::Disk => route.extend([self.hosts[from.0 as usize].storage, host.storage].into_iter().flatten()),
                }
                route
            })
            .collect()
    }
}
