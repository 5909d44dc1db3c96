//! Page fidelity by itself: what is known exactly, and that it repeats itself; and what both fidelities must keep.

mod common;

use common::{one_vm, strategy};
use livemig_core::ledger::Metrics;
use livemig_core::machine::Outcome;
use livemig_core::policy::stop::{FixedRounds, StopRule};
use livemig_core::strategy::Push;
use livemig_core::units::{Bytes, PAGE_SIZE, Span};
use livemig_core::vocabulary::Prepaging;
use livemig_models::world::{Strategy, Workload, World};
use livemig_sim::{Fidelity, Settings};

const RATE: f64 = 1e9;

fn run(world: &World, strategy: &Strategy, seed: u64) -> Metrics {
    run_at(Fidelity::Page, world, strategy, seed)
}

fn run_at(fidelity: Fidelity, world: &World, strategy: &Strategy, seed: u64) -> Metrics {
    let horizon = Span::from_secs(3600);
    let settings = Settings { horizon, seed, timeline: false, sampled: false, fidelity, rate_tolerance: 0.0 };
    livemig_sim::run(world, strategy, settings).migrations.remove(0).metrics
}

fn rounds(rounds: u32, skip_redirtied: bool) -> Strategy {
    strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::FixedRounds(FixedRounds { rounds });
        live.skip_redirtied = skip_redirtied;
    })
}

fn push(prepaging: Prepaging) -> Strategy {
    strategy("post-copy", |s| s.push = Some(Push { prepaging, scatter: None }))
}

fn sweep(mib: u64, writes: f64) -> Workload {
    Workload::Sequential { working_set: Bytes::from_mib(mib), writes, reads: 0.0 }
}

#[test]
fn an_idle_guest_takes_as_long_as_its_memory() {
    let world = one_vm(Bytes::from_mib(256), Workload::Idle, RATE);
    let memory = Bytes::from_mib(256).0 as f64;
    for preset in ["stop-and-copy", "pre-copy", "post-copy", "hybrid"] {
        let m = run(&world, &strategy(preset, |_| {}), 1);
        assert_eq!(m.outcome, Outcome::Completed);
        assert_eq!(m.bytes.total().0 as f64, memory, "{preset}");
        assert!((m.total_migration_time.unwrap().as_secs_f64() - memory / RATE).abs() < 1e-8, "{preset}");
        assert_eq!(m.remote_faults, 0);
    }
}

#[test]
fn a_sweep_dirties_a_page_per_write_until_it_has_been_round() {
    let (memory, writes) = (Bytes::from_mib(64), 50_000.0);
    let round = memory.0 as f64 / RATE;
    for (working_set, dirty) in [(64, (round * writes).floor()), (8, 2048.0)] {
        let m = run(&one_vm(memory, sweep(working_set, writes), RATE), &rounds(1, false), 1);
        assert_eq!(m.bytes.total().0, memory.0 + dirty as u64 * PAGE_SIZE, "{working_set} MiB");
    }
}

#[test]
fn distinct_pages_of_random_writes_are_as_many_as_expected() {
    let (memory, writes) = (Bytes::from_mib(256), 200_000.0);
    let uniform = Workload::Uniform { working_set: memory, writes, reads: 0.0 };
    let pages = memory.pages() as f64;
    let expected = -pages * libm::expm1(-writes * (memory.0 as f64 / RATE) / pages);
    for seed in 0..4 {
        let m = run(&one_vm(memory, uniform.clone(), RATE), &rounds(1, false), seed);
        let dirty = (m.bytes.total().0 - memory.0) as f64 / PAGE_SIZE as f64;
        // Five standard deviations of the binomial distribution.
        let five = 5.0 * (expected * (1.0 - expected / pages)).sqrt();
        assert!((dirty - expected).abs() < five, "{dirty} {expected}");
    }
}

