//! The technique of each of several VMs that share one source and one destination: the exact optimum.
//!
//! A VM that is pre-copied still runs at the source, and what it sends competes with the outgoing migration; a VM that is post-copied runs
//! at the destination, and what it receives competes with the incoming migration (Deshpande and Keahey, CCGrid 2015). So each VM
//! burdens one of the two interfaces, and the larger burden shall be as small as possible. The paper tries all 2^n combinations. The
//! problem is that of scheduling jobs on two unrelated machines, which is hard in the number of digits only. *[ours]*
//!
//! # How
//! With any weight `w` from 0 to 1, the larger burden is at least `w x source + (1 - w) x destination`, and the least value of that is known
//! at once: each VM goes where it costs less. The best `w` is found by sorting the VMs by what they send over what they receive.
//! At that `w`, going the other way costs each VM something; whoever exceeds by this alone the best combination that is known goes the
//! cheaper way in *every* optimum (reduced cost fixing: Dantzig 1957; Balas and Zemel, Operations Research 28, 1980). The combinations of
//! the others are searched by dynamic programming; first only those of the few for whom the difference is least, so that a good
//! combination is known early, then of twice as many, until all that are not fixed are among them.
//!
//! # Cost
//! Sorting for most lists. At worst, if no VM can be fixed, n/2 x (burden in Mbit/s) steps of a few per nanosecond, and memory of sqrt(n) x
//! (burden) x 4 bytes; beyond 2^20 Mbit/s only combinations that nothing excludes are kept, of which there may be many.

use super::knapsack::{self, Bounds, Item};
use super::{Burden, Load, Technique};
use std::cmp::Reverse;

/// The fewest VMs that are searched together.
const CORE: usize = 16;

/// The techniques for which the larger of the two burdens is least; among equals those with the smaller sum of both, then those with more
/// VMs pre-copied. `background` is what else the source sends and the destination receives; a burden below `floor` counts as that, as
/// it does when another interface has so much.
#[must_use]
pub fn select(vms: &[Load], background: Load, floor: u64) -> Vec<Technique> {
    let mut search = Search::new(vms, background, floor);
    let mut size = CORE;
    loop {
        let needed = search.undecided();
        search.search(size.min(needed));
        // The better the best combination is, the fewer are undecided.
        if search.undecided() <= size {
            return search.best;
        }
        size *= 2;
    }
}

/// Those that burden either side, each with its rate and what the costlier way costs it more.
#[derive(Clone, Copy, Debug)]
struct Open {
    vm: usize,
    load: Load,
    /// The cheaper way.
    cheaper: Technique,
    /// In units of 1 / [`Weight::whole`].
    extra: u128,
}

/// A weight between 0 and 1 as a fraction.
#[derive(Clone, Copy, Debug)]
struct Weight {
    source: u128,
    destination: u128,
}

impl Weight {
    fn whole(self) -> u128 {
        self.source + self.destination
    }

    fn costs(self, load: Load) -> (u128, u128) {
        (self.source * u128::from(load.tx), self.destination * u128::from(load.rx))
    }
}

struct Search {
    /// By ascending extra cost.
    open: Vec<Open>,
    weight: Weight,
    background: Load,
    /// No combination has a larger burden of less than this, in units of 1 / [`Weight::whole`].
    least: u128,
    /// Smaller burdens count as this.
    floor: u64,
    /// Those of whom it is clear that they are post-copied.
    surely_post_copied: usize,
    /// The best combination that is known.
    best: Vec<Technique>,
    burden: Burden,
    /// No other can be better.
    settled: bool,
}

impl Search {
    /// Sorts the VMs and knows the best of the combinations that the sorted list leads through.
    fn new(vms: &[Load], background: Load, floor: u64) -> Search {
        // What burdens nothing one way goes that way: the larger burden does not grow, and the sum is smaller.
        let technique = |load: &Load| if load.tx > 0 && load.rx == 0 { Technique::PostCopy } else { Technique::PreCopy };
        let mut best: Vec<Technique> = vms.iter().map(technique).collect();
        let surely_post_copied = best.iter().filter(|t| **t == Technique::PostCopy).count();
        let mut sorted: Vec<usize> = (0..vms.len()).filter(|&vm| vms[vm].tx > 0 && vms[vm].rx > 0).collect();
        let product = |a: usize, b: usize| u64::from(vms[a].tx) * u64::from(vms[b].rx);
        sorted.sort_by(|&a, &b| product(b, a).cmp(&product(a, b)));

        let mut sides: (u64, u64) = (background.tx.into(), background.rx.into());
        sides.0 += sorted.iter().map(|&vm| u64::from(vms[vm].tx)).sum::<u64>();
        let mut weight = Weight { source: 0, destination: 1 };
        let mut burden = Burden::of_pair(sides, surely_post_copied, floor);
        let (mut moved, mut moved_in_best) = (0, 0);
        while sides.0 > sides.1 {
            let Some(&vm) = sorted.get(moved) else {
                weight = Weight { source: 1, destination: 0 };
                break;
            };
            sides = (sides.0 - u64::from(vms[vm].tx), sides.1 + u64::from(vms[vm].rx));
            weight = Weight { source: vms[vm].rx.into(), destination: vms[vm].tx.into() };
            moved += 1;
            let walked = Burden::of_pair(sides, surely_post_copied + moved, floor);
            if walked < burden {
                (burden, moved_in_best) = (walked, moved);
            }
        }
        for &vm in &sorted[..moved_in_best] {
            best[vm] = Technique::PostCopy;
        }
        let mut open: Vec<Open> = sorted.iter().map(|&vm| Open::new(vm, vms[vm], weight)).collect();
        open.sort_by_key(|o| (o.extra, o.vm));
        let (source, destination) = weight.costs(background);
        let least = open.iter().map(|o| o.cost(weight)).sum::<u128>() + source + destination;
        let mut search = Search { open, weight, background, least, floor, surely_post_copied, best, burden, settled: false };
        search.try_least_sum(vms);
        search
    }

