//! Scatter-gather: eviction, totals, bytes and failures against what can be computed by hand.

mod common;

use common::{host, ideal, strategy, vm};
use livemig_core::ledger::Metrics;
use livemig_core::machine::Outcome;
use livemig_core::strategy::{GatherWhen, Scatter};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_models::world::{Fidelity, Host, HostId, Incident, Move, Role, ScheduledEvent, Strategy, VmId, Workload, World};
use livemig_sim::Settings;

/// 4.096 GB over lines of 100 MB/s.
const PAGES: u64 = 1_000_000;
const MEMORY: f64 = PAGES as f64 * 4096.0;
const LINE: f64 = 100e6;
/// What the destination takes.
const RECEPTION: f64 = 20e6;

fn intermediary(reception: Option<f64>, memory: Option<Bytes>) -> Host {
    Host { role: Role::Intermediary, reception: reception.map(Rate), memory, ..host("mid", LINE) }
}

/// One idle guest, and so many intermediaries.
fn world(intermediaries: Vec<Host>) -> World {
    let via = (0..intermediaries.len() as u32).map(|i| HostId(2 + i)).collect();
    let destination = Host { reception: Some(Rate(RECEPTION)), ..host("dst", LINE) };
    World {
        hosts: [host("src", LINE), destination].into_iter().chain(intermediaries).collect(),
        racks: Vec::new(),
        vms: vec![vm(0, Bytes::from_pages(PAGES), Workload::Idle)],
        flows: Vec::new(),
        moves: vec![Move { vm: VmId(0), to: HostId(1), at: Time::ZERO, via }],
        drain: None,
        events: Vec::new(),
        calibration: ideal(),
    }
}

fn scatter(direct: bool, change: impl FnOnce(&mut Scatter)) -> Strategy {
    let mut scatter = Scatter::new(direct);
    change(&mut scatter);
    strategy("scatter-gather", |s| s.push.as_mut().unwrap().scatter = Some(scatter))
}

fn run(world: &World, strategy: &Strategy, fidelity: Fidelity) -> Metrics {
    let horizon = Span::from_secs(86_400);
    let settings = Settings { horizon, seed: 1, timeline: false, sampled: false, fidelity, rate_tolerance: 0.0 };
    livemig_sim::run(world, strategy, settings).migrations.remove(0).metrics
}

fn seconds(span: Option<Span>) -> f64 {
    span.expect("reached").as_secs_f64()
}

#[track_caller]
fn near(ours: f64, expected: f64, what: &str) {
    assert!((ours - expected).abs() <= 2e-3 * expected.abs().max(1e-9), "{what}: {ours}, not {expected}");
}

const BOTH: [Fidelity; 2] = [Fidelity::Class, Fidelity::Page];

#[test]
fn the_source_is_free_as_soon_as_all_ways_together_have_taken_everything() {
    for fidelity in BOTH {
        for n in 0..=4_u32 {
            let world = world((0..n).map(|_| intermediary(Some(30e6), None)).collect());
            let m = run(&world, &scatter(true, |_| {}), fidelity);
            let eviction = MEMORY / LINE.min(RECEPTION + 30e6 * f64::from(n));
            near(seconds(m.eviction_time), eviction, "eviction");
            // The destination takes in what it can from beginning to end: straight, then gathered.
            near(seconds(m.total_migration_time), MEMORY / RECEPTION, "total");
            let staged = MEMORY - RECEPTION.min(LINE) * eviction;
            near(m.bytes.gathered.0 as f64, if n == 0 { 0.0 } else { staged }, "gathered");
            assert_eq!(m.outcome, Outcome::Completed);
        }
    }
}

#[test]
fn through_intermediaries_alone_every_page_crosses_the_network_twice() {
    for fidelity in BOTH {
        let m = run(&world(vec![intermediary(None, None)]), &scatter(false, |_| {}), fidelity);
        near(seconds(m.eviction_time), MEMORY / LINE, "eviction");
        near(seconds(m.total_migration_time), MEMORY / RECEPTION, "total");
        near(m.bytes.total().0 as f64, 2.0 * MEMORY, "bytes");
    }
}

#[test]
fn gathering_after_the_eviction_takes_its_own_time_and_no_more_than_its_limit() {
    for fidelity in BOTH {
        let world = world(vec![intermediary(None, None)]);
        let later = scatter(false, |s| s.gather.when = GatherWhen::AfterEviction);
        near(seconds(run(&world, &later, fidelity).total_migration_time), MEMORY / LINE + MEMORY / RECEPTION, "total");
        let limited = scatter(false, |s| s.gather.limit = Some(Rate(10e6)));
        near(seconds(run(&world, &limited, fidelity).total_migration_time), MEMORY / 10e6, "total");
    }
}

