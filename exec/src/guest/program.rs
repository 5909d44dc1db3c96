//! A phase, compiled for one vCPU: what the guest's code and the replay both look steps up in.
//!
//! A step draws a number; the alias method (Walker 1977, Vose 1991) turns it into an entry in constant time, whatever the
//! weights; an entry is an access to pages that are accessed alike, or none. Where the offered rate is below
//! [`LEAST_RATE`], steps without an access make up the difference, so that a guest always has a pulse.
//!
//! There is one cursor for sweeps that write and one for those that read. A phase with more of either takes turns instead of drawing
//! ([`lanes`](super::lanes)).

use super::lanes;
use super::spec::Phase;
use livemig_core::units::PAGE_SIZE;

/// Steps per second and vCPU, at least.
pub(crate) const LEAST_RATE: f64 = 1000.0;
/// Steps between two looks at the clock, at most. Sixteen remote faults of 100 us are still no gap worth speaking of.
const MOST_CHUNK: f64 = 16.0;

/// Flags in the low bits of an entry's address.
pub(crate) const SWEEP: u64 = 1;
pub(crate) const READ: u64 = 2;
pub(crate) const NONE: u64 = 4;

/// One outcome of the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The entry itself is taken when what is left of the draw is at most this, otherwise its alias. Of a lane, 2^64 times the accesses
    /// per turn.
    pub(crate) cut: u64,
    /// Index of the other entry.
    pub(crate) alias: u64,
    /// Address of the first page, with flags.
    pub(crate) base: u64,
    /// How many pages, a stride apart.
    pub(crate) count: u64,
}

/// A compiled phase.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// Never empty.
    pub(crate) entries: Vec<Entry>,
    /// Bytes from one page of this vCPU to its next.
    pub(crate) stride: u64,
    /// Steps between two looks at the clock.
    pub(crate) chunk: u64,
    /// Steps per second, offered.
    pub(crate) rate: f64,
    /// The logarithm of the number of entries where these take turns; 0 where they are drawn.
    pub(crate) turns: u32,
}

/// Pages that are accessed alike, by one vCPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// Accesses per second.
    pub(super) rate: f64,
    /// Address of the first page, with flags.
    pub(super) base: u64,
    /// How many pages, a stride apart.
    pub(super) count: u64,
}

/// Which page a step accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    None,
    /// The byte address of the page.
    Read(u64),
    /// The byte address of the page.
    Write(u64),
}

/// Where sweeps have got to: part of a vCPU's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors {
    pub(crate) write: u64,
    pub(crate) read: u64,
}

impl Table {
    /// Compiles `phase` for one of `vcpus` vCPUs.
    pub(crate) fn new(phase: &Phase, vcpu: u32, vcpus: u32) -> Table {
        let (own, all) = (u64::from(vcpu), u64::from(vcpus));
        let mut parts = Vec::new();
        for region in &phase.regions {
            let first = region.first.0 + (own + all - region.first.0 % all) % all;
            let count = (region.first.0 + region.pages).saturating_sub(first).div_ceil(all);
            let share = count as f64 / region.pages as f64;
            let base = (first * PAGE_SIZE) | if region.sweep { SWEEP } else { 0 };
            parts.push(Part { rate: region.writes * share, base, count });
            parts.push(Part { rate: region.reads * share, base: base | READ, count });
        }
        parts.retain(|part| part.rate > 0.0);
        let stride = all * PAGE_SIZE;
        let sweeps = |flags: u64| parts.iter().filter(|part| part.base & (SWEEP | READ) == flags).count();
        let (entries, rate, turns) = if sweeps(SWEEP) > 1 || sweeps(SWEEP | READ) > 1 {
            lanes::entries(&parts, stride)
        } else {
            let offered: f64 = parts.iter().map(|part| part.rate).sum();
            if offered < LEAST_RATE {
                parts.push(Part { rate: LEAST_RATE - offered, base: NONE, count: 1 });
            }
            (alias(&parts), offered.max(LEAST_RATE), 0)
        };
        Table { entries, stride, chunk: (rate / LEAST_RATE).clamp(1.0, MOST_CHUNK) as u64, rate, turns }
    }

    /// What a step does, given its draw; moves the cursors as the guest does.
    #[inline]
    pub(crate) fn access(&self, step: u64, z: u64, cursors: &mut Cursors) -> Access {
        if self.turns > 0 {
            return lanes::access(&self.entries, self.turns, self.stride, (step, z));
        }
        let (index, left) = crate::mix::below(z, self.entries.len() as u64);
        let mut entry = &self.entries[index as usize];
        if left > entry.cut {
            entry = &self.entries[entry.alias as usize];
        }
        if entry.base & NONE != 0 {
            return Access::None;
        }
        let read = entry.base & READ != 0;
        let index = if entry.base & SWEEP != 0 {
            let cursor = if read { &mut cursors.read } else { &mut cursors.write };
            let at = if *cursor < entry.count { *cursor } else { 0 };
            *cursor = at + 1;
            at
        } else {
            crate::mix::below(crate::mix::second(z), entry.count).0
        };
        entry.page(index, self.stride)
    }
}

