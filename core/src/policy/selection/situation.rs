//! What a choice between techniques depends on, out of measured rates: pure, so that every driver sees the same situation in the same traffic.

use super::{Interfaces, Load, Moving};
use crate::units::Rate;
use std::collections::{BTreeMap, BTreeSet};

/// An end of measured traffic, by the numbers that the driver has for guests and hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A guest.
    Guest(u32),
    /// A host, beside its guests.
    Host(u32),
    /// Neither.
    Outside,
}

/// A rate for each direction, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Both {
    /// Sent.
    pub tx: f64,
    /// Received.
    pub rx: f64,
}

/// What guests and hosts send and receive beyond their own host, in bytes per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// By guest.
    pub guests: BTreeMap<u32, Both>,
    /// Beside their guests, by host.
    pub hosts: BTreeMap<u32, Both>,
}

/// A guest that is to leave one host for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The guest.
    pub guest: u32,
    /// The host that it leaves.
    pub source: u32,
    /// The host that it goes to.
    pub destination: u32,
}

impl Measured {
    /// Traffic of so many bytes per second from one end to another, which are not on the same host.
    pub fn add(&mut self, from: End, to: End, rate: f64) {
        if let Some(both) = self.of(from) {
            both.tx += rate;
        }
        if let Some(both) = self.of(to) {
            both.rx += rate;
        }
    }

    fn of(&mut self, end: End) -> Option<&mut Both> {
        match end {
            End::Guest(guest) => Some(self.guests.entry(guest).or_default()),
            End::Host(host) => Some(self.hosts.entry(host).or_default()),
            End::Outside => None,
        }
    }

    /// What guests that are migrated together, in the order of `together`, and everything else send and receive by the interfaces
    /// concerned. `guests_of` says which guests a host has. All NICs of a host count as one.
    #[must_use]
    pub fn situation<I: IntoIterator<Item = u32>>(
        &self,
        together: &[Leaving],
        guests_of: impl Fn(u32) -> I,
    ) -> (Vec<Moving>, Interfaces) {
        let (mut sources, mut destinations): (BTreeMap<u32, f64>, BTreeMap<u32, f64>) = Default::default();
        for leaving in together {
            let beside = |host: u32| self.hosts.get(&host).copied().unwrap_or_default();
            sources.insert(leaving.source, beside(leaving.source).tx);
            destinations.insert(leaving.destination, beside(leaving.destination).rx);
        }
        let moves: BTreeSet<u32> = together.iter().map(|leaving| leaving.guest).collect();
        let rest = |host: u32| {
            let staying = guests_of(host).into_iter().filter(|guest| !moves.contains(guest));
            staying.filter_map(|guest| self.guests.get(&guest))
        };
        for (&host, out) in &mut sources {
            *out += rest(host).map(|both| both.tx).sum::<f64>();
        }
        for (&host, into) in &mut destinations {
            *into += rest(host).map(|both| both.rx).sum::<f64>();
        }
        let (from, to): (Vec<u32>, Vec<u32>) = (sources.keys().copied().collect(), destinations.keys().copied().collect());
        let place = |of: &[u32], host: u32| of.partition_point(|&other| other < host) as u32;
        let one = |leaving: &Leaving| {
            let both = self.guests.get(&leaving.guest).copied().unwrap_or_default();
            Moving {
                source: place(&from, leaving.source),
                destination: place(&to, leaving.destination),
                load: Load::measured(Rate(both.tx), Rate(both.rx)),
            }
        };
        let moving = together.iter().map(one).collect();
        let outgoing = sources.values().map(|&out| Load::measured(Rate(out), Rate::ZERO).tx).collect();
        let incoming = destinations.values().map(|&into| Load::measured(Rate::ZERO, Rate(into)).rx).collect();
        (moving, Interfaces { outgoing, incoming })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: f64 = 125e3;

    #[test]
    fn guests_that_stay_and_hosts_are_the_background() {
        let mut measured = Measured::default();
        measured.add(End::Guest(0), End::Outside, 20.0 * MBIT);
        measured.add(End::Guest(0), End::Outside, 5.0 * MBIT);
        measured.add(End::Guest(1), End::Guest(2), 7.0 * MBIT);
        measured.add(End::Host(4), End::Host(9), 3.0 * MBIT);
        // Guests 0 and 1 are on host 4, guest 2 on host 9; only 0 goes.
        let guests_of = |host: u32| if host == 4 { vec![0, 1] } else { vec![2] };
        let (moving, interfaces) = measured.situation(&[Leaving { guest: 0, source: 4, destination: 9 }], guests_of);
        assert_eq!(moving, [Moving { source: 0, destination: 0, load: Load { tx: 25, rx: 0 } }]);
        assert_eq!(interfaces, Interfaces { outgoing: vec![10], incoming: vec![10] });
    }

    #[test]
    fn hosts_have_places_in_the_order_of_their_numbers() {
        let leaving = |guest, source, destination| Leaving { guest, source, destination };
        let (moving, interfaces) = Measured::default().situation(&[leaving(3, 7, 1), leaving(5, 2, 6), leaving(8, 7, 6)], |_| []);
        assert_eq!(moving.iter().map(|m| (m.source, m.destination)).collect::<Vec<_>>(), [(1, 0), (0, 1), (1, 1)]);
        assert_eq!(interfaces, Interfaces { outgoing: vec![0; 2], incoming: vec![0; 2] });
    }
}
