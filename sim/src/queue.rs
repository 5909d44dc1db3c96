//! The events to come, in order of time and, at the same time, in the order in which they were put in.
//!
//! An indexed 4-ary heap: a node is 24 bytes, four siblings lie side by side, and each event knows where its node is. What is cancelled
//! leaves at once, and what is moved to another time moves its node only, so that nothing dead is ever in the queue, however often a
//! completion is computed anew. Memory follows the largest number of events that were queued at once.

use livemig_core::units::Time;

/// Children per node: a heap half as deep as a binary one, with the siblings to compare close together.
const ARITY: usize = 4;

/// No such node.
const NOWHERE: u32 = u32::MAX;

/// The handle of a queued event; it means nothing once the event was popped or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

/// Events of type `E` by time.
#[derive(Clone, Debug)]
pub struct EventQueue<E> {
    heap: Vec<Node>,
    slots: Vec<Slot<E>>,
    /// The first slot of the list of free ones, linked through `Slot::place`.
    free: u32,
    sequence: u64,
}

/// What the heap orders: by time, then by sequence number, which no two share.
#[derive(Clone, Copy, Debug)]
struct Node {
    at: Time,
    sequence: u64,
    slot: u32,
}

impl Node {
    /// Its place in the order as one number, so that comparing takes no branch.
    fn key(&self) -> u128 {
        u128::from(self.at.0) << 64 | u128::from(self.sequence)
    }
}

#[derive(Clone, Debug)]
struct Slot<E> {
    event: Option<E>,
    /// Where in the heap the event's node is; for a free slot, the next free one.
    place: u32,
    /// How often the slot was given back, so that an old key is not taken for a new one.
    generation: u32,
}

impl<E> Default for EventQueue<E> {
    fn default() -> EventQueue<E> {
        EventQueue { heap: Vec::new(), slots: Vec::new(), free: NOWHERE, sequence: 0 }
    }
}

impl<E> EventQueue<E> {
    /// A queue without events.
    #[must_use]
    pub fn new() -> EventQueue<E> {
        EventQueue::default()
    }

    /// How many events are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no event is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Puts `event` in at time `at`, behind what is there for that time.
    pub fn push(&mut self, at: Time, event: E) -> Key {
        let place = u32::try_from(self.heap.len()).expect("a queue counts its events in 32 bits");
        let slot = self.free;
        let slot = if slot == NOWHERE {
            self.slots.push(Slot { event: Some(event), place, generation: 0 });
            self.slots.len() as u32 - 1
        } else {
            let taken = &mut self.slots[slot as usize];
            self.free = taken.place;
            taken.event = Some(event);
            slot
        };
        let sequence = self.next_sequence();
        self.heap.push(Node { at, sequence, slot });
        self.rise(place as usize);
        Key { slot, generation: self.slots[slot as usize].generation }
    }

    /// The time of the next event.
    #[must_use]
    pub fn peek_time(&self) -> Option<Time> {
        self.heap.first().map(|node| node.at)
    }

