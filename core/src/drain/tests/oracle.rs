//! A drain's books kept the slow way: every decision by a look at every VM and every host.

use crate::drain::*;
use crate::policy::placement::Placement;
use crate::units::Bytes;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Vm {
    Rests,
    Pending,
    Running(u32),
    Evicted(u32),
    Over,
}

/// A host to be drained.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// Its turn has come.
    pub(super) begun: bool,
    /// Nobody arrives there any more.
    pub(super) open: bool,
    /// Its guests have all left or were given up.
    pub(super) ended: bool,
    /// They have all left.
    pub(super) emptied: bool,
    pub(super) returned: bool,
    stalled: bool,
}

pub(super) struct Oracle {
    pub(super) plan: Plan,
    pub(super) state: Vec<Vm>,
    pub(super) host_of: Vec<u32>,
    pub(super) given: Vec<Option<u32>>,
    pub(super) failures: Vec<u8>,
    pub(super) withdrawn: Vec<bool>,
    pub(super) dead: Vec<bool>,
    pub(super) cut: Vec<bool>,
    /// By host; the default for hosts that are not drained.
    pub(super) turns: Vec<Turn>,
    pub(super) ceiling: Vec<u64>,
    pub(super) fates: Vec<(u32, u32, Fate)>,
    pub(super) rx: Vec<u64>,
    pub(super) beside: Vec<u64>,
    /// The guests of each open host in their order.
    order: Vec<Vec<u32>>,
}

impl Oracle {
    pub(super) fn new(plan: Plan) -> Oracle {
        let hosts = plan.hosts.len();
        Oracle {
            state: vec![Vm::Rests; plan.vms.len()],
            host_of: plan.vms.iter().map(|v| v.host.0).collect(),
            given: plan.vms.iter().map(|v| v.to.map(|t| t.0)).collect(),
            failures: vec![0; plan.vms.len()],
            withdrawn: vec![false; plan.vms.len()],
            dead: vec![false; hosts],
            cut: vec![false; hosts],
            turns: vec![Turn::default(); hosts],
            ceiling: vec![u64::MAX; hosts],
            fates: Vec::new(),
            rx: vec![0; plan.vms.len()],
            beside: vec![0; hosts],
            order: vec![Vec::new(); hosts],
            plan,
        }
    }

    fn memory(&self, vm: u32) -> u64 {
        self.plan.vms[vm as usize].memory.0
    }

    fn count(&self, of: impl Fn(usize) -> bool) -> u32 {
        (0..self.state.len()).filter(|&vm| of(vm)).count() as u32
    }

    /// Bytes that guests and reservations take at a host.
    pub(super) fn used(&self, host: u32) -> u64 {
        self.at(host, |vm| self.memory(vm))
    }

    /// Bytes per second that a host receives.
    fn received(&self, host: u32) -> u64 {
        self.beside[host as usize] + self.at(host, |vm| self.rx[vm as usize])
    }

    fn at(&self, host: u32, what: impl Fn(u32) -> u64) -> u64 {
        let takes = |vm: usize| match self.state[vm] {
            Vm::Running(to) => u64::from(self.host_of[vm] == host) + u64::from(to == host),
            Vm::Evicted(to) => u64::from(to == host),
            Vm::Rests | Vm::Pending | Vm::Over => u64::from(self.host_of[vm] == host),
        };
        (0..self.state.len()).map(|vm| takes(vm) * what(vm as u32)).sum()
    }

    pub(super) fn incoming(&self, host: u32) -> u32 {
        self.count(|vm| matches!(self.state[vm], Vm::Running(to) | Vm::Evicted(to) if to == host))
    }

    pub(super) fn outgoing(&self, host: u32) -> u32 {
        self.count(|vm| self.host_of[vm] == host && matches!(self.state[vm], Vm::Running(_)))
    }

    pub(super) fn running(&self) -> u32 {
        self.count(|vm| matches!(self.state[vm], Vm::Running(_) | Vm::Evicted(_)))
    }

    pub(super) fn is_listed(&self, host: u32) -> bool {
        self.plan.drained.contains(&HostIndex(host))
    }

    fn waits(&self, host: u32) -> bool {
        self.is_listed(host) && !self.turns[host as usize].begun
    }

    fn room(&self, host: u32) -> Option<u64> {
        let h = host as usize;
        let serves = if self.waits(host) { self.plan.onto_waiting } else { !self.is_listed(host) || self.turns[h].returned };
        let full = self.plan.limits.per_destination.is_some_and(|l| self.incoming(host) >= l);
        let free = self.plan.hosts[h].map_or(u64::MAX, |c| c.0).saturating_sub(self.used(host));
        (serves && !full && !self.dead[h] && !self.cut[h]).then_some(free.min(self.ceiling[h]))
    }

    fn place(&self, vm: u32) -> Option<u32> {
        let fits = |&host: &u32| self.room(host).is_some_and(|room| room >= self.memory(vm));
        if let Some(to) = self.given[vm as usize] {
            return Some(to).filter(fits);
        }
        let candidate = |host: &u32| self.plan.candidates.contains(&HostIndex(*host));
        let settled = self.plan.candidates.iter().map(|h| h.0).filter(|&h| !self.waits(h));
        let waiting = self.plan.drained.iter().rev().map(|h| h.0).filter(|&h| self.waits(h)).filter(candidate);
        self.best(settled.filter(fits)).or_else(|| self.best(waiting.filter(fits)))
    }

