//! Real guests: they do what the replay says, stop anywhere, and go on elsewhere.

mod common;

use common::*;
use livemig_core::units::{Bytes, PAGE_SIZE, Share, Span};
use livemig_exec::ExecError;
use livemig_exec::content::Content;
use livemig_exec::guest::{Guest, GuestSpec, GuestState, Phase};
use livemig_exec::memory::GuestMemory;
use livemig_exec::replay::Replay;
use livemig_exec::verify::verify;
use livemig_models::world::{self, HostId, Traffic, Vm, Workload};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn vm(workload: Workload) -> Vm {
    Vm {
        name: "vm".to_owned(),
        host: HostId(0),
        memory: Bytes::from_mib(64),
        vcpus: 2,
        workload,
        traffic: Traffic::default(),
        zero_share: 0.3,
        content: None,
        compressed: 1.0,
        disk: None,
    }
}

fn mib(n: u64) -> Bytes {
    Bytes::from_mib(n)
}

#[test]
fn every_workload_runs_and_verifies() {
    if !have_kvm() {
        return;
    }
    let hot_cold =
        Workload::HotCold { hot: mib(8), hot_writes: 20_000.0, hot_reads: 80_000.0, cold_writes: 50.0, cold_reads: 500.0 };
    let workloads = [
        (Workload::Idle, 0..=0),
        (Workload::Uniform { working_set: mib(32), writes: 50_000.0, reads: 0.0 }, 1000..=8192),
        (Workload::Sequential { working_set: mib(4), writes: 50_000.0, reads: 10_000.0 }, 1024..=1024),
        (hot_cold, 500..=4096),
        (Workload::Zipf { working_set: mib(64), exponent: 1.0, writes: 50_000.0, reads: 50_000.0 }, 200..=8192),
        // Read-mostly.
        (Workload::Uniform { working_set: mib(64), writes: 1000.0, reads: 99_000.0 }, 10..=2000),
        // Without a pause.
        (Workload::Uniform { working_set: mib(16), writes: 1e9, reads: 0.0 }, 3000..=4096),
    ];
    for (workload, touched) in workloads {
        let steps = if workload == Workload::Idle { 100 } else { 6000 };
        let spec = GuestSpec::from_vm(&vm(workload.clone()), 7).unwrap();
        let guest = Guest::new(&spec, filled(&spec)).unwrap();
        run_steps(&guest, steps);
        pause(&guest);
        let report = verified(&guest);
        assert!(report.is_clean(), "{workload:?}: {report}");
        assert!(touched.contains(&report.touched), "{workload:?}: {report}");
        assert_eq!(report.pages * PAGE_SIZE, mib(64).0);
    }
}

#[test]
fn a_guest_can_be_stopped_between_any_two_instructions() {
    if !have_kvm() {
        return;
    }
    let spec = spec(2, vec![region(0, 64, 1e9, 0.0)]);
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    let mut replay = Replay::new(&spec).unwrap();
    let mut inside = 0;
    for _ in 0..100 {
        run_steps(&guest, 1000);
        pause(&guest);
        let progress = guest.progress().unwrap();
        inside += progress.vcpus.iter().filter(|vcpu| vcpu.stores > 0).count();
        replay.advance(&progress).unwrap();
        let report = verify(&replay, guest.memory(), 1);
        assert!(report.is_clean(), "{progress:?}: {report}");
        // Nothing moves while it is stopped.
        assert_eq!(guest.progress().unwrap(), progress);
        if inside > 5 {
            return;
        }
    }
    panic!("never stopped among the stores of a step: {inside}");
}

#[test]
fn a_guest_migrated_by_hand_goes_on_exactly() {
    if !have_kvm() {
        return;
    }
    let spec = spec(2, vec![region(0, 8000, 40_000.0, 20_000.0), region(8000, 300, 1e5, 0.0)]);
    let source = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&source, 20_000);
    pause(&source);
    let before = source.progress().unwrap();
    let state = source.save().unwrap().to_bytes();
    let saved = Instant::now();

    let memory = empty(&spec);
    copy_all(source.memory(), &memory);
    let spec_there = GuestSpec::from_bytes(&spec.to_bytes()).unwrap();
    let state = GuestState::from_bytes(&state).unwrap();
    let destination = Guest::new(&spec_there, memory).unwrap();
    destination.load(&state, saved).unwrap();
    assert_eq!(destination.progress().unwrap(), before);
    assert_eq!(destination.counters(), source.counters());
    assert_clean(&destination);

    let away = saved.elapsed();
    run_steps(&destination, 20_000);
    pause(&destination);
    let after = destination.progress().unwrap();
    assert!(after.vcpus.iter().zip(&before.vcpus).all(|(a, b)| a.step >= b.step + 20_000));
    assert_clean(&destination);
    // Its own time stamps saw the switch: the gap is the time that it was away.
    let gap = Duration::from_nanos(destination.take_longest_gap().0);
    assert!(gap >= away && gap < away + LIMIT, "{gap:?} {away:?}");
    assert!(matches!(destination.load(&state, saved), Err(ExecError::State(_))), "it has run");

    // And back, and the source is where it was.
    assert_eq!(source.progress().unwrap(), before);
    assert_clean(&source);
    run_steps(&source, 1000);
    pause(&source);
    assert_clean(&source);
}