    /// Each the way on which it burdens less: the best of all when neither burden is above the floor.
    fn try_least_sum(&mut self, vms: &[Load]) {
        let mut sides: (u64, u64) = (self.background.tx.into(), self.background.rx.into());
        let mut techniques = self.best.clone();
        for o in &self.open {
            techniques[o.vm] = Technique::post_copy_if(o.load.rx < o.load.tx);
        }
        for (load, technique) in vms.iter().zip(&techniques) {
            match technique {
                Technique::PreCopy => sides.0 += u64::from(load.tx),
                Technique::PostCopy => sides.1 += u64::from(load.rx),
            }
        }
        let post_copied = techniques.iter().filter(|t| **t == Technique::PostCopy).count();
        let burden = Burden::of_pair(sides, post_copied, self.floor);
        if burden < self.burden {
            (self.burden, self.best) = (burden, techniques);
        }
        self.settled = sides.0.max(sides.1) <= self.floor;
    }

    /// How many of the open VMs may go the costlier way in an optimum. They are the first.
    fn undecided(&self) -> usize {
        if self.settled {
            return 0;
        }
        let most = self.weight.whole() * u128::from(self.burden.largest);
        self.open.partition_point(|o| self.least + o.extra <= most)
    }

    /// Finds the best combination in which the open VMs from the `size`-th on go the cheaper way.
    fn search(&mut self, size: usize) {
        let (core, rest) = self.open.split_at(size);
        let mut sides: (u64, u64) = (self.background.tx.into(), self.background.rx.into());
        let mut post_copied = self.surely_post_copied;
        for o in rest {
            match o.cheaper {
                Technique::PreCopy => sides.0 += u64::from(o.load.tx),
                Technique::PostCopy => (sides.1, post_copied) = (sides.1 + u64::from(o.load.rx), post_copied + 1),
            }
        }
        let cap = self.burden.largest;
        if size == 0 || sides.0 > cap || sides.1 > cap {
            return;
        }
        // Large first: then the totals from which the bounds can be reached are fewest in the middle.
        let mut core: Vec<&Open> = core.iter().collect();
        core.sort_by_key(|o| (Reverse(o.load.tx), o.vm));
        let unit = core.iter().fold(0, |unit, o| gcd(unit, o.load.tx.into()));
        let floor = self.floor;
        // Taken is who is pre-copied; its value is what the destination is spared, and then the VM itself.
        let base = size as u64 + 1;
        let item = |o: &&Open| Item { weight: u64::from(o.load.tx) / unit, value: u64::from(o.load.rx) * base + 1 };
        let items: Vec<Item> = core.iter().map(item).collect();
        let all_post_copied = sides.1 + core.iter().map(|o| u64::from(o.load.rx)).sum::<u64>();
        let bounds = Bounds {
            low: self.least_source(cap).saturating_sub(sides.0).div_ceil(unit),
            cap: (cap - sides.0) / unit,
            value: all_post_copied.saturating_sub(cap) * base,
        };
        let burden = |weight: u64, value: u64| {
            let destination = all_post_copied - value / base;
            Burden::of_pair((sides.0 + weight * unit, destination), post_copied + size - (value % base) as usize, floor)
        };
        let Some(taken) = knapsack::best(&items, bounds, burden) else { return };
        let chosen = items.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(item, _)| item);
        let (weight, value) = chosen.fold((0, 0), |(w, v), i| (w + i.weight, v + i.value));
        let found = burden(weight, value);
        if found < self.burden {
            self.burden = found;
            let core = core.iter().zip(taken).map(|(o, taken)| (o.vm, Technique::post_copy_if(!taken)));
            for (vm, technique) in core.chain(rest.iter().map(|o| (o.vm, o.cheaper))) {
                self.best[vm] = technique;
            }
        }
    }

    /// What the source is burdened with at least if the destination is burdened with at most `cap`.
    fn least_source(&self, cap: u64) -> u64 {
        let rest = self.least.saturating_sub(self.weight.destination * u128::from(cap));
        let least = if self.weight.source == 0 { 0 } else { rest.div_ceil(self.weight.source) };
        u64::try_from(least).expect("a burden that some combination has")
    }
}

