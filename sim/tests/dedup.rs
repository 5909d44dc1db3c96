//! Deduplication at intermediaries: what VMs with equal pages save, at both fidelities, against what can be counted by hand.

mod common;

use common::{host, ideal, strategy, vm};
use livemig_core::ledger::{Metrics, whole};
use livemig_core::machine::Outcome;
use livemig_core::strategy::{GatherWhen, Scatter};
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span, Time};
use livemig_models::world::{
    Content, Fidelity, Host, HostId, Incident, Move, Role, ScheduledEvent, Strategy, Vm, VmId, Workload, World,
};
use livemig_sim::Settings;

/// 409.6 MB over lines of 100 MB/s.
const PAGES: u64 = 100_000;
const MEMORY: f64 = PAGES as f64 * PAGE_SIZE as f64;
const LINE: f64 = 100e6;
const BOTH: [Fidelity; 2] = [Fidelity::Class, Fidelity::Page];

fn similar(shared: f64) -> Vm {
    Vm { content: Some(Content { shared, group: 0 }), ..vm(0, Bytes::from_pages(PAGES), Workload::Idle) }
}

/// These VMs leave their host over two intermediaries, each at its time in seconds.
fn world(vms: Vec<Vm>, at: &[f64]) -> World {
    let mid = || Host { role: Role::Intermediary, ..host("mid", LINE) };
    let moves = (0..).zip(at).map(|(i, &at)| {
        let at = Time::ZERO + Span::from_secs_f64(at);
        Move { vm: VmId(i), to: HostId(1), at, via: vec![HostId(2), HostId(3)] }
    });
    World {
        hosts: vec![host("src", LINE), host("dst", LINE), mid(), mid()],
        racks: Vec::new(),
        vms,
        flows: Vec::new(),
        moves: moves.collect(),
        drain: None,
        events: Vec::new(),
        calibration: ideal(),
    }
}

/// Everything goes to intermediaries, and is gathered when the source is free.
fn through(change: impl FnOnce(&mut Scatter), dedup: bool) -> Strategy {
    let mut scatter = Scatter::new(false);
    scatter.gather.when = GatherWhen::AfterEviction;
    change(&mut scatter);
    strategy("scatter-gather", |s| {
        s.push.as_mut().unwrap().scatter = Some(scatter);
        s.transfer.dedup = dedup;
    })
}

fn run(world: &World, strategy: &Strategy, fidelity: Fidelity) -> Vec<Metrics> {
    assert_eq!(strategy.spec.check(), Ok(()));
    let settings =
        Settings { horizon: Span::from_secs(86_400), seed: 1, timeline: false, sampled: false, fidelity, rate_tolerance: 0.0 };
    livemig_sim::run(world, strategy, settings).migrations.into_iter().map(|m| m.metrics).collect()
}

