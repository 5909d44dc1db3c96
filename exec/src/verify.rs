//! Verification: every byte of a guest's memory against the replay, and for what is wrong, what it looks like.

use crate::content::{Page, Sort};
use crate::memory::GuestMemory;
use crate::replay::{FIRST, LAST, Replay};
use livemig_core::units::PageIndex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Most wrong pages that a report describes one by one.
const MAX_FINDINGS: usize = 64;

/// The outcome of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Pages compared: all of the guest's memory.
    pub pages: u64,
    /// Pages that the guest has written at least once.
    pub touched: u64,
    /// Pages that are not what they must be.
    pub wrong: u64,
    /// The first of them in address order, at most 64.
    pub findings: Vec<Finding>,
}

/// A page that is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub page: PageIndex,
    /// The first byte that differs.
    pub offset: u64,
    /// What it looks like.
    pub looks: Looks,
}

/// What a wrong page looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Looks {
    /// All zeros: never sent, or dropped.
    Zero,
    /// As it was this many writes earlier.
    Older(u64),
    /// As if it had been written this many times more: the guest ran on where it should not have.
    Newer(u64),
    /// First and last cache line are of different versions: copied while it was written, and not copied again.
    Torn,
    /// The content of another page.
    Other(PageIndex),
    /// Nothing that this guest ever held.
    Corrupt,
}

impl Report {
    /// Whether every byte is what it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.wrong == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pages wrong ({} written by the guest)", self.wrong, self.pages, self.touched)?;
        self.findings.iter().try_for_each(|finding| write!(f, "; {finding}"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} from byte {}: ", self.page.0, self.offset)?;
        match self.looks {
            Looks::Zero => write!(f, "zero"),
            Looks::Older(writes) => write!(f, "older by {writes} writes"),
            Looks::Newer(writes) => write!(f, "newer by {writes} writes"),
            Looks::Torn => write!(f, "torn"),
            Looks::Other(page) => write!(f, "content of page {}", page.0),
            Looks::Corrupt => write!(f, "corrupt"),
        }
    }
}

/// Compares all of `memory`, whose guest is paused where `replay` has got to, with `threads` threads. Pages that are missing
/// and registered with a [`Userfault`](crate::memory::Userfault) are faulted in.
///
/// # Panics
/// When memory is not the size of the replayed guest's.
#[must_use]
pub fn verify(replay: &Replay, memory: &GuestMemory, threads: usize) -> Report {
    assert_eq!(memory.pages(), replay.spec().pages(), "memory of the replayed guest");
    let chunk = memory.pages().div_ceil(threads.max(1) as u64);
    let (mut wrong, mut pages) = (0, Vec::new());
    std::thread::scope(|scope| {
        let part = |first: u64| compare(replay, memory, first..memory.pages().min(first + chunk));
        let starts = (0..threads as u64).map(|t| t * chunk).filter(|first| *first < memory.pages());
        let parts: Vec<_> = starts.map(|first| scope.spawn(move || part(first))).collect();
        for thread in parts {
            let (count, mut first) = thread.join().expect("a comparison does not panic");
            wrong += count;
            pages.append(&mut first);
        }
    });
    pages.truncate(MAX_FINDINGS);
    let mut others = None;
    let findings = pages.into_iter().map(|page| find(replay, memory, page, &mut others)).collect();
    Report { pages: memory.pages(), touched: replay.touched(), wrong, findings }
}

/// How many pages are wrong, and the first of them.
fn compare(replay: &Replay, memory: &GuestMemory, range: std::ops::Range<u64>) -> (u64, Vec<PageIndex>) {
    let (mut count, mut first) = (0, Vec::new());
    let (mut expected, mut found) = (Page::ZERO, Page::ZERO);
    for page in range.map(PageIndex) {
        replay.expected(page, &mut expected);
        memory.read_page(page, &mut found);
        if found != expected {
            count += 1;
            if first.len() < MAX_FINDINGS {
                first.push(page);
            }
        }
    }
    (count, first)
}

/// A word in the middle of each page, where no write goes, to its page.
type Middles = BTreeMap<u64, PageIndex>;

fn find(replay: &Replay, memory: &GuestMemory, page: PageIndex, middles: &mut Option<Middles>) -> Finding {
    let (mut expected, mut found) = (Page::ZERO, Page::ZERO);
    replay.expected(page, &mut expected);
    memory.read_page(page, &mut found);
    let bytes = |page: &Page| page.0.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>();
    let offset = bytes(&expected).iter().zip(bytes(&found)).position(|(a, b)| *a != b).unwrap_or(0) as u64;
    let looks = if found == Page::ZERO { Looks::Zero } else { looks(replay, page, &found, middles) };
    Finding { page, offset, looks }
}

const MIDDLE: usize = 256;