impl Entry {
    /// The access to one of its pages.
    #[inline]
    pub(super) fn page(&self, index: u64, stride: u64) -> Access {
        let address = (self.base & !(PAGE_SIZE - 1)) + index * stride;
        if self.base & READ != 0 { Access::Read(address) } else { Access::Write(address) }
    }
}

/// Vose's construction. All arithmetic is exact in the same way everywhere: only +, -, x, / of IEEE 754.
fn alias(parts: &[Part]) -> Vec<Entry> {
    let total: f64 = parts.iter().map(|part| part.rate).sum();
    let mut weights: Vec<f64> = parts.iter().map(|part| part.rate / total * parts.len() as f64).collect();
    let mut entries: Vec<Entry> =
        (0u64..).zip(parts).map(|(i, part)| Entry { cut: u64::MAX, alias: i, base: part.base, count: part.count }).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(|&i| weights[i] < 1.0);
    while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
        small.pop();
        // A cast saturates: a weight that rounding left below zero is never taken.
        entries[s].cut = (weights[s] * 2f64.powi(64)) as u64;
        entries[s].alias = l as u64;
        weights[l] -= 1.0 - weights[s];
        if weights[l] < 1.0 {
            large.pop();
            small.push(l);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Region;
    use crate::mix::at_step;
    use livemig_core::units::PageIndex;

    fn region(first: u64, pages: u64, writes: f64, reads: f64) -> Region {
        Region { first: PageIndex(first), pages, writes, reads, sweep: false }
    }

    #[test]
    fn accesses_fall_as_the_rates_say() {
        let regions = vec![region(0, 10, 6000.0, 1000.0), region(10, 90, 100.0, 2900.0)];
        let table = Table::new(&Phase { until: None, regions }, 0, 1);
        assert_eq!((table.rate, table.chunk), (10_000.0, 10));
        let (mut hot, mut cold, mut reads) = (0u32, 0u32, 0u32);
        for step in 0..100_000 {
            match table.access(step, at_step(7, step), &mut Cursors::default()) {
                Access::Write(a) if a < 10 * PAGE_SIZE => hot += 1,
                Access::Write(a) => {
                    assert!(a < 100 * PAGE_SIZE && a % PAGE_SIZE == 0);
                    cold += 1;
                }
                Access::Read(_) => reads += 1,
                Access::None => unreachable!("the offered rate needs no padding"),
            }
        }
        // Four standard deviations of the binomial.
        assert!(hot.abs_diff(60_000) < 620 && cold.abs_diff(1000) < 126 && reads.abs_diff(39_000) < 620, "{hot} {cold} {reads}");
    }

    #[test]
    fn vcpus_share_out_every_page() {
        let phase = Phase { until: None, regions: vec![region(5, 8, 1e6, 0.0), region(13, 1, 1e6, 0.0)] };
        let mut owners = [0u32; 14];
        let mut rate = 0.0;
        for vcpu in 0..3 {
            let table = Table::new(&phase, vcpu, 3);
            rate += table.rate;
            for entry in &table.entries {
                for i in 0..entry.count {
                    let page = (entry.base + i * table.stride) / PAGE_SIZE;
                    assert_eq!(page % 3, u64::from(vcpu));
                    owners[page as usize] += 1;
                }
            }
        }
        assert_eq!(owners, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert!((rate - 2e6).abs() < 1.0);
    }

    #[test]
    fn an_idle_guest_has_a_pulse() {
        let table = Table::new(&Phase { until: None, regions: vec![region(0, 4, 10.0, 0.0)] }, 0, 1);
        assert_eq!((table.rate, table.chunk), (LEAST_RATE, 1));
        let writes = (0..100_000).filter(|&s| table.access(s, at_step(1, s), &mut Cursors::default()) != Access::None).count();
        assert!(writes.abs_diff(1000) < 130, "{writes}");
        let idle = Table::new(&Phase { until: None, regions: Vec::new() }, 0, 1);
        assert_eq!(idle.access(5, at_step(1, 5), &mut Cursors::default()), Access::None);
    }

    #[test]
    fn a_sweep_goes_round() {
        let phase = Phase { until: None, regions: vec![Region { sweep: true, ..region(2, 3, 5000.0, 0.0) }] };
        let table = Table::new(&phase, 0, 1);
        let mut cursors = Cursors::default();
        let pages: Vec<Access> = (0..5).map(|s| table.access(s, at_step(1, s), &mut cursors)).collect();
        assert_eq!(pages, [2, 3, 4, 2, 3].map(|p| Access::Write(p * PAGE_SIZE)));
    }
}
