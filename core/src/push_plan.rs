//! In which order a sender takes its pages: the decisions of a migration that are made per page, at microseconds.
//!
//! A driver's sender makes a [`PushPlan`] of the set of a [`Send`](crate::vocabulary::Send), asks it for the next run of pages
//! whenever a connection has room, and tells it about every page that the destination asks for. The plan owns the pages that
//! have not been handed out yet; a page leaves it exactly once unless it is put back.
//!
//! Without prepaging pages go in address order. *Bubbling* (Hines, Deshpande and Gopalan, "Post-copy live migration of virtual
//! machines", VEE 2009, section 3.2) assumes that a guest which has touched a page will touch its neighbours: every fault is a
//! *pivot*, and a bubble of pushed pages grows around it, upwards and downwards in turn. An edge of a bubble stops at the first
//! page that has been sent already. With several pivots the bubbles take turns; a new fault starts a new bubble in place of the
//! oldest. When no bubble can grow, the rest goes in address order.
//!
//! Whoever takes one page at a time gets the order of the paper; larger batches make the steps of the edges larger.

use std::collections::VecDeque;

use crate::pages::Bitmap;
use crate::tasks::Tasks;
use crate::units::PageIndex;
use crate::vocabulary::Prepaging;

/// Pages that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first of them.
    pub first: PageIndex,
    /// How many they are; at least 1.
    pub pages: u64,
}

impl Extent {
    /// The pages in ascending order.
    pub fn iter(self) -> impl Iterator<Item = PageIndex> {
        (self.first.0..self.first.0 + self.pages).map(PageIndex)
    }
}

/// The pages that a send has still to hand out, and the order in which it does.
#[derive(Clone, Debug)]
pub struct PushPlan {
    left: Bitmap,
    /// No page of `left` lies before it.
    cursor: PageIndex,
    /// The oldest first; never more than `pivots`.
    bubbles: VecDeque<Bubble>,
    pivots: usize,
    /// The bubble that grows next.
    turn: usize,
    /// How the connections of the sender share the pages; without, each takes the next ones.
    tasks: Option<Tasks>,
}

/// What grows around a pivot.
#[derive(Clone, Copy, Debug)]
struct Bubble {
    pivot: PageIndex,
    /// The next page upwards, until that edge has stopped.
    up: Option<PageIndex>,
    /// The next page downwards, until that edge has stopped.
    down: Option<PageIndex>,
    upwards_next: bool,
}

impl PushPlan {
    /// A plan that hands out the pages of `set`.
    ///
    /// # Panics
    /// When `order` keeps no pivots, which [`Spec::check`](crate::strategy::Spec::check) refuses.
    #[must_use]
    pub fn new(set: Bitmap, order: Prepaging) -> PushPlan {
        let pivots = match order {
            Prepaging::AddressOrder => 0,
            Prepaging::Bubbling { pivots } => {
                assert!(pivots > 0, "bubbling without pivots");
                usize::from(pivots)
            }
        };
        PushPlan { left: set, cursor: PageIndex(0), bubbles: VecDeque::new(), pivots, turn: 0, tasks: None }
    }

    /// The same, for connections that each take runs of `task` pages of the address space ([`tasks`](crate::tasks)). Bubbles know no tasks.
    ///
    /// # Panics
    /// When `task` is zero.
    #[must_use]
    pub fn in_tasks(mut self, task: u64) -> PushPlan {
        self.tasks = (self.pivots == 0).then(|| Tasks::new(task));
        self
    }