fn looks(replay: &Replay, page: PageIndex, found: &Page, middles: &mut Option<Middles>) -> Looks {
    let mut initial = Page::ZERO;
    replay.spec().content.make(page, &mut initial);
    let unwritten = |p: &Page| {
        let mut p = *p;
        for (counter, step) in [FIRST, LAST] {
            (p.0[counter], p.0[step]) = (0, 0);
        }
        p
    };
    if unwritten(found) == unwritten(&initial) {
        // Zero pages differ by their counters only: another page's are told by its last step before they pass for a version.
        if replay.spec().content.sort(page) == Sort::Zero
            && let Some(looks) = by_step(replay, page, found)
        {
            return looks;
        }
        if let Some(looks) = version(replay, page, found, &initial) {
            return looks;
        }
        return Looks::Corrupt;
    }
    let middles = middles.get_or_insert_with(|| index(replay));
    let Some(&other) = middles.get(&found.0[MIDDLE]).filter(|other| **other != page) else { return Looks::Corrupt };
    replay.spec().content.make(other, &mut initial);
    if unwritten(found) == unwritten(&initial) { Looks::Other(other) } else { Looks::Corrupt }
}

/// Which version of its own page this is, if its counters make sense.
fn version(replay: &Replay, page: PageIndex, found: &Page, initial: &Page) -> Option<Looks> {
    let must = replay.written(page);
    // Count and step of a cache line.
    let line = |(counter, step): (usize, usize)| {
        let count = found.0[counter].wrapping_sub(initial.0[counter]);
        let step = if count == 0 && found.0[step] == initial.0[step] { None } else { Some(found.0[step]) };
        (count, step)
    };
    let (first, last) = (line(FIRST), line(LAST));
    // More writes than steps cannot be; a million more than there should be are no version either.
    let most = must.count + 1_000_000;
    if first.0 > most || last.0 > most {
        return None;
    }
    if first != last {
        return Some(Looks::Torn);
    }
    let (count, step) = first;
    match count.cmp(&must.count) {
        std::cmp::Ordering::Less if step.is_none_or(|s| s < must.step) => Some(Looks::Older(must.count - count)),
        std::cmp::Ordering::Greater if step.is_some_and(|s| s > must.step || must.count == 0) => {
            Some(Looks::Newer(count - must.count))
        }
        _ => None,
    }
}

/// A page with the same initial content (zeros) whose last write this is.
fn by_step(replay: &Replay, page: PageIndex, found: &Page) -> Option<Looks> {
    let same = |other: &PageIndex| {
        let mut expected = Page::ZERO;
        replay.expected(*other, &mut expected);
        expected == *found
    };
    let candidate =
        |other: &PageIndex| *other != page && replay.written(*other).step == found.0[FIRST.1] && replay.written(*other).count > 0;
    (0..replay.spec().pages()).map(PageIndex).filter(candidate).find(same).map(Looks::Other)
}

