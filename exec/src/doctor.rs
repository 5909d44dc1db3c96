//! What this machine can do for real mode, and what mends what it cannot.

use crate::content::{Content, Page};
use crate::error::ExecError;
use crate::guest::{Guest, GuestSpec, Phase, Region, kvm_available};
use crate::memory::{GuestMemory, Userfault};
use livemig_core::units::{Bytes, PageIndex};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Memory that the floors are measured over.
const MEMORY: Bytes = Bytes(64 << 20);
/// How long vCPUs may take to stop.
const STOP: Duration = Duration::from_secs(2);
/// Missing pages that are served for the mean.
const FAULTS: u64 = 2000;

/// Something that real mode needs or uses.
#[derive(Debug)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Without it there is no real mode at all.
    pub needed: bool,
    /// What is missing; `None` when it is there.
    pub missing: Option<String>,
    /// The command that mends it.
    pub mend: &'static str,
}

/// What a part of a migration costs at least on this machine.
#[derive(Debug)]
pub struct Floor {
    /// What was measured.
    pub name: &'static str,
    /// The unit of `value`.
    pub unit: &'static str,
    /// The figure, or why there is none.
    pub value: Result<f64, ExecError>,
}

/// Looks at everything that real mode needs or uses.
#[must_use]
pub fn checks() -> Vec<Check> {
    let check = |name, purpose, needed, result: Result<(), ExecError>, mend| Check {
        name,
        purpose,
        needed,
        missing: result.err().map(|e| e.to_string()),
        mend,
    };
    vec![
        check(
            "/dev/kvm",
            "guests",
            true,
            kvm_available(),
            "sudo modprobe kvm_intel || sudo modprobe kvm_amd; sudo usermod -aG kvm $USER",
        ),
        check("guest", "a guest makes steps, stops and can be saved", true, runs(), "see what the kernel says: sudo dmesg | tail"),
        check(
            "userfaultfd",
            "running a guest before its memory is there",
            false,
            missing_pages().map(drop),
            "sudo sysctl -w vm.unprivileged_userfaultfd=1",
        ),
        check(
            "network namespaces and tc",
            "`exec --net namespaces`: NICs as in the scenario",
            false,
            network_namespaces(),
            "sudo apt install iproute2; run as root",
        ),
        check(
            "manual dirty log",
            "counting dirty pages without clearing",
            false,
            manual_log(),
            "a kernel from 5.1 on; without it counting clears the log, which costs a fault per page more",
        ),
    ]
}

/// Whether hosts can be in network namespaces: makes a network and drops it.
///
/// # Errors
/// What is missing.
pub fn network_namespaces() -> Result<(), ExecError> {
    crate::net::try_out()
}

/// Measures the floors, in a few seconds.
#[must_use]
pub fn floors() -> Vec<Floor> {
    let floor = |name, unit, value| Floor { name, unit, value };
    let mut floors = vec![
        floor("memory copy, one thread", "GB/s", memory_copy()),
        floor("socket copy, one stream", "GB/s", socket_copy(1)),
        floor("socket copy, two streams together", "GB/s", socket_copy(2)),
        floor("missing page served in process", "us", missing_pages()),
    ];
    match log_costs() {
        Ok((unlogged, logged, collect)) => floors.extend([
            floor("write of a page without dirty log", "ns", Ok(unlogged)),
            floor("first write of a page under the dirty log", "us", Ok(logged)),
            floor("first collection of the dirty log, per GiB", "ms", Ok(collect)),
        ]),
        Err(error) => floors.push(floor("first write of a page under the dirty log", "us", Err(error))),
    }
    floors
}

/// A guest that sweeps over all of its memory, writing as fast as it can.
fn guest() -> Result<Guest, ExecError> {
    let pages = MEMORY.0 / livemig_core::units::PAGE_SIZE;
    let spec = GuestSpec {
        memory: MEMORY,
        vcpus: 1,
        seed: 1,
        content: Content::new(1),
        phases: vec![Phase {
            until: None,
            regions: vec![Region { first: PageIndex(0), pages, writes: 1e9, reads: 0.0, sweep: true }],
        }],
    };
    let memory = Arc::new(GuestMemory::allocate(MEMORY, false)?);
    spec.content.fill(&memory, 1);
    Guest::new(&spec, memory)
}

/// Steps in `length`, and how long it was.
fn steps(guest: &Guest, length: Duration) -> Result<(f64, f64), ExecError> {
    let (before, start) = (guest.counters()[0], Instant::now());
    guest.resume();
    thread::sleep(length);
    let (made, took) = (guest.counters()[0] - before, start.elapsed().as_secs_f64());
    guest.pause(STOP)?;
    Ok((made as f64, took))
}

fn runs() -> Result<(), ExecError> {
    let guest = guest()?;
    let (made, _) = steps(&guest, Duration::from_millis(50))?;
    guest.save()?;
    if made > 0.0 { Ok(()) } else { Err(ExecError::Vcpu { vcpu: 0, reason: "it has made no step".to_owned() }) }
}

fn manual_log() -> Result<(), ExecError> {
    let guest = guest()?;
    if guest.track_dirty()?.clears_manually() {
        Ok(())
    } else {
        Err(ExecError::Kernel { call: "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", source: std::io::ErrorKind::Unsupported.into() })
    }
}

