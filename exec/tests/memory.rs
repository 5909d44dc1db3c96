//! The dirty log and missing pages, with real guests.

mod common;

use common::*;
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::units::{Bytes, PageIndex};
use livemig_exec::ExecError;
use livemig_exec::content::{Page, WORDS};
use livemig_exec::guest::Guest;
use livemig_exec::memory::{GuestMemory, Userfault};
use livemig_exec::replay::Replay;
use livemig_exec::verify::{Looks, verify};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The pages in which two memories differ.
fn differing(a: &GuestMemory, b: &GuestMemory) -> Vec<PageIndex> {
    let (mut x, mut y) = (Page::ZERO, Page::ZERO);
    let differ = |page: &PageIndex| {
        a.read_page(*page, &mut x);
        b.read_page(*page, &mut y);
        x != y
    };
    (0..a.pages()).map(PageIndex).filter(differ).collect()
}

#[test]
fn the_dirty_log_is_exactly_what_changed() {
    if !have_kvm() {
        return;
    }
    let spec = spec(2, vec![region(0, 4000, 30_000.0, 0.0), region(4000, 12_000, 5000.0, 0.0)]);
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&guest, 2000);
    let mut tracker = guest.track_dirty().unwrap();
    pause(&guest);
    assert_eq!(tracker.collect(None).unwrap(), Bitmap::full(spec.pages()), "at first everything is dirty");
    // A vCPU can be stopped between the fault, which is logged, and the write that it was for: a page for each, at most, and
    // that write is the first thing done afterwards.
    let mut about_to = Bitmap::default();
    for _ in 0..3 {
        let before = empty(&spec);
        copy_all(guest.memory(), &before);
        run_steps(&guest, 3000);
        pause(&guest);
        let changed: Bitmap = differing(&before, guest.memory()).into_iter().collect();
        assert!(changed.count() > 500, "{}", changed.count());
        assert!(about_to.iter().all(|page| changed.contains(page)), "{about_to:?}");
        let logged = tracker.peek().unwrap();
        assert_eq!(tracker.peek().unwrap(), logged, "peeking clears nothing");

        let first = tracker.collect(Some(Bytes::from_pages(100))).unwrap();
        assert_eq!(first.count(), 100);
        let mut rest = tracker.collect(None).unwrap();
        assert_eq!(tracker.peek().unwrap(), Bytes::ZERO);
        tracker.give_back(&first);
        let again = tracker.collect(None).unwrap();
        assert!(again.iter().eq(first.iter()));
        rest.merge(again);
        assert_eq!(rest.len(), logged);
        assert!(changed.iter().all(|page| rest.contains(page)), "a write that was not logged");
        about_to = rest.iter().filter(|page| !changed.contains(*page)).collect();
        assert!(about_to.count() <= u64::from(spec.vcpus), "{about_to:?}");
    }
    drop(tracker);
    run_steps(&guest, 1000);
    pause(&guest);
    assert_clean(&guest);
    // A log that is switched on again knows nothing of before.
    let mut tracker = guest.track_dirty().unwrap();
    assert_eq!(tracker.collect(None).unwrap(), Bitmap::full(spec.pages()));
    run_steps(&guest, 1000);
    pause(&guest);
    assert!(tracker.peek().unwrap() > Bytes::ZERO);
}

#[test]
fn reads_are_logged_at_most_once_and_nothing_is_missed() {
    if !have_kvm() {
        return;
    }
    // KVM maps a page for writing at the first access, and logs it even when that is a read.
    let spec = spec(1, vec![region(0, 500, 10_000.0, 0.0), region(500, 500, 0.0, 50_000.0)]);
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    let mut tracker = guest.track_dirty().unwrap();
    tracker.collect(None).unwrap();
    let (mut read, mut again) = (Bitmap::default(), 0);
    for _ in 0..3 {
        let before = empty(&spec);
        copy_all(guest.memory(), &before);
        run_steps(&guest, 5000);
        pause(&guest);
        let log = tracker.collect(None).unwrap();
        let changed: Bitmap = differing(&before, guest.memory()).into_iter().collect();
        assert!(changed.count() > 300 && changed.iter().all(|page| log.contains(page)));
        let (written, only_read): (Vec<_>, Vec<_>) =
            log.iter().filter(|page| !changed.contains(*page)).partition(|page| page.0 < 500);
        assert!(written.len() <= 1, "at most the page about to be written: {written:?}");
        for page in only_read {
            assert!(page.0 < 1000, "page {} was not accessed", page.0);
            again += u64::from(!read.insert(page));
        }
    }
    // The kernel may drop mappings for reasons of its own.
    assert!(read.count() > 100 && again <= 20, "{} and {again}", read.count());
}