#[test]
fn a_state_is_refused_where_it_does_not_belong() {
    if !have_kvm() {
        return;
    }
    let one = spec(1, vec![region(0, 100, 1e5, 0.0)]);
    let guest = Guest::new(&one, filled(&one)).unwrap();
    run_steps(&guest, 100);
    assert!(matches!(guest.save(), Err(ExecError::NotPaused(_))));
    assert!(matches!(guest.progress(), Err(ExecError::NotPaused(_))));
    pause(&guest);
    let state = guest.save().unwrap();
    let other = GuestSpec { seed: 43, ..one.clone() };
    let refused = Guest::restore(&other, empty(&other), &state, Instant::now());
    assert!(matches!(refused, Err(ExecError::State(_))), "{refused:?}");
    let small = GuestSpec { memory: mib(32), ..one.clone() };
    assert!(matches!(Guest::new(&one, empty(&small)), Err(ExecError::Spec(_))));

    let bytes = state.to_bytes();
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(GuestState::from_bytes(&damaged).is_err(), "a flipped bit in byte {at}");
        assert!(GuestState::from_bytes(&bytes[..at]).is_err(), "cut at byte {at}");
    }
    assert!(GuestState::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn phases_follow_the_clock_and_the_host_and_survive_migration() {
    if !have_kvm() {
        return;
    }
    let phases = world::Workload::Phases(
        [(30, 0, 4), (60, 4, 8), (90, 8, 12)]
            .into_iter()
            .map(|(ms, _, to)| world::Phase {
                until: Span::from_millis(ms),
                workload: Workload::Uniform { working_set: mib(to), writes: 30_000.0, reads: 0.0 },
            })
            .collect::<Vec<_>>()
            .into(),
    );
    let mut spec = GuestSpec::from_vm(&vm(phases), 5).unwrap();
    // A load change of the scenario: a phase that only an order reaches.
    spec.phases.push(Phase { until: None, regions: vec![region(16_000, 300, 30_000.0, 0.0)] });
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    let phase_of = |guest: &Guest| {
        pause(guest);
        guest.progress().unwrap().vcpus.iter().map(|v| v.changes.last().unwrap().phase).min().unwrap()
    };
    let deadline = Instant::now() + LIMIT;
    while phase_of(&guest) < 2 {
        assert!(Instant::now() < deadline, "the phases do not change");
        run_steps(&guest, 50);
    }
    assert_clean(&guest);

    let memory = empty(&spec);
    copy_all(guest.memory(), &memory);
    let state = GuestState::from_bytes(&guest.save().unwrap().to_bytes()).unwrap();
    let guest = Guest::restore(&spec, memory, &state, Instant::now()).unwrap();
    guest.request_phase_once(3).unwrap();
    assert!(guest.request_phase(4).is_err() && guest.request_phase_once(4).is_err());
    while phase_of(&guest) < 3 {
        assert!(Instant::now() < deadline, "the phase asked for does not begin");
        run_steps(&guest, 50);
    }
    // Neither where it is nor where it was.
    for phase in [3, 2] {
        guest.request_phase_once(phase).unwrap();
        run_steps(&guest, 250);
    }
    pause(&guest);
    assert_clean(&guest);
    let progress = guest.progress().unwrap();
    assert!(progress.vcpus.iter().all(|v| v.changes.iter().map(|c| c.phase).eq(0..4)), "{progress:?}");
}

#[test]
fn memory_beyond_a_gibibyte_is_reached() {
    if !have_kvm() {
        return;
    }
    // Zeros that nobody writes cost the host nothing.
    let pages = (2 << 18) + 77;
    let spec = GuestSpec {
        memory: Bytes::from_pages(pages),
        content: Content::new(1).with_zero_share(1.0),
        ..spec(1, vec![region(pages - 100, 100, 50_000.0, 0.0), region(1 << 18, 10, 5000.0, 0.0)])
    };
    let guest = Guest::new(&spec, Arc::new(GuestMemory::allocate(spec.memory, true).unwrap())).unwrap();
    run_steps(&guest, 5000);
    pause(&guest);
    assert_clean(&guest);
    assert_eq!(verified(&guest).touched, 110);
}

#[test]
fn a_guest_keeps_its_pace() {
    if !have_kvm() {
        return;
    }
    let spec = spec(1, vec![region(0, 1000, 20_000.0, 0.0)]);
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&guest, 100);
    let (steps, start) = (guest.counters()[0], Instant::now());
    std::thread::sleep(Duration::from_millis(500));
    let rate = (guest.counters()[0] - steps) as f64 / start.elapsed().as_secs_f64();
    // Never above what is offered, but for the work of one tolerance; below when the machine is busy.
    assert!((2000.0..20_500.0).contains(&rate), "{rate}");
}