/// Write of a page without log in ns, first write under it in us, first collection of a GiB in ms.
fn log_costs() -> Result<(f64, f64, f64), ExecError> {
    let guest = guest()?;
    steps(&guest, Duration::from_millis(100))?;
    let (free, took) = steps(&guest, Duration::from_millis(200))?;
    let mut tracker = guest.track_dirty()?;
    // The first collection protects every page.
    let start = Instant::now();
    tracker.collect(None)?;
    let collect = start.elapsed().as_secs_f64() * Bytes::from_gib(1).0 as f64 / MEMORY.0 as f64;
    // Short enough that the sweep does not come round: every write is a first one.
    let (logged, took_logged) = steps(&guest, Duration::from_millis(10))?;
    Ok((1e9 * took / free.max(1.0), 1e6 * took_logged / logged.max(1.0), 1e3 * collect))
}

/// Copy between two warm buffers, in GB/s.
fn memory_copy() -> Result<f64, ExecError> {
    const ROUNDS: u32 = 8;
    let from = vec![1_u8; MEMORY.0 as usize];
    let mut to = vec![0_u8; from.len()];
    to.copy_from_slice(&from);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    }
    Ok(f64::from(ROUNDS) * MEMORY.0 as f64 / 1e9 / start.elapsed().as_secs_f64())
}

/// Copy over loopback TCP into warm memory, all streams together, in GB/s.
fn socket_copy(streams: usize) -> Result<f64, ExecError> {
    const CHUNK: usize = 1 << 20;
    let kernel = |call| move |source| ExecError::Kernel { call, source };
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(kernel("bind to loopback"))?;
    let address = listener.local_addr().map_err(kernel("getsockname"))?;
    let mut ends = Vec::new();
    for _ in 0..streams {
        let out = TcpStream::connect(address).map_err(kernel("connect over loopback"))?;
        let (input, _) = listener.accept().map_err(kernel("accept"))?;
        ends.push((out, input));
    }
    let each = 4 * MEMORY.0 / streams as u64;
    let start = Instant::now();
    let copied: std::io::Result<Vec<u64>> = thread::scope(|scope| {
        let readers: Vec<_> = ends
            .into_iter()
            .map(|(mut out, input)| {
                scope.spawn(move || {
                    let chunk = vec![1_u8; CHUNK];
                    // When this fails the reader sees the end too early, and says so.
                    for _ in 0..each / CHUNK as u64 {
                        if out.write_all(&chunk).is_err() {
                            break;
                        }
                    }
                });
                scope.spawn(move || {
                    let (mut input, mut buffer, mut sum) = (input, vec![0_u8; CHUNK], 0);
                    loop {
                        match input.read(&mut buffer)? {
                            0 => return Ok(sum),
                            n => sum += n as u64,
                        }
                    }
                })
            })
            .collect();
        readers.into_iter().map(|r| r.join().expect("a reader does not panic")).collect()
    });
    let took = start.elapsed().as_secs_f64();
    let copied: u64 = copied.map_err(kernel("read over loopback"))?.into_iter().sum();
    if copied != each * streams as u64 {
        return Err(ExecError::Kernel { call: "copy over loopback", source: std::io::ErrorKind::UnexpectedEof.into() });
    }
    Ok(copied as f64 / 1e9 / took)
}

/// A missing page of plain memory, touched by one thread and placed by another, in us.
fn missing_pages() -> Result<f64, ExecError> {
    let memory = Arc::new(GuestMemory::allocate(MEMORY, false)?);
    let watch = Userfault::watch(memory.clone())?;
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut page = Page::ZERO;
            (0..FAULTS).for_each(|index| memory.read_page(PageIndex(index), &mut page));
        });
        // Nobody waits for pages any more when this is dropped, which is before the reader is waited for.
        let watch = watch;
        serve(&watch)
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / FAULTS as f64)
}

fn serve(watch: &Userfault) -> Result<(), ExecError> {
    let (mut faults, mut served, deadline) = (Vec::new(), 0, Instant::now() + STOP);
    while served < FAULTS {
        faults.clear();
        watch.read_faults(Duration::from_millis(10), &mut faults)?;
        for fault in &faults {
            served += watch.place(fault.page, std::slice::from_ref(&Page::ZERO))?;
        }
        if Instant::now() > deadline {
            return Err(ExecError::Kernel { call: "serving missing pages", source: std::io::ErrorKind::TimedOut.into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_kvm_is_measured_everywhere() {
        for figure in [memory_copy(), socket_copy(1), socket_copy(2)] {
            let figure = figure.unwrap();
            assert!(figure > 0.01 && figure < 1000.0, "{figure} GB/s");
        }
    }

    #[test]
    fn with_kvm_nothing_needed_is_missing_and_every_floor_has_a_figure() {
        if let Err(why) = kvm_available() {
            let checks = checks();
            assert!(checks.iter().any(|c| c.needed && c.missing.is_some()));
            println!("skipped: {why}");
            return;
        }
        for check in checks() {
            assert!(!check.needed || check.missing.is_none(), "{check:?}");
        }
        let floors = floors();
        assert!(floors.len() >= 7);
        for floor in floors.iter().filter(|f| f.name != "missing page served in process") {
            assert!(floor.value.as_ref().is_ok_and(|v| *v > 0.0), "{floor:?}");
        }
    }
}
