//! What a run allocates, counted: nothing per event once it is under way, and little per guest.
//!
//! One test, as the counters are those of the whole process.

mod common;

use common::{endless, endless_rule, idle_fleet, run_for, strategy};
use livemig_core::units::Span;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with counters.
struct Counting;

fn grown(bytes: usize) {
    CALLS.fetch_add(1, Relaxed);
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call goes on to the system's allocator as it is; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `run` allocates, and by how many bytes more than now it has at its peak.
fn allocated<T>(run: impl FnOnce() -> T) -> (T, usize, usize) {
    let (calls, live) = (CALLS.load(Relaxed), LIVE.load(Relaxed));
    PEAK.store(live, Relaxed);
    let result = run();
    (result, CALLS.load(Relaxed) - calls, PEAK.load(Relaxed) - live)
}

#[test]
fn an_event_allocates_nothing_and_a_guest_takes_little() {
    let world = endless(10);
    let rule = endless_rule();
    let [short, long] = [10, 40].map(|seconds| {
        let (result, calls, _) = allocated(|| run_for(&world, &rule, Span::from_secs(seconds)));
        (result.events as usize, calls)
    });
    let (events, calls) = (long.0 - short.0, long.1.saturating_sub(short.1));
    println!("{events} events more make {calls} allocations more");
    assert!(events > 20_000, "{events} events");
    // The lists of rounds, which are results, double now and then.
    assert!(calls < 100, "{calls} allocations in {events} events");

    // Guests that stay where they are, beside one that moves.
    let pre_copy = strategy("pre-copy", |_| ());
    let [few, many] = [1_000, 11_000].map(|guests| {
        let world = idle_fleet(guests);
        allocated(|| run_for(&world, &pre_copy, Span::from_secs(3600))).2
    });
    let bytes = (many - few) / 10_000;
    println!("{bytes} bytes per guest");
    assert!(bytes < 400, "{bytes} bytes per guest");
}