    /// Number of pages not handed out yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.count()
    }

    /// Whether `page` has not been handed out yet.
    #[must_use]
    pub fn contains(&self, page: PageIndex) -> bool {
        self.left.contains(page)
    }

    /// Hands out the next pages, at most `max_pages` (and at least one); `None` when nothing is left.
    ///
    /// Costs amortised constant time per page, plus the pages that were put back.
    ///
    /// # Panics
    /// When `max_pages` is zero.
    pub fn next(&mut self, max_pages: u64) -> Option<Extent> {
        assert!(max_pages > 0, "a batch of no pages");
        while let Some(bubble) = self.bubbles.get_mut(self.turn) {
            if let Some(extent) = bubble.grow(&self.left, max_pages) {
                self.turn = (self.turn + 1) % self.bubbles.len();
                return Some(self.hand_out(extent));
            }
            self.forget_bubble(self.turn);
        }
        let first = self.left.next_at(self.cursor)?;
        let extent = Extent { first, pages: self.left.run_from(first, max_pages) };
        self.cursor = PageIndex(first.0 + extent.pages);
        Some(self.hand_out(extent))
    }

    /// Hands out the next pages for a connection with this number, at most `max_pages`; `None` when nothing is left.
    ///
    /// # Panics
    /// When `max_pages` is zero.
    pub fn next_for(&mut self, connection: usize, max_pages: u64) -> Option<Extent> {
        assert!(max_pages > 0, "a batch of no pages");
        let Some(mut tasks) = self.tasks.take() else { return self.next(max_pages) };
        let extent = tasks.next(self, connection, max_pages);
        self.tasks = Some(tasks);
        extent
    }

    /// Hands out the next pages from `from` on and before `to`, at most `max_pages`; `None` when nothing is left there.
    pub(crate) fn next_within(&mut self, from: PageIndex, to: PageIndex, max_pages: u64) -> Option<Extent> {
        let first = self.left.next_at(from.max(self.cursor)).filter(|page| *page < to)?;
        let pages = self.left.run_from(first, max_pages.min(to.0 - first.0));
        if first == self.cursor {
            self.cursor = PageIndex(first.0 + pages);
        }
        Some(self.hand_out(Extent { first, pages }))
    }

    /// The destination waits for `page`: whether it has not been handed out yet, in which case it is now, and is to be sent
    /// before everything else. The page becomes a pivot either way.
    #[must_use = "a page that is taken out and not sent is lost"]
    pub fn fault(&mut self, page: PageIndex) -> bool {
        let taken = self.left.remove(page);
        self.begin_bubble(page);
        taken
    }

    /// Takes `page` out because it need not be sent (it is dirty again, and the dirty tracker has it); whether it was left.
    pub fn skip(&mut self, page: PageIndex) -> bool {
        self.left.remove(page)
    }

    /// Puts pages back that were handed out and did not arrive.
    ///
    /// # Panics
    /// When one of them has not been handed out.
    pub fn requeue(&mut self, extent: Extent) {
        let fresh = self.left.insert_run(extent.first, extent.pages);
        assert!(fresh == extent.pages, "a page that was not handed out is put back");
        self.cursor = self.cursor.min(extent.first);
    }

    /// Adds `page`; whether it was not left already.
    pub fn add(&mut self, page: PageIndex) -> bool {
        self.cursor = self.cursor.min(page);
        self.left.insert(page)
    }

    /// The pages not handed out yet.
    #[must_use]
    pub fn rest(&self) -> &Bitmap {
        &self.left
    }

    /// Ends the plan: the pages that were not handed out.
    #[must_use = "pages that are taken and dropped are lost"]
    pub fn into_rest(self) -> Bitmap {
        self.left
    }

    fn hand_out(&mut self, extent: Extent) -> Extent {
        let removed = self.left.remove_run(extent.first, extent.pages);
        debug_assert!(removed == extent.pages, "a page is handed out twice");
        extent
    }

    fn begin_bubble(&mut self, pivot: PageIndex) {
        if self.pivots == 0 {
            return;
        }
        if let Some(same) = self.bubbles.iter().position(|b| b.pivot == pivot) {
            self.forget_bubble(same);
        }
        let bubble = Bubble::around(pivot);
        if !bubble.can_grow(&self.left) {
            // It must not push out one that can.
            return;
        }
        if self.bubbles.len() == self.pivots {
            self.forget_bubble(0);
        }
        self.bubbles.push_back(bubble);
        // The newest fault says best where the guest is.
        self.turn = self.bubbles.len() - 1;
    }

    fn forget_bubble(&mut self, index: usize) {
        self.bubbles.remove(index);
        if index < self.turn {
            self.turn -= 1;
        }
        if self.turn >= self.bubbles.len() {
            self.turn = 0;
        }
    }
}

impl Bubble {
    fn around(pivot: PageIndex) -> Bubble {
        Bubble { pivot, up: pivot.0.checked_add(1).map(PageIndex), down: pivot.0.checked_sub(1).map(PageIndex), upwards_next: true }
    }

    fn can_grow(&self, left: &Bitmap) -> bool {
        self.up.is_some_and(|p| left.contains(p)) || self.down.is_some_and(|p| left.contains(p))
    }

    /// The pages with which the bubble grows; `None` when both edges have stopped.
    fn grow(&mut self, left: &Bitmap, max_pages: u64) -> Option<Extent> {
        for _ in 0..2 {
            let upwards = self.upwards_next;
            self.upwards_next = !upwards;
            let grown = if upwards { self.grow_up(left, max_pages) } else { self.grow_down(left, max_pages) };
            if grown.is_some() {
                return grown;
            }
        }
        None
    }

