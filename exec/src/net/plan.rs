//! What a world's hosts, NICs, racks and limits become in namespaces: commands for `ip` and `tc`, and addresses.
//!
//! ```text
//! namespace of host 0          namespace of the switch                              namespace of host 1
//!   eth0 (tbf: tx) ------------ h0n0 (tbf: rx) -+- core -+- up1 (tbf) --- down1 -+- host1 -- h1n0 (tbf: rx) ---- eth0 (tbf: tx)
//!   eth1 (tbf: tx) ------------ h0n1 (tbf: rx) -+        |     reception of 1            -- h1n1 (tbf: rx) ---- eth1 (tbf: tx)
//! ```
//!
//! What several NICs share, a rack's uplink and a host's reception, is a cable between two bridges. All NICs are in one subnet; what
//! leaves with a NIC's address leaves by that NIC.

use livemig_core::units::Rate;
use livemig_models::world::{Host, Rack};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Of an Ethernet frame of 1514 bytes, what TCP with time stamps carries: 1448 bytes.
const PAYLOAD: f64 = 1448.0 / 1514.0;
/// What may go at once after a pause, in seconds of the rate.
const BURST: f64 = 0.002;
/// What may wait for its turn, in seconds of the rate; more is dropped.
const QUEUE: f64 = 0.02;
/// The least that may go at once: a frame and some; and the least that may wait: what a socket hands over at once, twice.
const LEAST: (u64, u64) = (4096, 128 << 10);
/// A table of routes for each NIC of a host, from this number on.
const TABLES: usize = 100;

/// Commands for one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// For `ip`, one a line.
    pub(super) ip: String,
    /// For `tc`, one a line, afterwards.
    pub(super) tc: String,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPlan {
    pub(super) script: Script,
    /// The address of each NIC.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// The switch's end of each NIC's cable.
    pub(super) ports: Vec<String>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) switch: Script,
    pub(super) hosts: Vec<HostPlan>,
}

impl Script {
    fn ip(&mut self, command: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.ip, "{command}");
    }

    /// What leaves by this device is limited, unless the rate has no bound.
    fn limit(&mut self, device: &str, rate: Rate) {
        if rate.0.is_infinite() {
            return;
        }
        let bits = ((rate.0 * 8.0).round() as u64).max(8);
        let burst = ((rate.0 * BURST) as u64).max(LEAST.0);
        let queue = burst + ((rate.0 * QUEUE) as u64).max(LEAST.1);
        let _ = writeln!(self.tc, "qdisc add dev {device} root tbf rate {bits}bit burst {burst} limit {queue}");
    }

    fn bridge(&mut self, name: &str) {
        self.ip(format_args!("link add {name} type bridge"));
        self.ip(format_args!("link set {name} up"));
    }

    /// A cable between two bridges, limited in one or both directions.
    fn cable(&mut self, (upper, up): (&str, Option<Rate>), (lower, down): (&str, Option<Rate>), number: &str) {
        let (top, bottom) = (format!("up{number}"), format!("down{number}"));
        self.ip(format_args!("link add {top} type veth peer name {bottom}"));
        for (device, bridge) in [(&top, upper), (&bottom, lower)] {
            self.ip(format_args!("link set {device} master {bridge} up"));
        }
        // What leaves the upper bridge goes down.
        for (device, rate) in [(&top, down), (&bottom, up)] {
            if let Some(rate) = rate {
                self.limit(device, rate);
            }
        }
    }
}

/// The line rate at which so much payload gets through.
fn line(payload: Rate) -> Rate {
    Rate(payload.0 / PAYLOAD)
}

impl Plan {
    /// The plan for these hosts; `namespace` is where `ip` finds the namespace of each.
    pub(super) fn new(hosts: &[&Host], racks: &[Rack], namespace: impl Fn(usize) -> String) -> Plan {
        let mut switch = Script::default();
        switch.bridge("core");
        for (index, rack) in racks.iter().enumerate() {
            if let Some(uplink) = rack.uplink.map(line) {
                let bridge = rack_bridge(index);
                switch.bridge(&bridge);
                switch.cable(("core", Some(uplink)), (&bridge, Some(uplink)), &format!("r{index}"));
            }
        }
        let mut used = 0;
        let hosts = hosts.iter().enumerate().map(|(index, host)| {
            let limited = host.rack.filter(|&rack| racks[rack as usize].uplink.is_some());
            let mut bridge = limited.map_or_else(|| "core".to_owned(), |rack| rack_bridge(rack as usize));
            if let Some(reception) = host.reception.map(line) {
                let own = format!("host{index}");
                switch.bridge(&own);
                switch.cable((&bridge, None), (&own, Some(reception)), &format!("h{index}"));
                bridge = own;
            }
            let mut plan = HostPlan { script: Script::default(), addresses: Vec::new(), ports: Vec::new() };
            plan.script.ip(format_args!("link set lo up"));
            for (k, nic) in host.nics.iter().enumerate() {
                let (port, address) = (format!("h{index}n{k}"), address(used));
                used += 1;
                switch.ip(format_args!("link add {port} type veth peer name eth{k} netns {}", namespace(index)));
                switch.ip(format_args!("link set {port} master {bridge} up"));
                switch.limit(&port, nic.rate);
                plan.script.ip(format_args!("address add {address}/8 dev eth{k}"));
                plan.script.ip(format_args!("link set eth{k} up"));
                plan.script.ip(format_args!("route add 10.0.0.0/8 dev eth{k} table {}", TABLES + k));
                plan.script.ip(format_args!("rule add from {address} table {}", TABLES + k));
                plan.script.limit(&format!("eth{k}"), nic.rate);
                plan.addresses.push(address);
                plan.ports.push(port);
            }
            plan
        });
        let hosts = hosts.collect();
        Plan { switch, hosts }
    }
}