#[test]
fn a_throttle_holds_its_share_and_lets_go() {
    if !have_kvm() {
        return;
    }
    let spec = spec(2, vec![region(0, 1000, 20_000.0, 0.0)]);
    let mut guest = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&guest, 100);
    let rate = |guest: &Guest| {
        let (steps, start) = (guest.counters()[0], Instant::now());
        std::thread::sleep(Duration::from_millis(600));
        (guest.counters()[0] - steps) as f64 / start.elapsed().as_secs_f64()
    };
    let full = rate(&guest);
    guest.throttle(Share::new(0.2)).unwrap();
    let fifth = rate(&guest) / full;
    assert!((0.05..0.5).contains(&fifth), "{fifth} of {full}");
    // Held vCPUs pause, and a pause outlives the throttle's periods.
    pause(&guest);
    let counters = guest.counters();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(guest.counters(), counters);
    assert_clean(&guest);
    guest.throttle(Share::NONE).unwrap();
    guest.resume();
    std::thread::sleep(Duration::from_millis(120));
    let counters = guest.counters();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(guest.counters(), counters, "a share of nothing");
    guest.throttle(Share::FULL).unwrap();
    run_steps(&guest, 2000);
    pause(&guest);
    assert_clean(&guest);
}

#[test]
fn a_throttled_guest_is_not_paused_in_its_sleep() {
    if !have_kvm() {
        return;
    }
    let spec = spec(1, vec![region(0, 1000, 20_000.0, 0.0)]);
    let mut guest = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&guest, 100);
    guest.throttle(Share::new(0.1)).unwrap();
    // Nine tenths of the time the guest is held, and would be found where it has been for up to 45 ms.
    let ran_before = |_: &i32| {
        guest.resume();
        std::thread::sleep(Duration::from_millis(60));
        let (deadline, mut held) = (Instant::now() + LIMIT, guest.counters());
        loop {
            std::thread::sleep(Duration::from_millis(2));
            let now = guest.counters();
            if now == held {
                break;
            }
            assert!(Instant::now() < deadline, "it is never held");
            held = now;
        }
        pause(&guest);
        guest.counters() != held
    };
    let count = (0..20).filter(ran_before).count();
    assert!(count >= 8, "it ran before {count} of 20 pauses");
    assert_clean(&guest);
}

#[test]
fn a_guest_dirties_as_many_pages_as_a_measured_curve_says() {
    if !have_kvm() {
        return;
    }
    let curve = |t: f64| 8000.0 * (1.0 - (-t / 0.3).exp());
    let points: Vec<(f64, f64)> = (0..=200).map(|i| f64::from(i) * 0.01).map(|t| (t, curve(t) * 4096.0)).collect();
    let workload = Workload::Curve { curve: Arc::new(world::DirtyCurve { points }), reads: 0.0 };
    let spec = GuestSpec::from_vm(&vm(workload), 5).unwrap();
    let guest = Guest::new(&spec, filled(&spec)).unwrap();
    run_steps(&guest, 100);
    pause(&guest);
    let mut tracker = guest.track_dirty().unwrap();
    tracker.collect(None).unwrap();
    let vcpus = f64::from(spec.vcpus);
    let rate = guest.offered_rate() / vcpus;
    for t in [0.05, 0.2, 0.6] {
        let before = guest.counters();
        // On a machine that is busy vCPUs are late, one more than the other: what counts is what each had to do by then.
        run_steps(&guest, (t * rate) as u64);
        pause(&guest);
        let worked: Vec<f64> = guest.counters().iter().zip(&before).map(|(now, before)| (now - before) as f64 / rate).collect();
        let expected = worked.iter().map(|&t| curve(t)).sum::<f64>() / vcpus;
        let found = tracker.collect(None).unwrap().count() as f64;
        assert!((found / expected - 1.0).abs() < 0.04, "{found} pages after {worked:?} s of work, {expected} expected");
    }
    assert_clean(&guest);
}