    fn grow_up(&mut self, left: &Bitmap, max_pages: u64) -> Option<Extent> {
        let first = self.up.take()?;
        let pages = left.run_from(first, max_pages);
        if pages == 0 {
            return None;
        }
        self.up = first.0.checked_add(pages).map(PageIndex);
        Some(Extent { first, pages })
    }

    fn grow_down(&mut self, left: &Bitmap, max_pages: u64) -> Option<Extent> {
        let last = self.down.take()?;
        let pages = left.run_until(last, max_pages);
        if pages == 0 {
            return None;
        }
        self.down = (last.0 + 1 - pages).checked_sub(1).map(PageIndex);
        Some(Extent { first: PageIndex(last.0 + 1 - pages), pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn order(mut plan: PushPlan, batch: u64) -> Vec<u64> {
        let mut pages = Vec::new();
        while let Some(extent) = plan.next(batch) {
            pages.extend(extent.iter().map(|p| p.0));
        }
        pages
    }

    #[test]
    fn without_pivots_pages_go_in_address_order() {
        let set: Bitmap = [3, 4, 5, 64, 65, 200].map(PageIndex).into_iter().collect();
        assert_eq!(order(PushPlan::new(set.clone(), Prepaging::AddressOrder), 2), [3, 4, 5, 64, 65, 200]);
        let mut plan = PushPlan::new(set, Prepaging::AddressOrder);
        assert!(plan.fault(PageIndex(64)));
        assert_eq!(order(plan, 8), [3, 4, 5, 65, 200]);
    }

    #[test]
    fn a_bubble_grows_around_a_fault_on_both_sides() {
        let mut plan = PushPlan::new(Bitmap::full(10), Prepaging::Bubbling { pivots: 1 });
        assert!(plan.fault(PageIndex(6)));
        assert_eq!(order(plan, 1), [7, 5, 8, 4, 9, 3, 2, 1, 0]);
    }

    #[test]
    fn bubbles_take_turns_and_stop_where_they_meet() {
        let mut plan = PushPlan::new(Bitmap::full(12), Prepaging::Bubbling { pivots: 2 });
        assert!(plan.fault(PageIndex(2)) && plan.fault(PageIndex(6)));
        assert_eq!(order(plan, 1), [7, 3, 5, 1, 8, 4, 9, 0, 10, 11]);
    }

    #[test]
    fn a_new_pivot_takes_the_place_of_the_oldest() {
        let mut plan = PushPlan::new(Bitmap::full(40), Prepaging::Bubbling { pivots: 1 });
        assert!(plan.fault(PageIndex(10)));
        assert_eq!(plan.next(2), Some(Extent { first: PageIndex(11), pages: 2 }));
        assert!(plan.fault(PageIndex(30)));
        assert_eq!(plan.next(2), Some(Extent { first: PageIndex(31), pages: 2 }));
        assert_eq!(plan.next(2), Some(Extent { first: PageIndex(28), pages: 2 }));
    }

    #[test]
    fn a_page_that_is_on_its_way_is_not_taken_twice() {
        let mut plan = PushPlan::new(Bitmap::full(4), Prepaging::AddressOrder);
        assert_eq!(plan.next(1), Some(Extent { first: PageIndex(0), pages: 1 }));
        assert!(!plan.fault(PageIndex(0)));
        plan.requeue(Extent { first: PageIndex(0), pages: 1 });
        assert!(plan.fault(PageIndex(0)));
        assert_eq!(order(plan, 4), [1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "not handed out")]
    fn what_was_not_handed_out_cannot_be_put_back() {
        PushPlan::new(Bitmap::full(4), Prepaging::AddressOrder).requeue(Extent { first: PageIndex(1), pages: 1 });
    }

    /// The same order, a page at a time over a set of numbers.
    struct Naive {
        left: BTreeSet<u64>,
        /// The oldest first: pivot, next page up, next page down, whether up is next.
        bubbles: Vec<(u64, Option<u64>, Option<u64>, bool)>,
        pivots: usize,
        turn: usize,
    }

    impl Naive {
        fn run(&mut self, from: u64, step: fn(u64) -> Option<u64>, max: u64) -> (Vec<u64>, Option<u64>) {
            let (mut pages, mut next) = (Vec::new(), Some(from));
            while let Some(page) = next.filter(|p| (pages.len() as u64) < max && self.left.remove(p)) {
                pages.push(page);
                next = step(page);
            }
            let stopped = pages.is_empty();
            (pages, if stopped { None } else { next })
        }

        fn next(&mut self, max: u64) -> Vec<u64> {
            while !self.bubbles.is_empty() {
                self.turn %= self.bubbles.len();
                for _ in 0..2 {
                    let (pivot, up, down, upwards) = self.bubbles[self.turn];
                    let (mut pages, edge) = match if upwards { up } else { down } {
                        Some(page) if upwards => self.run(page, |p| Some(p + 1), max),
                        Some(page) => self.run(page, |p| p.checked_sub(1), max),
                        None => (Vec::new(), None),
                    };
                    self.bubbles[self.turn] = if upwards { (pivot, edge, down, false) } else { (pivot, up, edge, true) };
                    if !pages.is_empty() {
                        self.turn += 1;
                        pages.sort_unstable();
                        return pages;
                    }
                }
                self.bubbles.remove(self.turn);
            }
            let Some(&first) = self.left.first() else { return Vec::new() };
            self.run(first, |p| Some(p + 1), max).0
        }

        fn fault(&mut self, page: u64) -> bool {
            let taken = self.left.remove(&page);
            self.forget(|pivot| pivot == page);
            let grows = self.left.contains(&(page + 1)) || page.checked_sub(1).is_some_and(|p| self.left.contains(&p));
            if self.pivots > 0 && grows {
                if self.bubbles.len() == self.pivots {
                    let oldest = self.bubbles[0].0;
                    self.forget(|pivot| pivot == oldest);
                }
                self.bubbles.push((page, Some(page + 1), page.checked_sub(1), true));
                self.turn = self.bubbles.len() - 1;
            }
            taken
        }

        fn forget(&mut self, which: impl Fn(u64) -> bool) {
            if let Some(index) = self.bubbles.iter().position(|b| which(b.0)) {
                self.bubbles.remove(index);
                self.turn = if index < self.turn { self.turn - 1 } else { self.turn };
            }
            self.turn = if self.turn >= self.bubbles.len() { 0 } else { self.turn };
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Next(u64),
        Fault(u64),
        Requeue(u64),
        Skip(u64),
        Add(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u64..9).prop_map(Step::Next),
            2 => (0u64..200).prop_map(Step::Fault),
            1 => (0u64..200).prop_map(Step::Requeue),
            1 => (0u64..200).prop_map(Step::Skip),
            1 => (0u64..200).prop_map(Step::Add),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_order(pages in proptest::collection::btree_set(0u64..200, 0..200), pivots in 0u16..4, steps in steps()) {
            let order = if pivots == 0 { Prepaging::AddressOrder } else { Prepaging::Bubbling { pivots } };
            let mut plan = PushPlan::new(pages.iter().copied().map(PageIndex).collect(), order);
            let mut naive = Naive { left: pages, bubbles: Vec::new(), pivots: usize::from(pivots), turn: 0 };
            for step in steps {
                match step {
                    Step::Next(max) => {
                        let got: Vec<u64> = plan.next(max).map_or(Vec::new(), |e| e.iter().map(|p| p.0).collect());
                        prop_assert_eq!(got, naive.next(max));
                    }
                    Step::Fault(page) => prop_assert_eq!(plan.fault(PageIndex(page)), naive.fault(page)),
                    Step::Requeue(page) => {
                        if naive.left.insert(page) {
                            plan.requeue(Extent { first: PageIndex(page), pages: 1 });
                        }
                    }
                    Step::Skip(page) => prop_assert_eq!(plan.skip(PageIndex(page)), naive.left.remove(&page)),
                    Step::Add(page) => prop_assert_eq!(plan.add(PageIndex(page)), naive.left.insert(page)),
                }
                prop_assert_eq!(plan.left(), naive.left.len() as u64);
            }
            prop_assert_eq!(plan.into_rest().iter().map(|p| p.0).collect::<BTreeSet<_>>(), naive.left);
        }

        #[test]
        fn every_page_is_handed_out_exactly_once(pages in proptest::collection::btree_set(0u64..400, 0..400), pivots in 1u16..8,
                                                 faults in proptest::collection::vec((1u64..9, 0u64..400), 0..40)) {
            let mut plan = PushPlan::new(pages.iter().copied().map(PageIndex).collect(), Prepaging::Bubbling { pivots });
            let mut out = Vec::new();
            for (max, page) in faults {
                if plan.fault(PageIndex(page)) {
                    out.push(page);
                }
                out.extend(plan.next(max).into_iter().flat_map(Extent::iter).map(|p| p.0));
            }
            out.extend(order(plan, 8));
            prop_assert_eq!(out.len(), pages.len());
            prop_assert_eq!(out.into_iter().collect::<BTreeSet<_>>(), pages);
        }
    }
}
