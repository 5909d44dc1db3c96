//! Tasks: how the connections of one send share its pages.
//!
//! `PMigrate` (Song et al., VEE 2013) cuts what is dirty into tasks, runs of memory or of disk that lie together, and puts them into a queue
//! that feeds its slaves, each with a connection of its own. A slave has one task at a time and sends it to its end, so that what it maps
//! and reads lies together, and whoever is faster takes more tasks. The disk goes first because its send is ordered first, and the barrier
//! between two rounds is the completion of their sends ([`conductor`](crate::conductor)).
//!
//! The pages stay in the [`PushPlan`] until they are handed out in batches: a page that the destination asks for, that is dirty again or has
//! to go once more is taken out of a task, or put back into it, there. When no task waits, a slave that has none helps the others, so that
//! none is idle at the end of a round and a task whose connection is broken is not left behind.

use crate::push_plan::{Extent, PushPlan};
use crate::units::{Bytes, PageIndex};
use crate::vocabulary::Region;
use serde::{Deserialize, Serialize};

/// How large tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSizes {
    /// Of memory; at least a page.
    pub memory: Bytes,
    /// Of disk; at least a page.
    pub disk: Bytes,
}

impl TaskSizes {
    /// Pages of a task of a region.
    #[must_use]
    pub fn pages(self, region: Region) -> u64 {
        match region {
            Region::Memory => self.memory.pages(),
            Region::Disk => self.disk.pages(),
        }
    }
}

impl Default for TaskSizes {
    /// `PMigrate`'s: 2 MiB of memory, 8 MiB of disk.
    fn default() -> TaskSizes {
        TaskSizes { memory: Bytes::from_mib(2), disk: Bytes::from_mib(8) }
    }
}

/// The queue of tasks of one send.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    /// Pages of address space that a task covers; at least 1.
    size: u64,
    /// The task of each slave: the number of its piece of the address space.
    taken: Vec<Option<u64>>,
    /// Where the next task is looked for.
    next: u64,
}

impl Tasks {
    /// A queue of tasks that cover `size` pages of the address space each.
    ///
    /// # Panics
    /// When `size` is zero.
    pub(crate) fn new(size: u64) -> Tasks {
        assert!(size > 0, "tasks of no pages");
        Tasks { size, taken: Vec::new(), next: 0 }
    }

    /// Hands out the next pages of `plan` for a slave, at most `most` and at least one, all of one task; `None` when nothing is left.
    ///
    /// # Panics
    /// When `most` is zero.
    pub(crate) fn next(&mut self, plan: &mut PushPlan, slave: usize, most: u64) -> Option<Extent> {
        if self.taken.len() <= slave {
            self.taken.resize(slave + 1, None);
        }
        let task = self.task_of(plan, slave)?;
        plan.next_within(self.first_of(task), self.first_of(task + 1), most)
    }

    /// The task that a slave goes on with: its own while there is something left of it, then the next of the queue, then that of another.
    fn task_of(&mut self, plan: &PushPlan, slave: usize) -> Option<u64> {
        if let Some(task) = self.taken[slave].filter(|&task| self.is_left(plan, task)) {
            return Some(task);
        }
        let waits = self.waiting(plan, self.next).or_else(|| self.waiting(plan, 0));
        self.taken[slave] = waits;
        match waits {
            Some(task) => {
                self.next = task + 1;
                Some(task)
            }
            None => self.taken.iter().flatten().copied().find(|&task| self.is_left(plan, task)),
        }
    }

    /// The first task from `from` on of which something is left and that nobody has.
    fn waiting(&self, plan: &PushPlan, mut from: u64) -> Option<u64> {
        loop {
            let task = plan.rest().next_at(self.first_of(from))?.0 / self.size;
            if !self.taken.contains(&Some(task)) {
                return Some(task);
            }
            from = task + 1;
        }
    }

    fn is_left(&self, plan: &PushPlan, task: u64) -> bool {
        plan.rest().next_at(self.first_of(task)).is_some_and(|page| page < self.first_of(task + 1))
    }