#[test]
fn pages_copied_while_the_guest_runs_are_right_in_the_end() {
    if !have_kvm() {
        return;
    }
    let spec = spec(2, vec![region(0, 2000, 60_000.0, 0.0)]);
    let source = Guest::new(&spec, filled(&spec)).unwrap();
    let memory = empty(&spec);
    let mut tracker = source.track_dirty().unwrap();
    source.resume();
    for _ in 0..5 {
        let pages = tracker.collect(None).unwrap();
        pages.iter().for_each(|page| copy_page(source.memory(), &memory, page));
        run_steps(&source, 1000);
    }
    pause(&source);
    let last = tracker.collect(None).unwrap();
    assert!(last.count() > 0);
    // Without the last round the verification says so.
    let mut replay = Replay::new(&spec).unwrap();
    replay.advance(&source.progress().unwrap()).unwrap();
    let early = verify(&replay, &memory, 2);
    assert!(early.wrong > 0 && early.wrong <= last.count(), "{early}");
    last.iter().for_each(|page| copy_page(source.memory(), &memory, page));
    let report = verify(&replay, &memory, 2);
    assert!(report.is_clean(), "{report}");
    let destination = Guest::restore(&spec, memory, &source.save().unwrap(), Instant::now()).unwrap();
    drop((tracker, source));
    run_steps(&destination, 1000);
    pause(&destination);
    assert_clean(&destination);
}

#[test]
fn damage_to_a_real_guest_is_found() {
    if !have_kvm() {
        return;
    }
    let spec = spec(1, vec![region(0, 500, 1e6, 0.0)]);
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&guest, 20_000);
    pause(&guest);
    let old = empty(&spec);
    copy_all(guest.memory(), &old);
    run_steps(&guest, 20_000);
    pause(&guest);
    assert_clean(&guest);

    let memory = guest.memory();
    let mut page = Page::ZERO;
    memory.read_page(PageIndex(9000), &mut page);
    page.0[77] ^= 1 << 5;
    memory.write_page(PageIndex(9000), &page);
    copy_page(&old, memory, PageIndex(7));
    memory.discard(PageIndex(8), 1).unwrap();
    let report = verified(&guest);
    let looks: Vec<_> = report.findings.iter().map(|f| (f.page.0, f.looks)).collect();
    assert!(matches!(looks[..], [(7, Looks::Older(_)), (8, Looks::Zero), (9000, Looks::Corrupt)]), "{report}");
    assert_eq!(report.findings[2].offset, 77 * 8);
}

