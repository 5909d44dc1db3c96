//! Hosts on one machine with a network between them: a namespace per host, and one more for the switch that connects them.
//!
//! NICs have the scenario's rates in both directions; racks' uplinks and hosts' reception are limits of their own ([`plan`]). Nothing of
//! it is visible outside: namespaces are without names ([`namespace`]), and end with the process that made them and the agents in them.

pub(crate) mod cables;
mod namespace;
mod plan;

pub(crate) use namespace::Namespace;

use crate::error::ExecError;
use crate::wire::dial::Way;
use livemig_core::units::Rate;
use livemig_models::world::{Host, Nic, Rack, Role};
use plan::Plan;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// How the hosts of a run are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// By the machine's loopback device: no rates but those of strategies, and no privileges.
    #[default]
    Loopback,
    /// Each in a network namespace, over NICs, racks and limits as in the scenario. Needs root, and `ip` and `tc`.
    Namespaces,
}

/// A host answers for an address only on the NIC that has it, and hears on every NIC what is for it.
const HOST: [(&str, &str); 5] = [
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    QUIET,
];
/// No neighbour discovery on links that are to carry migrations alone.
const QUIET: (&str, &str) = ("ipv6/conf/default/disable_ipv6", "1");

/// One host's place in the network.
#[derive(Debug)]
struct Port {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
    ports: Vec<String>,
}

/// A network that is up. Whatever is in it ends with it.
#[derive(Debug)]
pub(crate) struct Fabric {
    switch: Namespace,
    hosts: Vec<Port>,
}

impl Fabric {
    /// Makes the network of these hosts, in these racks.
    ///
    /// # Errors
    /// Without root, `ip`, `tc` or what they need in the kernel; the text says what is missing.
    pub(crate) fn build(hosts: &[&Host], racks: &[Rack]) -> Result<Fabric, ExecError> {
        let switch = Namespace::new(&[QUIET])?;
        let namespaces = hosts.iter().map(|_| Namespace::new(&HOST)).collect::<Result<Vec<_>, _>>()?;
        let Plan { switch: script, hosts } = Plan::new(hosts, racks, |index| namespaces[index].path());
        switch.batch("ip", &script.ip)?;
        switch.batch("tc", &script.tc)?;
        let ports = namespaces.into_iter().zip(hosts).map(|(namespace, host)| {
            namespace.batch("ip", &host.script.ip)?;
            namespace.batch("tc", &host.script.tc)?;
            let addresses = host.addresses.into_iter().map(IpAddr::V4).collect();
            Ok(Port { namespace, addresses, ports: host.ports })
        });
        Ok(Fabric { hosts: ports.collect::<Result<_, ExecError>>()?, switch })
    }

    /// Where the processes of a host belong.
    pub(crate) fn namespace(&self, host: usize) -> &Namespace {
        &self.hosts[host].namespace
    }

    /// The address of a host's first NIC.
    pub(crate) fn address(&self, host: usize) -> IpAddr {
        self.hosts[host].addresses[0]
    }

    /// The pairs of NICs that connections from one host to another are spread over, at most so many: where each leaves and where it
    /// arrives. With one pair, `choice` says which NICs it has.
    pub(crate) fn ways(&self, (from, to): (usize, usize), port: u16, most: usize, choice: usize) -> Vec<Way> {
        let (here, there) = (&self.hosts[from].addresses, &self.hosts[to].addresses);
        let pairs = here.len().max(there.len()).min(most.max(1));
        let way = |n: usize| Way { from: Some(here[n % here.len()]), ..Way::to(SocketAddr::new(there[n % there.len()], port)) };
        if pairs == 1 { vec![way(choice)] } else { (0..pairs).map(way).collect() }
    }

    /// Pulls every cable of a host, or plugs them in again.
    pub(crate) fn cut(&self, host: usize, cut: bool) -> Result<(), ExecError> {
        let mut commands = String::new();
        for port in &self.hosts[host].ports {
            // Writing to a string does not fail.
            let _ = writeln!(commands, "link set {port} {}", if cut { "down" } else { "up" });
        }
        self.switch.batch("ip", &commands)
    }
}

/// A host with one NIC, which is never a bottleneck.
pub(crate) fn unlimited(name: &str) -> Host {
    Host {
        name: name.to_owned(),
        role: Role::Host,
        rack: None,
        nics: vec![Nic { rate: Rate(f64::INFINITY), goodput: 1.0 }],
        cores: 1,
        memory: None,
        reception: None,
        swap: Rate(0.0),
        service: None,
        storage: None,
    }
}

/// Whether networks can be made here: makes one and drops it.
///
/// # Errors
/// What is missing.
pub(crate) fn try_out() -> Result<(), ExecError> {
    let nics = vec![Nic { rate: Rate(1e9), goodput: 1.0 }];
    let host = Host { nics, reception: Some(Rate(1e8)), ..unlimited("") };
    Fabric::build(&[&host, &host], &[]).map(drop)
}
