//! The technique of VMs that leave several sources for several destinations: the largest burden of any interface shall be as small as
//! possible. The paper (Deshpande and Keahey, CCGrid 2015) leaves different destinations and combinations across hosts as future
//! work; what is here is *[ours]*.
//!
//! Interfaces that no VM connects do not matter to each other, so that the VMs fall into groups. A group with one source and one
//! destination is solved exactly ([`super::pair`]). Any other group is the problem of graph balancing (Ebenlendr, Krcal and Sgall,
//! Algorithmica 68, 2014), which is hard however small the rates are; it is searched by branch and bound ([`super::branch`]) up to a number
//! of combinations that suffices for 16 VMs whatever their rates, and for many more as a rule. Beyond it the best that was found is kept,
//! and the result says that it was not proven.
//!
//! The sum decides only among combinations with the least largest burden of *all* interfaces; so each group is solved a second
//! time, with what the worst group has as its limit.

use super::branch;
use super::pair;
use super::{Burden, Interfaces, Load, Moving, Selected, Technique};
use std::collections::BTreeMap;

/// VMs that are connected through the interfaces that they burden.
#[derive(Debug, Default)]
struct Group {
    vms: Vec<usize>,
    sources: Vec<u32>,
    destinations: Vec<u32>,
}

/// The techniques for which the largest burden of any interface is least; among equals those with the smaller sum of all, then those with
/// more VMs pre-copied.
///
/// # Panics
/// When a VM names an interface that is not among `interfaces`.
#[must_use]
pub fn select(vms: &[Moving], interfaces: &Interfaces) -> Selected {
    let mut techniques: Vec<Technique> = vms.iter().map(|vm| Technique::post_copy_if(vm.load.tx > 0 && vm.load.rx == 0)).collect();
    let groups = groups(vms, interfaces);
    // No combination has less than what is there in any case.
    let mut floor = interfaces.outgoing.iter().chain(&interfaces.incoming).copied().max().unwrap_or(0).into();
    let first: Vec<(Burden, bool)> = groups.iter().map(|group| group.solve(vms, interfaces, 0, &mut techniques)).collect();
    floor = first.iter().fold(floor, |floor, (burden, _)| burden.largest.max(floor));
    let mut proven = true;
    for (group, (burden, exact)) in groups.iter().zip(first) {
        proven &= exact;
        if burden.largest < floor {
            proven &= group.solve(vms, interfaces, floor, &mut techniques).1;
        }
    }
    Selected { burden: Burden::of(vms, interfaces, &techniques), techniques, proven }
}

/// The groups of VMs that burden an interface either way, in the order of their first VMs.
fn groups(vms: &[Moving], interfaces: &Interfaces) -> Vec<Group> {
    let sources = interfaces.outgoing.len();
    let mut parents: Vec<usize> = (0..sources + interfaces.incoming.len()).collect();
    let open = || (0..vms.len()).filter(|&vm| vms[vm].load.tx > 0 && vms[vm].load.rx > 0);
    let ends = |vm: usize| (vms[vm].source as usize, sources + vms[vm].destination as usize);
    for vm in open() {
        let (source, destination) = ends(vm);
        let (a, b) = (root(&mut parents, source), root(&mut parents, destination));
        parents[a.max(b)] = a.min(b);
    }
    let mut number: BTreeMap<usize, usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for vm in open() {
        let root = root(&mut parents, ends(vm).0);
        let group = *number.entry(root).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Group::default());
        }
        groups[group].vms.push(vm);
        groups[group].sources.push(vms[vm].source);
        groups[group].destinations.push(vms[vm].destination);
    }
    for group in &mut groups {
        for ends in [&mut group.sources, &mut group.destinations] {
            ends.sort_unstable();
            ends.dedup();
        }
    }
    groups
}

/// The interface that stands for all that are connected with this one.
fn root(parents: &mut [usize], mut of: usize) -> usize {
    while parents[of] != of {
        parents[of] = parents[parents[of]];
        of = parents[of];
    }
    of
}

impl Group {
    /// Decides about the group's VMs; interfaces with less than `floor` count as having that. Returns the group's burden, and whether no
    /// combination is better.
    fn solve(&self, vms: &[Moving], interfaces: &Interfaces, floor: u64, techniques: &mut [Technique]) -> (Burden, bool) {
        let background = |list: &[u32], at: &[u32]| at.iter().map(|&i| list[i as usize]).collect::<Vec<u32>>();
        let outgoing = background(&interfaces.outgoing, &self.sources);
        let incoming = background(&interfaces.incoming, &self.destinations);
        let place = |list: &[u32], interface: u32| list.binary_search(&interface).expect("listed when the group was made") as u32;
        let moving = |&vm: &usize| Moving {
            source: place(&self.sources, vms[vm].source),
            destination: place(&self.destinations, vms[vm].destination),
            load: vms[vm].load,
        };
        let members: Vec<Moving> = self.vms.iter().map(moving).collect();
        let interfaces = Interfaces { outgoing, incoming };
        let (chosen, proven) = if let ([outgoing], [incoming]) = (&interfaces.outgoing[..], &interfaces.incoming[..]) {
            let loads: Vec<Load> = members.iter().map(|m| m.load).collect();
            (pair::select(&loads, Load { tx: *outgoing, rx: *incoming }, floor), true)
        } else {
            branch::select(&members, &interfaces, floor)
        };
        for (&vm, &technique) in self.vms.iter().zip(&chosen) {
            techniques[vm] = technique;
        }
        (Burden::of(&members, &interfaces, &chosen), proven)
    }
}