#[test]
fn replicas_cost_the_source_its_bandwidth() {
    for fidelity in BOTH {
        let world = world(vec![intermediary(None, None), intermediary(None, None)]);
        let later = |copies| scatter(false, |s| (s.copies, s.gather.when) = (copies, GatherWhen::AfterEviction));
        let m = run(&world, &later(2), fidelity);
        near(seconds(m.eviction_time), 2.0 * MEMORY / LINE, "eviction");
        near(m.bytes.first.0 as f64, 2.0 * MEMORY, "sent");
        near(m.bytes.gathered.0 as f64, MEMORY, "gathered");
        near(m.intermediary_peak.0 as f64, 2.0 * MEMORY, "peak");
        let once = run(&world, &later(1), fidelity);
        near(once.bytes.first.0 as f64, MEMORY, "sent once");
        near(once.intermediary_peak.0 as f64, MEMORY, "peak of one copy");
    }
}

/// A source that fails in the push loses what the destination misses and nobody else has, which may be nothing.
#[test]
fn a_source_that_fails_in_the_push_loses_only_what_was_there() {
    let after_eviction = |direct| scatter(direct, |s| s.gather.when = GatherWhen::AfterEviction);
    let plain = strategy("post-copy", |_| {});
    let concurrent = scatter(false, |_| {});
    // How long the pages take to leave the source, and whether some are then still to be fetched.
    let all = [
        (&plain, MEMORY / RECEPTION, false),
        (&after_eviction(true), MEMORY / (RECEPTION + 30e6), true),
        (&after_eviction(false), MEMORY / 30e6, true),
        (&concurrent, MEMORY / 30e6, true),
    ];
    for fidelity in BOTH {
        for (strategy, leaving, staged) in all {
            let failing = |at: f64| {
                let mut world = world(vec![intermediary(Some(30e6), None)]);
                world.calibration.latency = Span::from_millis(50);
                // Reservation, state and start, before the push begins.
                let push = 0.1 + 0.1 + 0.1 + 0.1;
                let at = Time::ZERO + Span::from_secs_f64(push + at);
                world.events = vec![ScheduledEvent { at, what: Incident::Fail(HostId(0)) }];
                run(&world, strategy, fidelity)
            };
            let m = failing(leaving / 2.0);
            assert_eq!(m.outcome, Outcome::Lost);
            let lost = m.bytes_lost.0 as f64 / MEMORY;
            assert!((lost - 0.5).abs() < 0.01, "{lost} of memory is lost");

            let m = failing(leaving + 0.03);
            assert_eq!(
                (m.outcome, m.eviction_time, m.bytes_lost),
                (Outcome::Completed, None, Bytes::ZERO),
                "{fidelity:?} {staged}"
            );
            let total = seconds(m.total_migration_time);
            assert!(total > leaving && (total > MEMORY / RECEPTION - 1.0) && total < 2.0 * MEMORY / RECEPTION, "{total}");
        }
    }
}

/// A full intermediary takes what it can, and the rest goes another way.
#[test]
fn an_intermediary_without_room_is_left_out() {
    for fidelity in BOTH {
        let room = Bytes::from_pages(PAGES / 4);
        let m = run(&world(vec![intermediary(None, Some(room))]), &scatter(true, |_| {}), fidelity);
        assert_eq!(m.outcome, Outcome::Completed);
        near(m.intermediary_peak.0 as f64, room.0 as f64, "peak");
        near(m.bytes.gathered.0 as f64, room.0 as f64, "gathered");
        near(seconds(m.eviction_time), (MEMORY - room.0 as f64) / RECEPTION, "eviction");
    }
}

fn failing(at_s: f64, copies: u16) -> World {
    let count = usize::from(copies);
    let mut world = world((0..=count).map(|_| intermediary(None, None)).collect());
    world.events = vec![ScheduledEvent { at: Time::ZERO + Span::from_secs_f64(at_s), what: Incident::Fail(HostId(2)) }];
    world
}

/// While the source has everything, nothing is lost: it sends again what the intermediary had.
#[test]
fn an_intermediary_that_fails_before_the_release_costs_time() {
    for fidelity in BOTH {
        let m = run(&failing(10.0, 1), &scatter(false, |s| s.gather.when = GatherWhen::AfterEviction), fidelity);
        assert_eq!(m.outcome, Outcome::Completed);
        // In ten seconds the one that fails has got half of what was sent.
        near(seconds(m.eviction_time), (MEMORY + 5.0 * LINE) / LINE, "eviction");
    }
}

#[test]
fn an_intermediary_that_fails_after_the_release_takes_the_guest_with_it_unless_there_are_replicas() {
    for fidelity in BOTH {
        let alone = run(&failing(60.0, 1), &scatter(false, |_| {}), fidelity);
        assert_eq!(alone.outcome, Outcome::Lost);
        assert!(alone.eviction_time.is_some());
        let twice = run(&failing(100.0, 2), &scatter(false, |s| s.copies = 2), fidelity);
        assert_eq!(twice.outcome, Outcome::Completed);
    }
}

/// More intermediaries never make an eviction slower.
#[test]
fn more_intermediaries_are_never_slower() {
    let evictions: Vec<f64> = (0..6)
        .map(|n| {
            let world = world((0..n).map(|_| intermediary(Some(17e6), None)).collect());
            seconds(run(&world, &scatter(true, |_| {}), Fidelity::Class).eviction_time)
        })
        .collect();
    assert!(evictions.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-9)), "{evictions:?}");
}