    /// The host among those that have room.
    fn best(&self, mut hosts: impl Iterator<Item = u32>) -> Option<u32> {
        match self.plan.placement {
            Placement::FirstFit => hosts.next(),
            Placement::MostRoom => hosts.min_by_key(|&h| std::cmp::Reverse(self.room(h).map(|room| room.min(u64::MAX - 1)))),
            Placement::LeastTraffic => hosts.min_by_key(|&h| self.received(h)),
        }
    }

    pub(super) fn end(&mut self, vm: u32, fate: Fate) {
        self.state[vm as usize] = Vm::Over;
        self.fates.push((vm, self.host_of[vm as usize], fate));
    }

    /// The guests of a failed host that wait are gone; turns whose guests have all left or were given up are over.
    fn tidy(&mut self) {
        for host in 0..self.dead.len() as u32 {
            let h = host as usize;
            if self.turns[h].begun && !self.turns[h].open && self.incoming(host) == 0 {
                self.open(host);
            }
            for vm in self.order[h].clone() {
                let pending = self.state[vm as usize] == Vm::Pending && self.host_of[vm as usize] == host;
                if pending && self.withdrawn[vm as usize] {
                    self.end(vm, Fate::Cancelled);
                } else if pending && self.dead[h] {
                    self.end(vm, Fate::Lost);
                }
            }
            let here = |vm: &&u32| self.host_of[**vm as usize] == host;
            let left =
                self.order[h].iter().filter(here).filter(|&&vm| matches!(self.state[vm as usize], Vm::Pending | Vm::Running(_)));
            if self.turns[h].open && !self.turns[h].ended && left.count() == 0 {
                let given_up = self.order[h].iter().filter(here).any(|&vm| self.state[vm as usize] == Vm::Over);
                (self.turns[h].ended, self.turns[h].emptied) = (true, !given_up && !self.dead[h]);
            }
        }
    }

    /// The guests that are there now are to leave, in their order.
    fn open(&mut self, host: u32) {
        self.turns[host as usize].open = true;
        let there = |vm: &u32| self.host_of[*vm as usize] == host && self.state[*vm as usize] == Vm::Rests;
        let mut guests: Vec<u32> = (0..self.state.len() as u32).filter(there).collect();
        guests.sort_by_key(|&vm| {
            let memory = Bytes(self.memory(vm));
            (self.plan.order.rank(&crate::policy::order::Traits { memory, ..Default::default() }), vm)
        });
        for &vm in &guests {
            self.state[vm as usize] = Vm::Pending;
        }
        self.order[host as usize] = guests;
    }

    pub(super) fn awaited(&self, host: u32) -> bool {
        let (h, t) = (host as usize, self.turns[host as usize]);
        self.plan.returns && t.emptied && !t.returned && !self.dead[h]
    }

    pub(super) fn in_wave(&self) -> u32 {
        let counts = |&h: &u32| {
            let t = self.turns[h as usize];
            t.begun && !t.stalled && (!t.ended || self.awaited(h))
        };
        (0..self.turns.len() as u32).filter(counts).count() as u32
    }

    /// Whether a host is expected back on which the drain depends.
    fn expects(&self) -> bool {
        let named = |h: u32| {
            let given = self.plan.vms.iter().any(|vm| vm.to == Some(HostIndex(h)));
            given || self.is_listed(h) || self.plan.candidates.contains(&HostIndex(h))
        };
        (0..self.dead.len() as u32).any(|h| self.awaited(h) || (self.cut[h as usize] && !self.dead[h as usize] && named(h)))
    }

    /// The first VM that can start, and where to.
    fn next(&self) -> Option<(u32, u32)> {
        if self.plan.limits.per_cluster.is_some_and(|l| self.running() >= l) {
            return None;
        }
        for host in &self.plan.drained {
            let h = host.0 as usize;
            if self.cut[h] || self.dead[h] || self.outgoing(host.0) >= self.plan.limits.per_host {
                continue;
            }
            let pending = |vm: &&u32| self.host_of[**vm as usize] == host.0 && self.state[**vm as usize] == Vm::Pending;
            if let Some(found) = self.order[h].iter().filter(pending).find_map(|&vm| Some((vm, self.place(vm)?))) {
                return Some(found);
            }
        }
        None
    }

    /// What is started now.
    pub(super) fn starts(&mut self) -> Vec<(u32, u32)> {
        let mut starts = Vec::new();
        loop {
            self.tidy();
            let next_turn = self.plan.drained.iter().find(|h| self.waits(h.0)).map(|h| h.0);
            if let Some(host) = next_turn.filter(|_| self.plan.limits.hosts_at_once.is_none_or(|l| self.in_wave() < l)) {
                self.turns[host as usize].begun = true;
                continue;
            }
            if let Some((vm, to)) = self.next() {
                self.state[vm as usize] = Vm::Running(to);
                starts.push((vm, to));
                continue;
            }
            let active: Vec<u32> = (0..self.turns.len() as u32).filter(|&h| self.turns[h as usize].open).collect();
            let active: Vec<u32> = active.into_iter().filter(|&h| !self.turns[h as usize].ended).collect();
            if self.running() > 0 || self.expects() || active.is_empty() {
                return starts;
            }
            for h in active {
                if next_turn.is_some() {
                    self.turns[h as usize].stalled = true;
                    continue;
                }
                for vm in self.order[h as usize].clone() {
                    if self.host_of[vm as usize] == h && self.state[vm as usize] == Vm::Pending {
                        let why = match self.given[vm as usize].map(|to| self.room(to)) {
                            None => NoPlace::NoRoom,
                            Some(Some(_)) => NoPlace::DestinationFull,
                            Some(None) => NoPlace::DestinationClosed,
                        };
                        self.end(vm, Fate::Unplaced(why));
                    }
                }
            }
        }
    }
}
