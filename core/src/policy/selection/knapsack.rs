//! Which of some items are taken, so that a function of their weight and value is best: by dynamic programming over the weight (Bellman
//! 1957) where the weights fit into a table, over the undominated states (Nemhauser and Ullmann, Management Science 15, 1969) where
//! they do not. Both are exact.

/// Something that is taken or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Above zero.
    pub(super) weight: u64,
    /// Above zero.
    pub(super) value: u64,
}

/// Which totals of the items that are taken are of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The least weight: with less there is no total of at least `value`.
    pub(super) low: u64,
    /// The most weight.
    pub(super) cap: u64,
    /// The least value; a total with less may be considered or not.
    pub(super) value: u64,
}

/// The most entries of a table: with one Mbit/s each, a tebibit per second.
const TABLE: u64 = 1 << 20;
/// Values in a table stay below this, so that what cannot be reached, which is minus this, stays negative whatever is added.
const UNREACHABLE: i32 = -(1 << 30);

/// The items to take so that `cost(weight, value)` is least, among those within the bounds: of each weight only the totals with the most
/// value are considered, and of two totals none that has both more weight and no more value than the other. `None` when nothing
/// is within the bounds.
pub(super) fn best<K: Ord>(items: &[Item], bounds: Bounds, cost: impl Fn(u64, u64) -> K) -> Option<Vec<bool>> {
    let values: u64 = items.iter().map(|i| i.value).sum();
    let weights: u64 = items.iter().map(|i| i.weight).sum();
    let bounds = Bounds { cap: bounds.cap.min(weights), ..bounds };
    if bounds.cap < TABLE && values < UNREACHABLE.unsigned_abs().into() {
        by_table(items, bounds, cost)
    } else {
        by_states(items, bounds, cost)
    }
}

/// The table's rows: row `i` is about the first `i` items, and holds the weights from which the bounds can still be reached.
struct Rows<'a> {
    items: &'a [Item],
    /// The weights of row `i` are `first[i]..=last[i]`.
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Rows<'_> {
    fn new(items: &[Item], bounds: Bounds) -> Rows<'_> {
        let mut rest: u64 = items.iter().map(|i| i.weight).sum();
        let mut before = 0;
        let (mut first, mut last) = (Vec::with_capacity(items.len() + 1), Vec::with_capacity(items.len() + 1));
        for weight in items.iter().map(|i| i.weight).chain([0]) {
            first.push(bounds.low.saturating_sub(rest) as usize);
            last.push(bounds.cap.min(before) as usize);
            (rest, before) = (rest - weight, before + weight);
        }
        Rows { items, first, last }
    }

    /// Makes the weights `first..=last` of row `i + 1` out of row `i`. Both are indexed from the weight `origin` on; what is not in a
    /// row is unreachable there. From no weight of row `i + 1` does an item lead back to before the beginning of row `i`.
    fn step(&self, i: usize, (first, last): (usize, usize), origin: usize, from: &[i32], into: &mut [i32]) {
        let Item { weight, value } = self.items[i];
        let split = (weight as usize + origin).clamp(first, last + 1);
        let (first, split, end) = (first - origin, split - origin, last + 1 - origin);
        into[first..split].copy_from_slice(&from[first..split]);
        let taken = split.saturating_sub(weight as usize);
        let (left, taken) = (&from[split..end], &from[taken..]);
        for ((into, &left), &taken) in into[split..end].iter_mut().zip(left).zip(taken) {
            *into = left.max(taken + value as i32);
        }
    }
}

/// Keeps every so many rows and makes those between anew when the way back is looked for.
fn by_table<K: Ord>(items: &[Item], bounds: Bounds, cost: impl Fn(u64, u64) -> K) -> Option<Vec<bool>> {
    if bounds.low > bounds.cap {
        return None;
    }
    let rows = Rows::new(items, bounds);
    let stride = items.len().isqrt().max(1);
    let mut row = vec![UNREACHABLE; bounds.cap as usize + 1];
    let mut next = row.clone();
    row[0] = 0;
    let mut kept: Vec<Vec<i32>> = Vec::new();
    for i in 0..items.len() {
        if i % stride == 0 {
            kept.push(row[..=rows.last[i]].to_vec());
        }
        rows.step(i, (rows.first[i + 1], rows.last[i + 1]), 0, &row, &mut next);
        std::mem::swap(&mut row, &mut next);
    }
    let reached = (bounds.low..=bounds.cap).filter_map(|s| Some((s, u64::try_from(row[s as usize]).ok()?)));
    let (mut weight, _) = reached.min_by_key(|&(s, value)| cost(s, value))?;
    let mut taken = vec![false; items.len()];
    for (block, kept) in kept.iter().enumerate().rev() {
        let start = block * stride;
        let end = items.len().min(start + stride);
        weight = way_back(&rows, start..end, kept, weight, &mut taken);
    }
    Some(taken)
}

