//! The technique of VMs on any number of interfaces, by branch and bound (Land and Doig, Econometrica 28, 1960). *[ours]*
//!
//! The search begins with what local search finds: VMs go the other way as long as that makes the sum of the squares of the burdens
//! smaller, then leave the interface with the largest burden as long as that helps, then go the way that makes the sum smaller
//! where the largest burden allows it. The bound on the largest burden is that of [`super::pair`] with a
//! weight per interface; the weights grow where the burden is large, as in multiplicative weight updates (Plotkin, Shmoys and
//! Tardos, Mathematics of Operations Research 20, 1995), and any weights give a valid bound.

use super::{Burden, Interfaces, Moving, Technique};

/// The most steps of a search: all combinations of 16 VMs can be tried.
const STEPS: u32 = 1 << 17;
/// The most VMs that are searched; of more, the result is what local search finds.
const MOST: usize = 1000;
/// The most rounds in which local search looks at every VM.
const PASSES: u32 = 50;
/// Rounds of the search for weights.
const ROUNDS: u32 = 100;
/// By how much a weight moves in a round.
const STEP: f64 = 0.3;
/// The weights' unit.
const UNIT: f64 = (1 << 20) as f64;

/// The best combination that was found, and whether no other is better. Interfaces with less than `floor` count as having that.
pub(super) fn select(vms: &[Moving], interfaces: &Interfaces, floor: u64) -> (Vec<Technique>, bool) {
    let mut found = Loads::new(vms, interfaces, floor);
    found.improve();
    if vms.len() > MOST {
        return (found.techniques, false);
    }
    // What decides most comes first.
    let mut order: Vec<usize> = (0..vms.len()).collect();
    order.sort_by_key(|&vm| (std::cmp::Reverse(vms[vm].load.tx.min(vms[vm].load.rx)), vm));
    let mut search = Search::new(vms, interfaces, floor, &order, &found);
    search.descend(0);
    (search.best, search.steps < STEPS)
}

/// A combination with what it burdens each interface with: sources first, then destinations.
struct Loads<'a> {
    vms: &'a [Moving],
    sources: usize,
    floor: u64,
    techniques: Vec<Technique>,
    loads: Vec<u64>,
    /// The VMs of each interface.
    at: Vec<Vec<usize>>,
}

