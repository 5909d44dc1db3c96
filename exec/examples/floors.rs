//! What the parts of a migration cost at least on this machine: the figures of docs/REAL_MODE.md.
//!
//! `cargo run --release -p livemig-exec --example floors`

use livemig_core::units::{Bytes, PageIndex};
use livemig_exec::ExecError;
use livemig_exec::content::{Content, Page};
use livemig_exec::guest::{Guest, GuestSpec, GuestState, Phase, Region};
use livemig_exec::memory::{GuestMemory, Userfault};
use livemig_exec::replay::Replay;
use livemig_exec::verify::verify;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
const GIB: u64 = 262_144;

fn main() -> Result<(), ExecError> {
    let region = |pages, writes| vec![Region { first: PageIndex(0), pages, writes, reads: 0.0, sweep: true }];
    let phases = [(16_384, 1e9), (GIB, 1e9), (GIB, 0.0)];
    let spec = GuestSpec {
        memory: Bytes::from_gib(1),
        vcpus: 1,
        seed: 1,
        content: Content::new(1),
        phases: phases.into_iter().map(|(pages, writes)| Phase { until: None, regions: region(pages, writes) }).collect(),
    };
    let memory = Arc::new(GuestMemory::allocate(spec.memory, false)?);
    let time = |what: &str, unit: &str, scale: f64, work: &mut dyn FnMut() -> Result<f64, ExecError>| {
        let start = Instant::now();
        let n = work()?;
        println!("{what:<60} {:>10.2} {unit}", scale * start.elapsed().as_secs_f64() / n);
        Ok::<_, ExecError>(())
    };
    time("fill 1 GiB of untouched memory, 1 thread", "s", 1.0, &mut || {
        spec.content.fill(&memory, 1);
        Ok(1.0)
    })?;
    time("fill it again", "s", 1.0, &mut || {
        spec.content.fill(&memory, 1);
        Ok(1.0)
    })?;

    let guest = Guest::new(&spec, memory.clone())?;
    let run = |phase: usize, length: Duration| {
        guest.request_phase(phase)?;
        guest.resume();
        std::thread::sleep(length);
        guest.pause(LIMIT)
    };
    let steps = |length: Duration| {
        let (before, start) = (guest.counters()[0], Instant::now());
        guest.resume();
        std::thread::sleep(length);
        let rate = (guest.counters()[0] - before) as f64 / start.elapsed().as_secs_f64();
        guest.pause(LIMIT).map(|()| rate)
    };
    run(1, Duration::from_secs(2))?;
    run(0, Duration::from_millis(20))?;
    let free = steps(Duration::from_secs(1))?;
    println!("{:<60} {:>10.2} ns", "write of a page, 64 MiB swept, no log", 1e9 / free);

    let mut tracker = guest.track_dirty()?;
    time("first collection of 1 GiB", "ms", 1e3, &mut || tracker.collect(None).map(|_| 1.0))?;
    run(1, Duration::from_millis(1))?;
    tracker.collect(None)?;
    let (before, start) = (guest.counters()[0], Instant::now());
    guest.resume();
    std::thread::sleep(Duration::from_millis(200));
    let writes = guest.counters()[0] - before;
    println!("{:<60} {:>10.2} us", "first write of a page under the log", start.elapsed().as_secs_f64() * 1e6 / writes as f64);
    guest.pause(LIMIT)?;
    time("read the log of 1 GiB without clearing", "ms", 1e3, &mut || tracker.peek().map(|_| 1.0))?;
    let mut collected = 0;
    time("collect it", "ms", 1e3, &mut || {
        collected = tracker.collect(None)?.count();
        Ok(1.0)
    })?;
    println!("{:<60} {collected:>10} pages", "  of which were dirty");
    drop(tracker);

    guest.request_phase(2)?;
    guest.resume();
    std::thread::sleep(Duration::from_millis(50));
    let _ = guest.take_longest_gap();
    std::thread::sleep(Duration::from_secs(1));
    println!("{:<60} {:>10.2} ms", "longest gap of an idle guest in 1 s", guest.take_longest_gap().as_secs_f64() * 1e3);
    time("pause", "us", 1e6, &mut || guest.pause(LIMIT).map(|()| 1.0))?;
    let mut state = Vec::new();
    time("save", "us", 1e6, &mut || {
        state = guest.save()?.to_bytes();
        Ok(1.0)
    })?;
    println!("{:<60} {:>10} B", "  state of one vCPU", state.len());

    let progress = guest.progress()?;
    let made = progress.vcpus[0].step as f64;
    let mut replay = Replay::new(&spec)?;
    time("replay, one vCPU, per step", "ns", 1e9, &mut || replay.advance(&progress).map(|()| made))?;
    for threads in [1, 2] {
        let what = format!("verify 1 GiB, {threads} threads");
        time(&what, "ms", 1e3, &mut || Ok(f64::from(u8::from(verify(&replay, &memory, threads).is_clean()))))?;
    }
    faults(&spec, &state, &memory, &replay)
}

/// A guest over empty memory, served from `from` on another thread.
fn faults(spec: &GuestSpec, state: &[u8], from: &GuestMemory, replay: &Replay) -> Result<(), ExecError> {
    let memory = Arc::new(GuestMemory::allocate(spec.memory, false)?);
    let watch = Userfault::watch(memory.clone())?;
    let start = Instant::now();
    let guest = Guest::new(spec, memory)?;
    println!("{:<60} {:>10.2} ms", "a new VM", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    guest.load(&GuestState::from_bytes(state)?, start)?;
    println!("{:<60} {:>10.2} us", "load that state into it", start.elapsed().as_secs_f64() * 1e6);
    guest.request_phase(1)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut faults, mut served, mut page) = (Vec::new(), 0, Page::ZERO);
            while !stop.load(Ordering::Relaxed) {
                faults.clear();
                watch.read_faults(Duration::from_millis(1), &mut faults)?;
                for fault in &faults {
                    from.read_page(fault.page, &mut page);
                    served += watch.place(fault.page, std::slice::from_ref(&page))?;
                }
            }
            Ok::<_, ExecError>(served)
        });
        let start = Instant::now();
        guest.resume();
        std::thread::sleep(Duration::from_secs(1));
        guest.pause(LIMIT)?;
        let length = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let served = server.join().expect("the server does not panic")?;
        println!("{:<60} {:>10.2} us", "missing page served in process", length.as_secs_f64() * 1e6 / served as f64);
        let (mut page, mut placed) = (Page::ZERO, 0);
        let start = Instant::now();
        for index in (0..GIB).map(PageIndex) {
            from.read_page(index, &mut page);
            placed += watch.place(index, std::slice::from_ref(&page))?;
        }
        println!("{:<60} {:>10.2} us", "page placed that nobody waits for", start.elapsed().as_secs_f64() * 1e6 / placed as f64);
        let mut replay = replay.clone();
        replay.advance(&guest.progress()?)?;
        println!("{}", verify(&replay, guest.memory(), 2));
        Ok(())
    })
}