fn rack_bridge(index: usize) -> String {
    format!("rack{index}")
}

/// The address of the NIC with this number, counted over all hosts: 10.0.0.1, 10.0.0.2, ...
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_models::world::Nic;

    fn host(mbits: &[f64], rack: Option<u32>, reception: Option<f64>) -> Host {
        let nics = mbits.iter().map(|&rate| Nic { rate: mbit(rate), goodput: 1.0 }).collect();
        Host { rack, nics, reception: reception.map(mbit), ..crate::net::unlimited("") }
    }

    fn mbit(rate: f64) -> Rate {
        Rate(rate * 1e6 / 8.0)
    }

    fn plan(hosts: &[Host], racks: &[Rack]) -> Plan {
        Plan::new(&hosts.iter().collect::<Vec<_>>(), racks, |index| format!("/ns/{index}"))
    }

    #[test]
    fn nics_are_limited_at_both_ends() {
        let plan = plan(&[host(&[1000.0, 10_000.0], None, None), host(&[0.008], None, None)], &[]);
        let tc = |script: &Script| script.tc.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            tc(&plan.hosts[0].script),
            [
                "qdisc add dev eth0 root tbf rate 1000000000bit burst 250000 limit 2750000",
                "qdisc add dev eth1 root tbf rate 10000000000bit burst 2500000 limit 27500000"
            ]
        );
        assert_eq!(tc(&plan.hosts[1].script), ["qdisc add dev eth0 root tbf rate 8000bit burst 4096 limit 135168"]);
        let ports: Vec<&str> = plan.switch.tc.lines().filter_map(|line| line.split(' ').nth(3)).collect();
        assert_eq!(ports, ["h0n0", "h0n1", "h1n0"]);
        assert_eq!(plan.hosts[0].addresses, [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(plan.hosts[1].addresses, [Ipv4Addr::new(10, 0, 0, 3)]);
        assert!(plan.switch.ip.contains("link add h0n1 type veth peer name eth1 netns /ns/0\n"), "{}", plan.switch.ip);
        assert!(plan.hosts[0].script.ip.contains("rule add from 10.0.0.2 table 101\n"), "{}", plan.hosts[0].script.ip);
    }

    #[test]
    fn what_is_outside_is_no_bottleneck() {
        let plan = plan(&[host(&[100.0], None, None), crate::net::unlimited("outside")], &[]);
        assert!(plan.switch.ip.contains("link set h1n0 master core up"), "{}", plan.switch.ip);
        assert!(!plan.switch.tc.contains("h1n0") && plan.hosts[1].script.tc.is_empty(), "{}", plan.switch.tc);
        assert!(plan.switch.tc.contains("h0n0") && !plan.hosts[0].script.tc.is_empty());
    }

    #[test]
    fn what_nics_share_is_a_cable_of_its_own() {
        let racks = [Rack { name: String::new(), uplink: Some(mbit(2000.0)) }];
        let plan = plan(&[host(&[1000.0], None, None), host(&[1000.0, 1000.0], Some(0), Some(362.0))], &racks);
        let ip = &plan.switch.ip;
        for line in ["upr0 master core up", "downr0 master rack0 up", "uph1 master rack0 up", "downh1 master host1 up"] {
            assert!(ip.contains(&format!("link set {line}")), "{line}: {ip}");
        }
        assert!(ip.contains("link set h0n0 master core up") && ip.contains("link set h1n1 master host1 up"), "{ip}");
        // 362 Mbit/s of payload are 378.5 on the line; nothing limits what leaves the host there.
        let tc = &plan.switch.tc;
        assert!(tc.contains("dev uph1 root tbf rate 378500000bit") && !tc.contains("downh1"), "{tc}");
        assert!(tc.contains("dev upr0 ") && tc.contains("dev downr0 "), "{tc}");
        // Devices have names of at most 15 characters.
        assert!(ip.split_whitespace().all(|word| word.len() <= 15), "{ip}");
    }
}