impl<'a> Loads<'a> {
    /// Every VM goes the way on which it burdens less.
    fn new(vms: &'a [Moving], interfaces: &Interfaces, floor: u64) -> Loads<'a> {
        let sources = interfaces.outgoing.len();
        let mut loads: Vec<u64> = interfaces.outgoing.iter().chain(&interfaces.incoming).map(|&l| l.into()).collect();
        let techniques: Vec<Technique> = vms.iter().map(|vm| Technique::post_copy_if(vm.load.rx < vm.load.tx)).collect();
        let mut at = vec![Vec::new(); loads.len()];
        for (i, (vm, &technique)) in vms.iter().zip(&techniques).enumerate() {
            let (interface, load) = burdens(vm, technique, sources);
            loads[interface] += load;
            for technique in [Technique::PreCopy, Technique::PostCopy] {
                at[burdens(vm, technique, sources).0].push(i);
            }
        }
        Loads { vms, sources, floor, techniques, loads, at }
    }

    fn burden(&self) -> Burden {
        Burden {
            largest: self.loads.iter().copied().max().unwrap_or(0).max(self.floor),
            sum: self.loads.iter().sum(),
            post_copied: self.techniques.iter().filter(|t| **t == Technique::PostCopy).count(),
        }
    }

    /// Where a VM's burden is, and where it would be otherwise, with what that interface would have then.
    fn other(&self, vm: usize) -> (usize, usize, u64) {
        let now = self.techniques[vm];
        let (there, load) = burdens(&self.vms[vm], now.other(), self.sources);
        (burdens(&self.vms[vm], now, self.sources).0, there, self.loads[there] + load)
    }

    fn turn(&mut self, vm: usize) {
        let (here, there, then) = self.other(vm);
        self.loads[here] -= burdens(&self.vms[vm], self.techniques[vm], self.sources).1;
        self.loads[there] = then;
        self.techniques[vm] = self.techniques[vm].other();
    }

    fn improve(&mut self) {
        for _ in 0..PASSES {
            if !self.level() {
                break;
            }
        }
        while self.relieve() {}
        let largest = self.burden().largest;
        loop {
            let cheaper = |&vm: &usize| {
                let load = self.vms[vm].load;
                let better = match self.techniques[vm] {
                    Technique::PreCopy => load.rx < load.tx,
                    Technique::PostCopy => load.tx <= load.rx,
                };
                better && self.other(vm).2 <= largest
            };
            let Some(vm) = (0..self.vms.len()).find(cheaper) else { return };
            self.turn(vm);
        }
    }

    /// Turns every VM for which that makes the sum of the squares smaller; false when there is none.
    fn level(&mut self) -> bool {
        let mut turned = false;
        for vm in 0..self.vms.len() {
            let (here, there, then) = self.other(vm);
            let square = |load: u64| u128::from(load).pow(2);
            let left = self.loads[here] - burdens(&self.vms[vm], self.techniques[vm], self.sources).1;
            if square(left) + square(then) < square(self.loads[here]) + square(self.loads[there]) {
                self.turn(vm);
                turned = true;
            }
        }
        turned
    }

    /// Turns the VM that helps the interface with the largest burden most; false when none does.
    fn relieve(&mut self) -> bool {
        let Some((worst, &most)) = self.loads.iter().enumerate().max_by_key(|&(i, &load)| (load, std::cmp::Reverse(i))) else {
            return false;
        };
        let here = self.at[worst].iter().copied().filter(|&vm| self.other(vm).0 == worst);
        let best = here.map(|vm| (self.other(vm).2, vm)).min();
        match best {
            Some((then, vm)) if then < most && most > self.floor => {
                self.turn(vm);
                true
            }
            _ => false,
        }
    }
}

/// The interface that a VM burdens, and with what.
fn burdens(vm: &Moving, technique: Technique, sources: usize) -> (usize, u64) {
    match technique {
        Technique::PreCopy => (vm.source as usize, vm.load.tx.into()),
        Technique::PostCopy => (sources + vm.destination as usize, vm.load.rx.into()),
    }
}

/// One way that a VM can go.
#[derive(Clone, Copy)]
struct Way {
    technique: Technique,
    interface: usize,
    load: u64,
    weighted: u128,
}

struct Search {
    /// Both ways of each VM in the order of the search, the cheaper first, with the VM.
    ways: Vec<([Way; 2], usize)>,
    /// From each VM on: the least sum, and the least weighted sum.
    rest: Vec<(u64, u128)>,
    weight: u128,
    floor: u64,
    loads: Vec<u64>,
    sum: u64,
    weighted: u128,
    post_copied: usize,
    techniques: Vec<Technique>,
    best: Vec<Technique>,
    burden: Burden,
    steps: u32,
}

impl Search {
    fn new(vms: &[Moving], interfaces: &Interfaces, floor: u64, order: &[usize], found: &Loads<'_>) -> Search {
        let sources = interfaces.outgoing.len();
        let weights = weights(vms, interfaces);
        let way = |vm: usize, technique| {
            let (interface, load) = burdens(&vms[vm], technique, sources);
            Way { technique, interface, load, weighted: weights[interface] * u128::from(load) }
        };
        let both = |&vm: &usize| {
            let mut ways = [way(vm, Technique::PreCopy), way(vm, Technique::PostCopy)];
            ways.sort_by_key(|w| w.weighted);
            (ways, vm)
        };
        let ways: Vec<([Way; 2], usize)> = order.iter().map(both).collect();
        let mut rest = vec![(0, 0); ways.len() + 1];
        for (i, ([a, b], _)) in ways.iter().enumerate().rev() {
            rest[i] = (rest[i + 1].0 + a.load.min(b.load), rest[i + 1].1 + a.weighted.min(b.weighted));
        }
        let loads: Vec<u64> = interfaces.outgoing.iter().chain(&interfaces.incoming).map(|&l| l.into()).collect();
        Search {
            rest,
            weight: weights.iter().sum(),
            floor,
            sum: loads.iter().sum(),
            weighted: weights.iter().zip(&loads).map(|(w, &l)| w * u128::from(l)).sum(),
            post_copied: 0,
            techniques: found.techniques.clone(),
            best: found.techniques.clone(),
            burden: found.burden(),
            steps: 0,
            ways,
            loads,
        }
    }