impl Open {
    fn new(vm: usize, load: Load, weight: Weight) -> Open {
        let (source, destination) = weight.costs(load);
        Open { vm, load, cheaper: Technique::post_copy_if(destination < source), extra: source.abs_diff(destination) }
    }

    /// Of the cheaper way.
    fn cost(&self, weight: Weight) -> u128 {
        let (source, destination) = weight.costs(self.load);
        source.min(destination)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn burden(vms: &[Load], techniques: &[Technique], background: Load) -> Burden {
        let mut sides: (u64, u64) = (background.tx.into(), background.rx.into());
        for (vm, technique) in vms.iter().zip(techniques) {
            match technique {
                Technique::PreCopy => sides.0 += u64::from(vm.tx),
                Technique::PostCopy => sides.1 += u64::from(vm.rx),
            }
        }
        Burden::of_pair(sides, techniques.iter().filter(|t| **t == Technique::PostCopy).count(), 0)
    }

    /// Every combination, as the paper does.
    fn enumerated(vms: &[Load], background: Load) -> Burden {
        let combination = |c: u32| (0..vms.len()).map(|vm| Technique::post_copy_if(c >> vm & 1 == 1)).collect::<Vec<_>>();
        (0..1 << vms.len()).map(|c| burden(vms, &combination(c), background)).min().unwrap()
    }

    fn load(tx: u32, rx: u32) -> Load {
        Load { tx, rx }
    }

    #[test]
    fn the_papers_example() {
        let vms = [load(200, 400), load(300, 500)];
        let both = burden(&vms, &[Technique::PreCopy; 2], Load::default());
        assert_eq!(both.largest, 500);
        let chosen = select(&vms, Load::default(), 0);
        assert_eq!(chosen, [Technique::PostCopy, Technique::PreCopy]);
        assert_eq!(burden(&vms, &chosen, Load::default()).largest, 400);
    }

    #[test]
    fn without_traffic_everybody_is_pre_copied() {
        assert_eq!(select(&[Load::default(); 3], load(7, 9), 0), [Technique::PreCopy; 3]);
        assert_eq!(select(&[], load(7, 9), 0), []);
    }

    #[test]
    fn who_sends_only_is_post_copied_and_who_receives_only_is_pre_copied() {
        assert_eq!(select(&[load(500, 0), load(0, 500)], Load::default(), 0), [Technique::PostCopy, Technique::PreCopy]);
    }

    #[test]
    fn background_is_avoided() {
        let vms = [load(100, 100)];
        assert_eq!(select(&vms, load(50, 0), 0), [Technique::PostCopy]);
        assert_eq!(select(&vms, load(0, 50), 0), [Technique::PreCopy]);
    }

    /// Values that are unrelated, that all have nearly the same ratio, that are alike, or that are huge.
    fn vms(most: usize) -> impl Strategy<Value = Vec<Load>> {
        let unrelated = (0..1000_u32, 0..1000_u32).prop_map(|(tx, rx)| load(tx, rx));
        let alike = (1..1000_u32, 0..3_u32).prop_map(|(tx, more)| load(tx, tx + more));
        let twice = (1..1000_u32, 0..2_u32).prop_map(|(tx, more)| load(tx, 2 * tx + more));
        let few = (0..4_u32, 0..4_u32).prop_map(|(tx, rx)| load(tx, rx));
        let even = (1..10_u32, 1..10_u32).prop_map(|(tx, rx)| load(100 * tx, 100 * rx));
        let huge = (any::<u32>(), any::<u32>()).prop_map(|(tx, rx)| load(tx, rx));
        prop_oneof![
            prop::collection::vec(unrelated, 0..=most),
            prop::collection::vec(alike, 0..=most),
            prop::collection::vec(twice, 0..=most),
            prop::collection::vec(few, 0..=most),
            prop::collection::vec(even, 0..=most),
            prop::collection::vec(huge, 0..=most),
        ]
    }

    fn background() -> impl Strategy<Value = Load> {
        let traffic = prop_oneof![Just(0), 0..5000_u32, any::<u32>()];
        (traffic.clone(), traffic).prop_map(|(tx, rx)| load(tx, rx))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn it_is_what_enumeration_finds(vms in vms(16), background in background()) {
            let chosen = select(&vms, background, 0);
            prop_assert_eq!(burden(&vms, &chosen, background), enumerated(&vms, background));
        }

        #[test]
        fn who_is_fixed_too_early_would_be_missed(vms in vms(40), background in background()) {
            // No search over parts: all open VMs in one go, without a bound.
            let mut whole = Search::new(&vms, background, 0);
            whole.search(whole.open.len());
            prop_assert_eq!(burden(&vms, &select(&vms, background, 0), background), whole.burden);
            prop_assert_eq!(burden(&vms, &whole.best, background), whole.burden);
        }
    }
}