#[test]
fn zipf_dirties_as_many_distinct_pages_as_its_law_says() {
    let (memory, writes, exponent) = (Bytes::from_mib(128), 300_000.0, 1.2);
    let zipf = Workload::Zipf { working_set: memory, exponent, writes, reads: 0.0 };
    let pages = memory.pages();
    let total: f64 = (1..=pages).map(|k| (k as f64).powf(-exponent)).sum();
    let accesses = writes * memory.0 as f64 / RATE;
    let expected: f64 = (1..=pages).map(|k| -libm::expm1(-accesses * (k as f64).powf(-exponent) / total)).sum();
    for seed in 0..4 {
        let m = run(&one_vm(memory, zipf.clone(), RATE), &rounds(1, false), seed);
        let dirty = (m.bytes.total().0 - memory.0) as f64 / PAGE_SIZE as f64;
        assert!((dirty - expected).abs() < 5.0 * expected.sqrt(), "{dirty} {expected}");
    }
}

#[test]
fn a_page_that_is_dirty_again_is_left_out_and_sent_later() {
    // The sweep starts where the sender starts and is twice as fast: of two pages one is left out, until it comes round.
    let memory = Bytes::from_mib(64);
    let writes = 2.0 * RATE / PAGE_SIZE as f64;
    let world = one_vm(memory, sweep(64, writes), RATE);
    let (kept, skipped) = (run(&world, &rounds(1, false), 1), run(&world, &rounds(1, true), 1));
    let sent = |m: &Metrics| m.bytes.total().0 as f64 / memory.0 as f64;
    assert_eq!(sent(&kept), 2.0);
    assert!((sent(&skipped) - 1.5).abs() < 0.01, "{}", sent(&skipped));
}

#[test]
fn every_page_goes_at_least_once_whatever_is_left_out_of_rounds() {
    // A guest that writes as fast as its first writes to clean pages let it: far below the speed that it would have without the log.
    let memory = Bytes::from_mib(64);
    let mut world = one_vm(memory, sweep(16, 1e8), RATE);
    world.calibration.tracking_fault = Span(2_000);
    for fidelity in [Fidelity::Class, Fidelity::Page] {
        for count in 1..8 {
            let m = run_at(fidelity, &world, &rounds(count, true), 1);
            let (sent, possible) = (m.bytes.total(), m.total_migration_time.unwrap().as_secs_f64() * RATE);
            assert!(sent >= memory, "{fidelity:?}, {count} rounds: {sent}");
            assert!(sent.0 as f64 <= possible + PAGE_SIZE as f64, "{fidelity:?}, {count} rounds: {sent} in {possible} bytes' time");
        }
    }
}

#[test]
fn a_guest_that_is_followed_by_the_push_never_waits_and_one_that_is_ahead_of_it_does() {
    let memory = Bytes::from_mib(64);
    let slow = run(&one_vm(memory, sweep(64, 0.5 * RATE / PAGE_SIZE as f64), RATE), &push(Prepaging::AddressOrder), 1);
    assert!(slow.remote_faults <= 1, "{}", slow.remote_faults);
    let fast = run(&one_vm(memory, sweep(64, 4.0 * RATE / PAGE_SIZE as f64), RATE), &push(Prepaging::AddressOrder), 1);
    assert!(fast.remote_faults > 1000, "{}", fast.remote_faults);
    assert_eq!(slow.bytes.total(), memory);
    assert_eq!(fast.bytes.total(), memory);
}

#[test]
fn the_same_seed_gives_the_same_and_another_seed_another_result() {
    let uniform = Workload::Uniform { working_set: Bytes::from_mib(48), writes: 60_000.0, reads: 100_000.0 };
    let world = one_vm(Bytes::from_mib(64), uniform, RATE);
    for preset in ["pre-copy", "post-copy", "hybrid"] {
        let s = strategy(preset, |_| {});
        let text = |seed| format!("{:?}", run(&world, &s, seed));
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }
}