    /// Tries both ways of the VMs from the `depth`-th on.
    fn descend(&mut self, depth: usize) {
        let largest = self.loads.iter().copied().max().unwrap_or(0).max(self.floor);
        self.go_on(depth, largest);
    }

    fn go_on(&mut self, depth: usize, largest: u64) {
        let (sum, weighted) = self.rest[depth];
        let average = (self.weighted + weighted).div_ceil(self.weight.max(1));
        let bound = Burden {
            largest: largest.max(u64::try_from(average).unwrap_or(u64::MAX)),
            sum: self.sum + sum,
            post_copied: self.post_copied,
        };
        if bound >= self.burden || self.steps == STEPS {
            return;
        }
        self.steps += 1;
        let Some(&(ways, vm)) = self.ways.get(depth) else {
            (self.burden, self.best) = (bound, self.techniques.clone());
            return;
        };
        for way in ways {
            let post_copied = usize::from(way.technique == Technique::PostCopy);
            self.loads[way.interface] += way.load;
            self.sum += way.load;
            self.weighted += way.weighted;
            self.post_copied += post_copied;
            self.techniques[vm] = way.technique;
            self.go_on(depth + 1, largest.max(self.loads[way.interface]));
            self.loads[way.interface] -= way.load;
            self.sum -= way.load;
            self.weighted -= way.weighted;
            self.post_copied -= post_copied;
        }
    }
}

/// Weights of the interfaces with which the weighted mean of their burdens is large in every combination.
fn weights(vms: &[Moving], interfaces: &Interfaces) -> Vec<u128> {
    let sources = interfaces.outgoing.len();
    let background: Vec<f64> = interfaces.outgoing.iter().chain(&interfaces.incoming).map(|&l| l.into()).collect();
    let mut weights = vec![1.0 / background.len().max(1) as f64; background.len()];
    let (mut best, mut most) = (weights.clone(), -1.0);
    for round in 0..ROUNDS {
        let mut loads = background.clone();
        for vm in vms {
            let weighted = |technique| {
                let (interface, load) = burdens(vm, technique, sources);
                (weights[interface] * load as f64, interface, load)
            };
            let (pre, post) = (weighted(Technique::PreCopy), weighted(Technique::PostCopy));
            let (_, interface, load) = if post.0 < pre.0 { post } else { pre };
            loads[interface] += load as f64;
        }
        let mean: f64 = weights.iter().zip(&loads).map(|(w, l)| w * l).sum();
        if mean > most {
            (best, most) = (weights.clone(), mean);
        }
        let largest = loads.iter().copied().fold(1.0, f64::max);
        let step = STEP / (1.0 + f64::from(round)).sqrt();
        for (weight, load) in weights.iter_mut().zip(&loads) {
            *weight *= 1.0 + step * (load - mean) / largest;
        }
        let whole: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= whole);
    }
    best.iter().map(|w| (w * UNIT) as u128).collect()
}

/// What local search finds.
#[cfg(test)]
pub(super) fn first(vms: &[Moving], interfaces: &Interfaces) -> Burden {
    let mut found = Loads::new(vms, interfaces, 0);
    found.improve();
    found.burden()
}