fn index(replay: &Replay) -> Middles {
    let content = &replay.spec().content;
    let mut page = Page::ZERO;
    let mut middles = Middles::new();
    for index in (0..replay.spec().pages()).map(PageIndex).filter(|page| content.sort(*page) != Sort::Zero) {
        content.make(index, &mut page);
        middles.insert(page.0[MIDDLE], index);
    }
    middles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::guest::{GuestSpec, Phase, PhaseChange, Region};
    use crate::replay::{Progress, VcpuProgress};
    use livemig_core::units::Bytes;

    fn progress(step: u64, stores: u8) -> Progress {
        let vcpu = VcpuProgress { step, stores, changes: vec![PhaseChange { step: 0, phase: 0 }] };
        Progress { vcpus: vec![vcpu.clone(), vcpu] }
    }

    /// A guest of 300 pages, of which the first 200 are written, replayed to a step.
    fn replay(step: u64) -> Replay {
        let region = Region { first: PageIndex(0), pages: 200, writes: 1e6, reads: 1e5, sweep: false };
        let spec = GuestSpec {
            memory: Bytes::from_pages(300),
            vcpus: 2,
            seed: 1,
            content: Content::new(1).with_zero_share(0.3),
            phases: vec![Phase { until: None, regions: vec![region] }],
        };
        let mut replay = Replay::new(&spec).unwrap();
        replay.advance(&progress(step, 0)).unwrap();
        replay
    }

    fn page(replay: &Replay, index: u64) -> Page {
        let mut page = Page::ZERO;
        replay.expected(PageIndex(index), &mut page);
        page
    }

    fn memory(replay: &Replay) -> GuestMemory {
        let memory = GuestMemory::allocate(replay.spec().memory, false).unwrap();
        (0..300).for_each(|index| memory.write_page(PageIndex(index), &page(replay, index)));
        memory
    }

    /// What the only wrong page looks like when `index` holds `content`.
    fn looks_of(replay: &Replay, index: u64, content: &Page) -> Looks {
        let memory = memory(replay);
        memory.write_page(PageIndex(index), content);
        let report = verify(replay, &memory, 3);
        assert_eq!((report.wrong, report.findings.len()), (1, 1), "{report}");
        assert_eq!(report.findings[0].page, PageIndex(index));
        report.findings[0].looks
    }

    /// A page of a sort that is written between two steps.
    fn changing(before: &Replay, after: &Replay, sort: Sort) -> u64 {
        let wanted = |&i: &u64| after.spec().content.sort(PageIndex(i)) == sort && page(before, i) != page(after, i);
        (0..200).find(wanted).expect("a page that is written")
    }

    #[test]
    fn every_sort_of_damage_has_its_name() {
        let (old, new) = (replay(5000), replay(10_000));
        assert!(verify(&new, &memory(&new), 2).is_clean());
        for sort in [Sort::Own, Sort::Zero] {
            let at = changing(&old, &new, sort);
            let writes = new.written(PageIndex(at)).count - old.written(PageIndex(at)).count;
            let stale = page(&old, at);
            assert_eq!(looks_of(&new, at, &stale), Looks::Older(writes), "a stale page");
            assert_eq!(looks_of(&old, at, &page(&new, at)), Looks::Newer(writes), "a guest that ran on");
            assert_eq!(looks_of(&new, at, &Page::ZERO), Looks::Zero, "a lost page");
            let mut torn = page(&new, at);
            torn.0[..8].copy_from_slice(&stale.0[..8]);
            assert_eq!(looks_of(&new, at, &torn), Looks::Torn, "a torn page");
            let mut first = page(&new, at);
            first.0[FIRST.0] ^= 1 << 60;
            assert_eq!(looks_of(&new, at, &first), Looks::Corrupt, "a flipped bit in a counter");
            let mut middle = page(&new, at);
            middle.0[300] ^= 1;
            assert_eq!(looks_of(&new, at, &middle), Looks::Corrupt, "a flipped bit elsewhere");
            let other = (at + 1..200).find(|&i| new.spec().content.sort(PageIndex(i)) == sort).unwrap();
            assert_eq!(looks_of(&new, at, &page(&new, other)), Looks::Other(PageIndex(other)), "a swapped page");
        }
    }

    #[test]
    fn the_loss_of_the_last_write_alone_is_found() {
        // The last step that writes is found by going back one at a time.
        let last = (0..100).map(|back| (replay(10_000 - back - 1), replay(10_000 - back)));
        let differ = |(before, after): &(Replay, Replay)| (0..200).find(|&i| page(before, i) != page(after, i));
        let (at, (before, after)) = last.filter_map(|pair| Some((differ(&pair)?, pair))).next().unwrap();
        assert_eq!(looks_of(&after, at, &page(&before, at)), Looks::Older(1));
    }

    #[test]
    fn a_step_under_way_is_told_from_its_beginning_and_its_end() {
        let (mut before, mut after) = (replay(0), replay(0));
        let step = (1000..1100).find(|&step| {
            before = replay(step);
            after = replay(step + 1);
            before.written(PageIndex(0)) != after.written(PageIndex(0)) || (1..200).any(|i| page(&before, i) != page(&after, i))
        });
        // Pages in the order of the stores: none, one, ... four, which is the whole step.
        let versions = (0..=4u8).map(|stores| {
            let mut replay = replay(0);
            replay.advance(&progress(step.unwrap(), stores)).unwrap();
            memory(&replay)
        });
        let versions: Vec<_> = versions.collect();
        for (i, memory) in versions.iter().enumerate() {
            assert_eq!(verify(&before, memory, 1).is_clean(), i == 0);
            assert_eq!(verify(&after, memory, 1).is_clean(), i == 4);
        }
    }

    #[test]
    fn a_report_of_a_memory_full_of_errors_is_bounded() {
        let replay = replay(100);
        let memory = GuestMemory::allocate(replay.spec().memory, false).unwrap();
        let report = verify(&replay, &memory, 2);
        assert!(report.wrong > 150 && report.findings.len() == MAX_FINDINGS, "{report}");
        assert!(report.findings.windows(2).all(|w| w[0].page < w[1].page));
    }

    #[test]
    fn a_replay_in_parts_is_a_replay_and_never_goes_back() {
        let whole = replay(7777);
        let mut parts = replay(10);
        for step in [10, 500, 501, 7777] {
            parts.advance(&progress(step, 2)).unwrap();
        }
        parts.advance(&progress(7777, 0)).unwrap();
        assert!((0..300).all(|i| page(&whole, i) == page(&parts, i)));
        assert!(parts.advance(&progress(7776, 0)).is_err());
        assert!(parts.advance(&Progress { vcpus: Vec::new() }).is_err());
        let mut strange = progress(8000, 0);
        strange.vcpus[1].changes[0].phase = 1;
        assert!(parts.advance(&strange).is_err());
    }
}
