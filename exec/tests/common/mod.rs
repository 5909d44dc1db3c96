//! What the tests of real guests share.

mod kvm;

pub(crate) use kvm::have_kvm;

use livemig_core::units::{Bytes, PageIndex};
use livemig_exec::content::{Content, Page};
use livemig_exec::guest::{Guest, GuestSpec, Phase, Region};
use livemig_exec::memory::GuestMemory;
use livemig_exec::replay::Replay;
use livemig_exec::verify::{Report, verify};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a vCPU may take to stop: only a hang takes this long.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn region(first: u64, pages: u64, writes: f64, reads: f64) -> Region {
    Region { first: PageIndex(first), pages, writes, reads, sweep: false }
}

/// A guest of 64 MiB, one in five pages zero, one in five as in other guests.
pub(crate) fn spec(vcpus: u32, regions: Vec<Region>) -> GuestSpec {
    let content = Content::new(11).with_zero_share(0.2).with_shared(0.2, 3);
    GuestSpec { memory: Bytes::from_mib(64), vcpus, seed: 42, content, phases: vec![Phase { until: None, regions }] }
}

/// Memory as the guest finds it.
pub(crate) fn filled(spec: &GuestSpec) -> Arc<GuestMemory> {
    let memory = GuestMemory::allocate(spec.memory, false).unwrap();
    spec.content.fill(&memory, 2);
    Arc::new(memory)
}

pub(crate) fn empty(spec: &GuestSpec) -> Arc<GuestMemory> {
    Arc::new(GuestMemory::allocate(spec.memory, false).unwrap())
}

/// Lets the guest run until every vCPU has made `steps` more.
pub(crate) fn run_steps(guest: &Guest, steps: u64) {
    let goal: Vec<u64> = guest.counters().iter().map(|c| c + steps).collect();
    guest.resume();
    let deadline = Instant::now() + LIMIT;
    while guest.counters().iter().zip(&goal).any(|(now, goal)| now < goal) {
        guest.check().unwrap();
        assert!(Instant::now() < deadline, "no {steps} steps: {:?} of {goal:?}", guest.counters());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn pause(guest: &Guest) {
    guest.pause(LIMIT).unwrap();
}

/// Compares a paused guest with a replay from the beginning.
pub(crate) fn verified(guest: &Guest) -> Report {
    let mut replay = Replay::new(guest.spec()).unwrap();
    replay.advance(&guest.progress().unwrap()).unwrap();
    verify(&replay, guest.memory(), 2)
}

pub(crate) fn assert_clean(guest: &Guest) {
    let report = verified(guest);
    assert!(report.is_clean(), "{report}");
    assert!(guest.boot_is_intact().unwrap());
}

pub(crate) fn copy_page(from: &GuestMemory, to: &GuestMemory, page: PageIndex) {
    let mut content = Page::ZERO;
    from.read_page(page, &mut content);
    to.write_page(page, &content);
}

pub(crate) fn copy_all(from: &GuestMemory, to: &GuestMemory) {
    (0..from.pages()).for_each(|page| copy_page(from, to, PageIndex(page)));
}