#[track_caller]
fn near(ours: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((ours - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {ours}, not {expected}");
}

/// Of what all have in common one copy goes, whoever's it is, and takes room once. A page that two VMs send at the same moment, because
/// nobody has it yet, goes twice.
#[test]
fn what_vms_have_in_common_goes_once() {
    for fidelity in BOTH {
        for shared in [0.0, 0.5, 1.0] {
            for copies in [1, 2] {
                let world = world(vec![similar(shared); 4], &[0.0; 4]);
                let all = run(&world, &through(|s| s.copies = copies, true), fidelity);
                let (sum, copies) = (whole(&all), f64::from(copies));
                let sent = MEMORY * (4.0 - 3.0 * shared) * copies;
                let what = format!("{fidelity:?}, {shared} shared, {copies} copies");
                near(sum.bytes.first.0 as f64, sent, 0.02, &format!("{what}: sent"));
                near(sum.bytes_deduplicated.0 as f64, 4.0 * MEMORY * copies - sent, 0.02, &format!("{what}: deduplicated"));
                near(sum.intermediary_peak.0 as f64, sent, 0.02, &format!("{what}: peak"));
                near(sum.eviction_time.unwrap().as_secs_f64(), sent / LINE, 0.02, &format!("{what}: eviction"));
                // All of it still crosses to the destination.
                near(sum.bytes.gathered.0 as f64, 4.0 * MEMORY, 1e-3, &format!("{what}: gathered"));
                assert_eq!(sum.outcome, Outcome::Completed);
            }
        }
    }
}

/// A VM that comes later finds what is still staged, and nothing of what has been gathered.
#[test]
fn a_content_is_there_until_the_last_has_gathered_it() {
    for fidelity in BOTH {
        let sending = MEMORY / LINE;
        let slow = through(|s| s.gather.limit = Some(Rate(LINE / 1000.0)), true);
        let fast = through(|_| {}, true);
        for (strategy, at, sent) in [(&slow, 1.2 * sending, 0.5), (&fast, 2.5 * sending, 1.0)] {
            let all = run(&world(vec![similar(0.5); 2], &[0.0, at]), strategy, fidelity);
            near(all[0].bytes.first.0 as f64, MEMORY, 1e-3, "the first one sends everything");
            near(all[1].bytes.first.0 as f64, sent * MEMORY, 0.01, "the second one sends what is not there");
            near(all[1].bytes_deduplicated.0 as f64, (1.0 - sent) * MEMORY, 0.01, "the rest is there");
        }
    }
}

/// With an intermediary everybody loses the pages that they referred to there, once the source is free, and until then nobody does.
#[test]
fn a_failed_intermediary_takes_every_reference_with_it() {
    for fidelity in BOTH {
        let slow = through(|s| s.gather.limit = Some(Rate(LINE / 1000.0)), true);
        let failing = |at: f64| {
            let mut world = world(vec![similar(1.0); 2], &[0.0; 2]);
            let at = Time::ZERO + Span::from_secs_f64(at);
            world.events = vec![ScheduledEvent { at, what: Incident::Fail(HostId(2)) }];
            run(&world, &slow, fidelity)
        };
        let sending = MEMORY / LINE;
        for m in failing(1.1 * sending) {
            assert_eq!(m.outcome, Outcome::Lost);
            near(m.bytes_lost.0 as f64, 0.5 * MEMORY, 0.05, "lost");
        }
        let before = failing(0.5 * sending);
        assert!(before.iter().all(|m| m.bytes_lost.is_zero() && m.eviction_time.is_some()), "{before:?}");
        // What the other one had is still known.
        let sum = whole(&before);
        let sent = (sum.bytes.first + sum.bytes.resent).0 as f64;
        assert!(sent > 1.2 * MEMORY && sent < 1.5 * MEMORY, "what has gone with it goes again: {sent}");
        assert!(sum.bytes_deduplicated.0 as f64 > 0.4 * MEMORY, "{}", sum.bytes_deduplicated);
    }
}

/// Nothing is asked where nothing is stored, written pages are nobody else's, and questions have their price.
#[test]
fn what_cannot_be_there_is_not_found_and_costs_its_question() {
    for fidelity in BOTH {
        let straight = strategy("post-copy", |_| {});
        let all = run(&world(vec![similar(1.0); 2], &[0.0; 2]), &straight, fidelity);
        assert!(all.iter().all(|m| m.bytes_deduplicated.is_zero() && m.bytes.first.0 as f64 == MEMORY));

        let writer = |groups: [u32; 2]| {
            let workload = Workload::Uniform { working_set: Bytes::from_pages(PAGES / 2), writes: 100.0, reads: 0.0 };
            groups.map(|group| Vm { workload: workload.clone(), content: Some(Content { shared: 1.0, group }), ..similar(1.0) })
        };
        let same = whole(&run(&world(writer([0, 0]).to_vec(), &[0.0; 2]), &through(|_| {}, true), fidelity));
        near(same.bytes_deduplicated.0 as f64, 0.5 * MEMORY, 0.02, "of each the unwritten half");
        let other = whole(&run(&world(writer([0, 1]).to_vec(), &[0.0; 2]), &through(|_| {}, true), fidelity));
        assert!(other.bytes_deduplicated.is_zero(), "VMs of other groups have nothing in common");

        let mut world = world(vec![similar(0.0)], &[0.0]);
        world.calibration.probe_message = Bytes(41);
        let asked = &run(&world, &through(|_| {}, true), fidelity)[0];
        near(asked.bytes.first.0 as f64, MEMORY * (1.0 + 41.0 / 4096.0), 1e-3, "each page with its question");
        let not = &run(&world, &through(|_| {}, false), fidelity)[0];
        near(not.bytes.first.0 as f64, MEMORY, 1e-6, "each page");
        world.calibration.hash_per_page = Span::from_secs_f64(PAGE_SIZE as f64 / (0.5 * LINE));
        let hashed = &run(&world, &through(|_| {}, true), fidelity)[0];
        near(hashed.eviction_time.unwrap().as_secs_f64(), MEMORY / (0.5 * LINE), 0.01, "as fast as pages are hashed");
    }
}

/// An intermediary with room for what is different takes everything.
#[test]
fn room_is_taken_once() {
    for fidelity in BOTH {
        let run_with = |room: f64, dedup: bool| {
            let mut world = world(vec![similar(0.5); 4], &[0.0; 4]);
            world.hosts[2].memory = Some(Bytes(room as u64));
            world.moves.iter_mut().for_each(|m| m.via = vec![HostId(2)]);
            whole(&run(&world, &through(|_| {}, dedup), fidelity))
        };
        let fits = run_with(2.6 * MEMORY, true);
        near(fits.bytes.gathered.0 as f64, 4.0 * MEMORY, 1e-3, "everything is staged");
        let full = run_with(2.6 * MEMORY, false);
        assert!((full.bytes.gathered.0 as f64) < 2.7 * MEMORY, "{}", full.bytes.gathered);
    }
}