    /// Takes the next event out.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        let node = *self.heap.first()?;
        self.take_node(0);
        Some((node.at, self.give_back(node.slot)))
    }

    /// Takes the event of `key` out; nothing when it was popped or cancelled before.
    pub fn cancel(&mut self, key: Key) -> Option<E> {
        let place = self.place(key)?;
        self.take_node(place);
        Some(self.give_back(key.slot))
    }

    /// Moves the event of `key` to time `at`, behind what is there for that time; false when it was popped or cancelled before.
    pub fn reschedule(&mut self, key: Key, at: Time) -> bool {
        let Some(place) = self.place(key) else { return false };
        let sequence = self.next_sequence();
        let old = std::mem::replace(&mut self.heap[place], Node { at, sequence, slot: key.slot });
        if at < old.at {
            self.rise(place);
        } else {
            self.sink(place);
        }
        true
    }

    /// When the event of `key` is due; nothing when it was popped or cancelled before.
    #[must_use]
    pub fn time_of(&self, key: Key) -> Option<Time> {
        self.place(key).map(|place| self.heap[place].at)
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn place(&self, key: Key) -> Option<usize> {
        let slot = self.slots.get(key.slot as usize)?;
        (slot.generation == key.generation && slot.event.is_some()).then_some(slot.place as usize)
    }

    fn give_back(&mut self, slot: u32) -> E {
        let given = &mut self.slots[slot as usize];
        given.generation = given.generation.wrapping_add(1);
        given.place = std::mem::replace(&mut self.free, slot);
        given.event.take().expect("a queued event is in its slot")
    }

    /// Takes the node at `place` out of the heap; the last one fills the gap.
    fn take_node(&mut self, place: usize) {
        let taken = self.heap.swap_remove(place);
        let Some(&moved) = self.heap.get(place) else { return };
        if moved.key() < taken.key() {
            self.rise(place);
        } else {
            self.sink(place);
        }
    }

    /// Moves the node at `place` up to where it belongs.
    fn rise(&mut self, mut place: usize) {
        let node = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.heap[parent].key() < node.key() {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, node);
    }

    /// Moves the node at `place` down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        let node = self.heap[place];
        let key = node.key();
        while let Some((least, child)) = self.least_child(place) {
            if key < child.key() {
                break;
            }
            self.put(place, child);
            place = least;
        }
        self.put(place, node);
    }

    /// Of the children of the node at `place`, the one that comes first, and where it is.
    fn least_child(&self, place: usize) -> Option<(usize, Node)> {
        let first = place * ARITY + 1;
        let children = self.heap.get(first..self.heap.len().min(first + ARITY))?;
        let mut least = 0;
        let mut key = children.first()?.key();
        for (i, child) in children.iter().enumerate().skip(1) {
            let before = child.key() < key;
            least = if before { i } else { least };
            key = if before { child.key() } else { key };
        }
        Some((first + least, children[least]))
    }

    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.slots[node.slot as usize].place = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(u64),
        Pop,
        Cancel(usize),
        Reschedule(usize, u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few different times, so that many coincide.
        prop_oneof![
            4 => (0..20u64).prop_map(Op::Push),
            2 => Just(Op::Pop),
            1 => any::<usize>().prop_map(Op::Cancel),
            3 => (any::<usize>(), 0..20u64).prop_map(|(i, at)| Op::Reschedule(i, at)),
        ]
    }

    #[test]
    fn equal_times_come_in_the_order_of_their_pushes() {
        let mut queue = EventQueue::new();
        for n in 0..100 {
            queue.push(Time(5), n);
        }
        queue.push(Time(4), 100);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(_, n)| n).collect();
        assert_eq!(order[0], 100);
        assert!(order[1..].is_sorted());
    }

    #[test]
    fn a_slot_is_used_again_and_its_old_key_is_dead() {
        let mut queue = EventQueue::new();
        let old = queue.push(Time(1), 'a');
        assert_eq!(queue.cancel(old), Some('a'));
        let new = queue.push(Time(2), 'b');
        assert_eq!((queue.cancel(old), queue.reschedule(old, Time(9)), queue.time_of(old)), (None, false, None));
        assert_eq!((queue.time_of(new), queue.slots.len()), (Some(Time(2)), 1));
        assert_eq!(queue.pop(), Some((Time(2), 'b')));
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_sorted_list(ops in prop::collection::vec(op(), 1..300)) {
            let mut queue = EventQueue::new();
            let mut keys = Vec::new();
            // (time, order of the last push or move, event), the event being the index of its key.
            let mut list: Vec<(u64, usize, usize)> = Vec::new();
            for (step, op) in ops.into_iter().enumerate() {
                let find = |list: &Vec<(u64, usize, usize)>, event| list.iter().position(|entry| entry.2 == event);
                match op {
                    Op::Push(at) => {
                        list.push((at, step, keys.len()));
                        keys.push(queue.push(Time(at), keys.len()));
                    }
                    Op::Pop => {
                        list.sort_unstable();
                        let first = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(queue.pop(), first.map(|(at, _, event)| (Time(at), event)));
                    }
                    _ if keys.is_empty() => {}
                    Op::Cancel(i) => {
                        let event = i % keys.len();
                        let gone = find(&list, event).map(|at| list.remove(at).2);
                        prop_assert_eq!(queue.cancel(keys[event]), gone);
                    }
                    Op::Reschedule(i, at) => {
                        let event = i % keys.len();
                        let found = find(&list, event);
                        if let Some(place) = found {
                            list[place] = (at, step, event);
                        }
                        prop_assert_eq!(queue.reschedule(keys[event], Time(at)), found.is_some());
                        prop_assert_eq!(queue.time_of(keys[event]), found.map(|_| Time(at)));
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.is_empty(), list.is_empty());
                prop_assert_eq!(queue.peek_time(), list.iter().min().map(|&(at, ..)| Time(at)));
            }
            list.sort_unstable();
            for (at, _, event) in list {
                prop_assert_eq!(queue.pop(), Some((Time(at), event)));
            }
            prop_assert_eq!(queue.pop(), None);
        }
    }
}