/// Finds which of the items of a block are taken on the way to `weight`, and the weight at its beginning, where the row is `kept`.
fn way_back(rows: &Rows<'_>, block: std::ops::Range<usize>, kept: &[i32], weight: u64, taken: &mut [bool]) -> u64 {
    let (mut weight, start) = (weight as usize, block.start);
    let most: u64 = rows.items[block.clone()].iter().map(|i| i.weight).sum();
    let origin = weight.saturating_sub(most as usize);
    let mut first_row = vec![UNREACHABLE; weight + 1 - origin];
    let there = kept.len().clamp(origin, weight + 1);
    first_row[..there - origin].copy_from_slice(&kept[origin..there]);
    let mut made = vec![first_row];
    for i in block.clone() {
        let mut row = vec![UNREACHABLE; weight + 1 - origin];
        let first = rows.first[i + 1].max(origin);
        let last = rows.last[i + 1].min(weight);
        if first <= last {
            rows.step(i, (first, last), origin, &made[i - start], &mut row);
        }
        made.push(row);
    }
    for i in block.rev() {
        let (before, after) = (&made[i - start], &made[i - start + 1]);
        if before[weight - origin] != after[weight - origin] {
            taken[i] = true;
            weight -= rows.items[i].weight as usize;
        }
    }
    weight as u64
}

/// A choice of items that is worth going on with.
#[derive(Clone, Copy)]
struct State {
    weight: u64,
    value: u64,
    /// Its last item, in the list of those taken.
    last: u32,
}

/// In place of the last item of a choice of none.
const NOTHING: u32 = u32::MAX;

fn by_states<K: Ord>(items: &[Item], bounds: Bounds, cost: impl Fn(u64, u64) -> K) -> Option<Vec<bool>> {
    let mut rest = items.iter().fold((0, 0), |(w, v), i| (w + i.weight, v + i.value));
    // Each with the one before it.
    let mut list: Vec<(u32, u32)> = Vec::new();
    // By ascending weight and ascending value.
    let mut states = vec![State { weight: 0, value: 0, last: NOTHING }];
    for (i, item) in items.iter().enumerate() {
        rest = (rest.0 - item.weight, rest.1 - item.value);
        let hopeful = |s: &State| s.weight <= bounds.cap && s.weight + rest.0 >= bounds.low && s.value + rest.1 >= bounds.value;
        let mut merged: Vec<State> = Vec::with_capacity(2 * states.len());
        let (mut left, mut with) = (states.iter().copied().peekable(), states.iter().copied().peekable());
        loop {
            let taken = with.peek().map(|s| (s.weight + item.weight, s.value + item.value));
            let (state, is_taken) = match (left.peek(), taken) {
                (None, None) => break,
                (Some(&l), Some(t)) if (l.weight, std::cmp::Reverse(l.value)) <= (t.0, std::cmp::Reverse(t.1)) => (l, false),
                (Some(&l), None) => (l, false),
                (_, Some((weight, value))) => (State { weight, value, last: NOTHING }, true),
            };
            let origin = if is_taken { with.next() } else { left.next() };
            if hopeful(&state) && merged.last().is_none_or(|last| last.value < state.value) {
                let mut state = state;
                if let (true, Some(origin)) = (is_taken, origin) {
                    state.last = u32::try_from(list.len()).expect("fewer states than 32 bits count");
                    list.push((i as u32, origin.last));
                }
                merged.push(state);
            }
        }
        states = merged;
    }
    let reached = states.iter().filter(|s| (bounds.low..=bounds.cap).contains(&s.weight));
    let mut last = reached.min_by_key(|s| cost(s.weight, s.value))?.last;
    let mut taken = vec![false; items.len()];
    while let Some(&(item, before)) = list.get(last as usize) {
        taken[item as usize] = true;
        last = before;
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn totals(items: &[Item], taken: &[bool]) -> (u64, u64) {
        items.iter().zip(taken).filter(|(_, taken)| **taken).fold((0, 0), |(w, v), (i, _)| (w + i.weight, v + i.value))
    }

    fn items(weights: u64) -> impl Strategy<Value = Vec<Item>> {
        prop::collection::vec((1..weights, 1..40_u64).prop_map(|(weight, value)| Item { weight, value }), 0..60)
    }

    proptest! {
        #[test]
        fn the_table_and_the_states_find_the_same(
            items in prop_oneof![items(4), items(500)],
            cap in 0..8000_u64,
            value in 0..1200_u64,
            share in 0..5_u64,
        ) {
            let sum = |of: fn(&Item) -> u64| items.iter().map(of).sum::<u64>();
            let everything = Bounds { low: 0, cap: sum(|i| i.weight), value: 0 };
            let lightest = by_table(&items, everything, |weight, v| if v < value { u64::MAX } else { weight }).unwrap();
            let (low, reached) = totals(&items, &lightest);
            let bounds = Bounds { low, cap: cap.min(everything.cap), value };
            // Any function that more weight makes worse and more value better.
            let cost = |weight: u64, v: u64| (v < value, weight * share + 100 * (10_000 - v));
            let enough = |taken: &Vec<bool>| totals(&items, taken).1 >= value;
            let table = by_table(&items, bounds, cost).filter(enough);
            let states = by_states(&items, bounds, cost).filter(enough);
            prop_assert_eq!(table.is_some(), reached >= value && low <= bounds.cap);
            prop_assert_eq!(states.is_some(), table.is_some());
            if let (Some(table), Some(states)) = (table, states) {
                let ((tw, tv), (sw, sv)) = (totals(&items, &table), totals(&items, &states));
                prop_assert!((low..=bounds.cap).contains(&tw) && (low..=bounds.cap).contains(&sw));
                prop_assert_eq!(cost(tw, tv), cost(sw, sv));
            }
        }
    }
}