    fn first_of(&self, task: u64) -> PageIndex {
        PageIndex(task.saturating_mul(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::Bitmap;
    use crate::vocabulary::Prepaging;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn plan(pages: impl IntoIterator<Item = u64>) -> PushPlan {
        PushPlan::new(pages.into_iter().map(PageIndex).collect::<Bitmap>(), Prepaging::AddressOrder)
    }

    fn pages(extent: Option<Extent>) -> Vec<u64> {
        extent.map_or(Vec::new(), |e| e.iter().map(|p| p.0).collect())
    }

    #[test]
    fn each_slave_goes_through_a_task_of_its_own() {
        let (mut tasks, mut plan) = (Tasks::new(4), plan(0..12));
        assert_eq!(pages(tasks.next(&mut plan, 0, 3)), [0, 1, 2]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 3)), [4, 5, 6]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 3)), [7]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 3)), [8, 9, 10]);
        assert_eq!(pages(tasks.next(&mut plan, 0, 3)), [3]);
        // Nothing waits: it helps.
        assert_eq!(pages(tasks.next(&mut plan, 0, 3)), [11]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 3)), []);
    }

    #[test]
    fn what_comes_back_is_sent_by_whoever_has_nothing_else() {
        let (mut tasks, mut plan) = (Tasks::new(4), plan(0..12));
        assert_eq!(pages(tasks.next(&mut plan, 0, 2)), [0, 1]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 4)), [4, 5, 6, 7]);
        // The connection of slave 0 breaks.
        plan.requeue(Extent { first: PageIndex(0), pages: 2 });
        assert_eq!(pages(tasks.next(&mut plan, 1, 4)), [8, 9, 10, 11]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 4)), [0, 1, 2, 3]);
    }

    #[test]
    fn what_lies_far_apart_are_tasks_of_their_own() {
        let last = 1 << 20;
        let (mut tasks, mut plan) = (Tasks::new(512), plan([3, last]));
        assert_eq!(pages(tasks.next(&mut plan, 0, 64)), [3]);
        assert_eq!(pages(tasks.next(&mut plan, 1, 64)), [last]);
        assert_eq!(tasks.next(&mut plan, 0, 64), None);
    }

    proptest! {
        /// Several slaves at their own speeds, with pages that are asked for, come back or join in between.
        #[test]
        fn every_page_goes_exactly_once_and_in_order_within_its_task(
            set in proptest::collection::btree_set(0u64..300, 1..200),
            size in 1u64..40,
            steps in proptest::collection::vec((0usize..5, 1u64..9, proptest::option::weighted(0.1, 0u64..300)), 1..400),
        ) {
            let (mut tasks, mut plan) = (Tasks::new(size), plan(set.iter().copied()));
            let mut went = BTreeSet::new();
            let mut own: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
            let ends = (0..5).cycle().map(|slave| (slave, 8, None)).take(2000);
            for (slave, most, asked) in steps.into_iter().chain(ends) {
                if let Some(page) = asked && plan.fault(PageIndex(page)) {
                    prop_assert!(went.insert(page));
                }
                let taken: BTreeSet<u64> = own.iter().filter(|o| *o.0 != slave).map(|o| o.1.0).collect();
                let waits = plan.rest().iter().any(|p| !taken.contains(&(p.0 / size)));
                let Some(extent) = tasks.next(&mut plan, slave, most) else {
                    prop_assert_eq!(plan.left(), 0);
                    continue;
                };
                let (first, last) = (extent.first.0, extent.first.0 + extent.pages - 1);
                prop_assert!(extent.pages <= most && first / size == last / size, "{:?} is not of one task", extent);
                // Nobody meddles with another's task while there is one for himself.
                prop_assert!(!waits || !taken.contains(&(first / size)), "{:?} is another's", extent);
                if let Some((task, end)) = own.get(&slave).filter(|o| o.0 == first / size) {
                    prop_assert!(first > *end, "task {} goes backwards", task);
                }
                if !taken.contains(&(first / size)) {
                    own.insert(slave, (first / size, last));
                }
                for page in extent.iter() {
                    prop_assert!(went.insert(page.0), "page {} goes twice", page.0);
                }
            }
            prop_assert_eq!(went, set);
        }

        /// Rounds with a barrier between them, over connections that deliver in their own time: the newest version stays.
        #[test]
        fn behind_a_barrier_no_older_version_comes_after_a_newer_one(
            rounds in proptest::collection::vec(proptest::collection::btree_set(0u64..60, 1..40), 1..6),
            slaves in 1usize..5,
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 64),
        ) {
            let mut there: BTreeMap<u64, usize> = BTreeMap::new();
            let mut choices = order.iter().cycle();
            for (round, dirty) in rounds.iter().enumerate() {
                let (mut tasks, mut plan) = (Tasks::new(7), plan(dirty.iter().copied()));
                let mut wires: Vec<Vec<Extent>> = vec![Vec::new(); slaves];
                while plan.left() > 0 || wires.iter().any(|wire| !wire.is_empty()) {
                    let slave = choices.next().unwrap().index(slaves);
                    match tasks.next(&mut plan, slave, 3) {
                        Some(extent) => wires[slave].push(extent),
                        None => (!wires[slave].is_empty()).then(|| wires[slave].remove(0)).into_iter().flat_map(Extent::iter).for_each(|page| {
                            there.insert(page.0, round);
                        }),
                    }
                }
                // The barrier: all of the round is there, and nothing of it is on its way.
                prop_assert!(dirty.iter().all(|page| there[page] == round));
            }
        }
    }
}
