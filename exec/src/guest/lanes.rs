//! Entries that take turns, for phases with more sweeps than there are cursors.
//!
//! There are 2^k entries, and step s is the turn number s / 2^k of entry s modulo 2^k. An entry with x accesses per turn, at most one, has
//! made floor(x t) of them after t turns, and that is also where its sweep is. So nothing has to be kept: accesses come as evenly as they
//! can, and each is a function of the step (Bresenham's line, with x in units of 2^-64).

use super::program::{Access, Entry, LEAST_RATE, NONE, Part, SWEEP};

/// Entries for each part, at least: a part with more is faster, so that turns are few in which nothing is done.
const EACH: usize = 2;
/// Entries, at least.
const LEAST: usize = 16;

/// The entries of parts whose pages are `stride` bytes apart, the steps per second over all of them, and the logarithm of their number.
pub(super) fn entries(parts: &[Part], stride: u64) -> (Vec<Entry>, f64, u32) {
    let lanes = (parts.len() * EACH).next_power_of_two().max(LEAST);
    let mut cut: Vec<Part> = Vec::with_capacity(lanes);
    for (part, pieces) in parts.iter().zip(shares(parts, lanes)) {
        cut.extend((0..pieces).map(|piece| part.piece(piece, pieces, stride)));
    }
    let fastest = cut.iter().map(|part| part.rate).fold(0.0, f64::max);
    let rate = (fastest * lanes as f64).max(LEAST_RATE);
    // A cast saturates: an access in each turn but one of 2^64.
    let per_turn = |part: &Part| (part.rate * lanes as f64 / rate * 2f64.powi(64)) as u64;
    let mut entries: Vec<Entry> =
        (0u64..).zip(&cut).map(|(i, part)| Entry { cut: per_turn(part), alias: i, base: part.base, count: part.count }).collect();
    let idle = |i: usize| Entry { cut: 0, alias: i as u64, base: NONE, count: 1 };
    entries.extend((entries.len()..lanes).map(idle));
    (entries, rate, lanes.trailing_zeros())
}

/// In how many pieces each part is cut, so that the fastest piece is slow.
fn shares(parts: &[Part], lanes: usize) -> Vec<u64> {
    let mut shares = vec![1; parts.len()];
    for _ in parts.len()..lanes {
        let speed = |i: usize| parts[i].rate / shares[i] as f64;
        let may = (0..parts.len()).filter(|&i| shares[i] < parts[i].count);
        match may.max_by(|&a, &b| speed(a).total_cmp(&speed(b))) {
            Some(fastest) => shares[fastest] += 1,
            None => break,
        }
    }
    shares
}

impl Part {
    /// One of so many pieces: of a sweep a range of its pages, otherwise all of them less often.
    fn piece(&self, piece: u64, of: u64, stride: u64) -> Part {
        if self.base & SWEEP == 0 {
            return Part { rate: self.rate / of as f64, ..*self };
        }
        let (first, end) = (self.count * piece / of, self.count * (piece + 1) / of);
        let count = end - first;
        Part { rate: self.rate * (count as f64 / self.count as f64), base: self.base + first * stride, count }
    }
}

/// What a step does, given its number and its draw.
#[inline]
pub(super) fn access(entries: &[Entry], turns: u32, stride: u64, (step, z): (u64, u64)) -> Access {
    let entry = &entries[(step & (entries.len() as u64 - 1)) as usize];
    let at = u128::from(step >> turns) * u128::from(entry.cut);
    if (at as u64).checked_add(entry.cut).is_some() {
        return Access::None;
    }
    let index = if entry.base & SWEEP != 0 {
        (at >> 64) as u64 % entry.count
    } else {
        crate::mix::below(crate::mix::second(z), entry.count).0
    };
    entry.page(index, stride)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::program::READ;
    use livemig_core::units::PAGE_SIZE;

    #[test]
    fn accesses_are_as_many_and_as_even_as_the_rates_say() {
        let part = |rate, first: u64, count, flags| Part { rate, base: (first * PAGE_SIZE) | flags, count };
        let parts = [part(9000.0, 0, 100, SWEEP), part(700.0, 100, 50, SWEEP), part(0.5, 150, 1, SWEEP), part(300.0, 0, 151, READ)];
        let (entries, rate, turns) = entries(&parts, PAGE_SIZE);
        assert_eq!((entries.len(), turns), (16, 4));
        // From anywhere on, to the length of ten seconds.
        for from in [0, 123_456_789] {
            let mut seen = [0.0; 4];
            for step in from..from + (rate * 10.0) as u64 {
                match access(&entries, turns, PAGE_SIZE, (step, crate::mix::at_step(1, step))) {
                    Access::Write(page) if page < 100 * PAGE_SIZE => seen[0] += 1.0,
                    Access::Write(page) if page < 150 * PAGE_SIZE => seen[1] += 1.0,
                    Access::Write(_) => seen[2] += 1.0,
                    Access::Read(page) => {
                        assert!(page < 151 * PAGE_SIZE);
                        seen[3] += 1.0;
                    }
                    Access::None => {}
                }
            }
            for (seen, part) in seen.iter().zip(&parts) {
                assert!((seen - part.rate * 10.0).abs() <= 16.0, "{seen} accesses of {part:?}");
            }
        }
    }

    #[test]
    fn few_accesses_leave_a_pulse() {
        let part = Part { rate: 2.0, base: SWEEP, count: 3 };
        let (entries, rate, turns) = entries(&[part, part], PAGE_SIZE);
        assert_eq!(rate, LEAST_RATE);
        let pages: Vec<Access> =
            (0..2000).map(|s| access(&entries, turns, PAGE_SIZE, (s, 0))).filter(|a| *a != Access::None).collect();
        // Each of the two parts has been cut into its three pages.
        assert_eq!(pages.len(), 6, "{pages:?}");
    }
}