/// A watch over missing pages; says that the test is skipped, and why, where they may not be watched.
fn watch(memory: &Arc<GuestMemory>) -> Option<Userfault> {
    match Userfault::watch(memory.clone()) {
        Ok(watch) => Some(watch),
        Err(ExecError::Kernel { call: call @ ("userfaultfd" | "USERFAULTFD_IOC_NEW"), source }) => {
            println!("skipped: no userfaultfd: {call}: {source}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Serves missing pages from `from` until told to stop.
fn serve(watch: &Userfault, from: &GuestMemory, stop: &AtomicBool) -> u64 {
    let (mut faults, mut served) = (Vec::new(), 0);
    let mut page = Page::ZERO;
    while !stop.load(Ordering::Relaxed) {
        faults.clear();
        watch.read_faults(Duration::from_millis(20), &mut faults).unwrap();
        for fault in &faults {
            from.read_page(fault.page, &mut page);
            served += watch.place(fault.page, std::slice::from_ref(&page)).unwrap();
        }
    }
    served
}

#[test]
fn a_guest_without_memory_gets_it_page_by_page() {
    if !have_kvm() {
        return;
    }
    let spec = spec(2, vec![region(0, 3000, 20_000.0, 20_000.0)]);
    let source = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&source, 3000);
    pause(&source);
    let (state, old) = (source.save().unwrap(), source.memory().clone());

    let memory = empty(&spec);
    let Some(watch) = watch(&memory) else { return };
    let destination = Guest::restore(&spec, memory, &state, Instant::now()).unwrap();
    let stop = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&watch, &old, &stop));
        run_steps(&destination, 4000);
        // The rest is pushed while it runs: runs of pages, some of which are there already; zeros as zeros.
        let (mut pages, mut there, mut pushed) = (Vec::new(), 0, 0);
        for first in (0..spec.pages()).step_by(32) {
            pages.clear();
            for page in first..first + 32 {
                let mut content = Page::ZERO;
                old.read_page(PageIndex(page), &mut content);
                pages.push(content);
            }
            if old.is_zero(PageIndex(first)) && watch.place_zeros(PageIndex(first), 1).unwrap() == 1 {
                pushed += 1;
            }
            let fresh = watch.place(PageIndex(first), &pages).unwrap();
            pushed += fresh;
            there += 32 - fresh;
        }
        assert!(there > 100, "the guest had asked for pages: {there}");
        assert_eq!(watch.place_zeros(PageIndex(0), 3).unwrap(), 0, "pages that are there stay");
        run_steps(&destination, 1000);
        pause(&destination);
        stop.store(true, Ordering::Relaxed);
        let served = server.join().unwrap();
        assert_eq!(served + pushed, spec.pages(), "every page was placed once");
        served
    });
    assert!(served > 100, "{served}");
    assert_clean(&destination);
}

#[test]
fn memory_is_filled_with_the_newest_of_every_page() {
    let memory = Arc::new(GuestMemory::allocate(Bytes::from_pages(64), false).unwrap());
    let Some(filler) = watch(&memory) else { return };
    let pages = |mark: u64| -> Vec<Page> { (0..64).map(|i| Page([mark + i; WORDS])).collect() };
    // Some are there already, on their own and in a row; what is filled in replaces them, whereas what is placed does not.
    filler.fill(PageIndex(3), &pages(100)[3..4]).unwrap();
    filler.fill(PageIndex(10), &pages(100)[10..30]).unwrap();
    filler.fill(PageIndex(0), &pages(1000)[..40]).unwrap();
    assert_eq!(filler.place(PageIndex(30), &pages(2000)[30..]).unwrap(), 24);
    for (index, mark) in (0..40).map(|i| (i, 1000)).chain((40..64).map(|i| (i, 2000))) {
        let mut found = Page::ZERO;
        memory.read_page(PageIndex(index), &mut found);
        assert_eq!(found, pages(mark)[index as usize], "page {index}");
    }
    assert!(filler.fill(PageIndex(60), &pages(0)[..5]).is_err(), "beyond memory");
}

#[test]
fn a_guest_that_waits_for_a_page_can_be_stopped() {
    if !have_kvm() {
        return;
    }
    let spec = spec(1, vec![region(0, 3000, 20_000.0, 0.0)]);
    let source = Guest::new(&spec, filled(&spec)).unwrap();
    pause(&source);
    let memory = empty(&spec);
    let Some(watch) = watch(&memory) else { return };
    let destination = Guest::restore(&spec, memory, &source.save().unwrap(), Instant::now()).unwrap();
    destination.resume();
    let mut faults = Vec::new();
    while faults.is_empty() {
        watch.read_faults(LIMIT, &mut faults).unwrap();
    }
    // Nobody answers.
    pause(&destination);
    assert_eq!(destination.counters(), [0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&watch, source.memory(), &stop));
        run_steps(&destination, 1000);
        pause(&destination);
        assert_clean(&destination);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn pages_beyond_memory_are_refused() {
    let memory = Arc::new(GuestMemory::allocate(Bytes::from_pages(64), false).unwrap());
    let Some(watch) = watch(&memory) else { return };
    assert!(watch.place(PageIndex(63), &[Page::ZERO; 2]).is_err());
    assert!(watch.place_zeros(PageIndex(64), 1).is_err());
    assert!(watch.wake(PageIndex(u64::MAX), 2).is_err());
    assert_eq!(watch.place(PageIndex(62), &[Page::ZERO; 2]).unwrap(), 2);
    let mut faults = Vec::new();
    assert_eq!(watch.read_faults(Duration::from_millis(1), &mut faults).unwrap(), 0);
}
