//! Deduplication by content: guests that have pages in common leave over intermediaries, which keep each content once and hand every guest
//! its own.

mod migrations;

use livemig_core::ledger::whole;
use livemig_core::machine::{Outcome, Phase};
use livemig_core::strategy::{GatherWhen, Scatter};
use livemig_core::units::{Bytes, Rate, Span};
use livemig_exec::run::{Options, RunResult};
use livemig_models::world::{Content, HostId, Incident, Role, ScheduledEvent, Strategy, VmId, Workload, World};
use migrations::{busy, completes, have_kvm, made, options, with, world};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether guests can run here; tests of this file run one after the other, because what happens at a time of the scenario is to find
/// things as far as they are on a machine that is not busy with others.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    have_kvm().then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

/// Of the pages that are neither zero nor written.
const SHARED: f64 = 0.6;
const ZERO: f64 = 0.2;
const MEMORY: Bytes = Bytes::from_mib(64);
/// Gathering so slowly that a guest is at the intermediaries still when another comes some seconds later than it.
const SLOWLY: Option<Rate> = Some(Rate(15e6));

/// Writes some of its memory, and reads all of it.
fn lively() -> Workload {
    Workload::HotCold { hot: Bytes::from_mib(8), hot_writes: 20_000.0, hot_reads: 20_000.0, cold_writes: 0.0, cold_reads: 2000.0 }
}

/// So many guests of 64 MiB with as much in common, and so many intermediaries.
fn alike(workload: &Workload, guests: u32, intermediaries: u32) -> World {
    let mut world = world(workload.clone());
    (world.vms[0].zero_share, world.vms[0].content) = (ZERO, Some(Content { shared: SHARED, group: 0 }));
    for number in 0..intermediaries {
        let mut host = world.hosts[1].clone();
        (host.name, host.role) = (format!("mid{number}"), Role::Intermediary);
        world.moves[0].via.push(HostId(world.hosts.len() as u32));
        world.hosts.push(host);
    }
    for number in 1..guests {
        let (mut vm, mut m) = (world.vms[0].clone(), world.moves[0].clone());
        (vm.name, m.vm) = (format!("vm{}", number + 1), VmId(number));
        world.vms.push(vm);
        world.moves.push(m);
    }
    world
}

/// Every page that the destination does not ask for goes through intermediaries.
fn through_all(when: GatherWhen, limit: Option<Rate>, copies: u16) -> Strategy {
    with("scatter-gather", |spec| {
        let mut scatter = Scatter::new(false);
        (scatter.copies, scatter.gather.when, scatter.gather.limit) = (copies, when, limit);
        spec.push.as_mut().expect("it pushes").scatter = Some(scatter);
        (spec.transfer.dedup, spec.transfer.limit) = (true, Some(Rate(60e6)));
    })
}

/// Every migration completes, and every byte is right.
fn all_complete(world: &World, strategy: &Strategy, options: &Options) -> RunResult {
    let (_, result) = made(world, strategy, options);
    for migration in &result.migrations {
        let told = format!("{:?} {:?}", migration.metrics, result.warnings);
        assert_eq!(migration.metrics.outcome, Outcome::Completed, "{told}");
        assert!(migration.report.as_ref().is_some_and(livemig_exec::verify::Report::is_clean), "{told}");
    }
    result
}

/// Bytes of pages that went, that did not have to, and that intermediaries held at most, over all guests.
fn sums(result: &RunResult) -> (f64, f64, f64) {
    let sum = whole(result.migrations.iter().map(|m| &m.metrics));
    let went = sum.bytes.first + sum.bytes.resent + sum.bytes.demand;
    (went.0 as f64, sum.bytes_deduplicated.0 as f64, sum.intermediary_peak.0 as f64)
}

#[test]
fn what_guests_have_in_common_goes_and_is_kept_once() {
    let Some(_alone) = alone() else { return };
    let content = MEMORY.0 as f64 * (1.0 - ZERO);
    let (own, common) = (content * (1.0 - SHARED), content * SHARED);
    let near = |found: f64, wanted: f64, what: &str| {
        assert!((found - wanted).abs() < 0.1 * MEMORY.0 as f64, "{what}: {found}, expected {wanted}");
    };
    let world = alike(&Workload::Idle, 3, 2);
    for copies in [1, 2] {
        let result = all_complete(&world, &through_all(GatherWhen::AfterEviction, SLOWLY, copies), &options());
        let (went, deduplicated, kept) = sums(&result);
        let each = f64::from(copies);
        near(went, each * (3.0 * own + common), &format!("sent, {copies} copies"));
        near(deduplicated, each * 2.0 * common, &format!("not sent, {copies} copies"));
        near(kept, each * (3.0 * own + common), &format!("kept, {copies} copies"));
    }
    // Guests of groups of their own have nothing in common.
    let mut world = alike(&Workload::Idle, 2, 1);
    world.vms[1].content = Some(Content { shared: SHARED, group: 1 });
    let (went, deduplicated, _) = sums(&all_complete(&world, &through_all(GatherWhen::AfterEviction, None, 1), &options()));
    near(went, 2.0 * content, "of strangers all is sent");
    assert!(deduplicated < 1e5, "{deduplicated}");
}

#[test]
fn a_guest_that_is_done_leaves_others_what_they_refer_to() {
    let Some(_alone) = alone() else { return };
    let mut world = alike(&lively(), 2, 1);
    // The second refers to what the first has left, which is freed while the second is still being fetched.
    world.moves[1].at = world.moves[0].at + Span::from_millis(1200);
    let strategy = through_all(GatherWhen::AfterEviction, Some(Rate(25e6)), 1);
    let result = all_complete(&world, &strategy, &options());
    let of = |m: usize| &result.migrations[m].metrics;
    assert!(of(1).bytes_deduplicated > Bytes::from_mib(15), "{:?}", of(1));
    let end = |m: usize| world.moves[m].at + of(m).total_migration_time.unwrap();
    assert!(end(0) + Span::from_millis(300) < end(1), "{:?} {:?}", of(0), of(1));
}

#[test]
fn room_for_each_content_once_is_enough() {
    let Some(_alone) = alone() else { return };
    let mut world = alike(&Workload::Idle, 3, 1);
    // Without deduplication three times 51 MiB.
    world.hosts[2].memory = Some(Bytes::from_mib(100));
    let strategy = through_all(GatherWhen::AfterEviction, SLOWLY, 1);
    let result = all_complete(&world, &strategy, &options());
    let (_, _, kept) = sums(&result);
    assert!(kept > 85e6, "{kept}");
    assert!(result.migrations.iter().all(|m| m.metrics.bytes.gathered > Bytes::from_mib(40)), "nothing went straight: {result:?}");
    // With less than one guest has, some of its pages go straight. What the others find depends on how much of the first is gathered by
    // then, and what each is charged with at most on when the others come.
    let room = Bytes::from_mib(40);
    world.hosts[2].memory = Some(room);
    let result = all_complete(&world, &strategy, &options());
    assert!(result.migrations.iter().all(|m| m.metrics.intermediary_peak <= room), "{result:?}");
    let least = result.migrations.iter().map(|m| m.metrics.bytes.gathered).min();
    assert!(least < Some(room + Bytes::from_mib(4)), "all went through: {result:?}");
}

/// An intermediary fails so long after the request.
fn fail_at(world: &mut World, host: u32, after: Span) {
    let at = world.moves[0].at + after;
    world.events.push(ScheduledEvent { at, what: Incident::Fail(HostId(host)) });
}

#[test]
fn an_intermediary_that_fails_takes_contents_of_all_with_it() {
    let Some(_alone) = alone() else { return };
    // Before the release they are sent again.
    let mut world = alike(&lively(), 2, 2);
    fail_at(&mut world, 2, Span::from_millis(600));
    for when in [GatherWhen::Concurrent, GatherWhen::AfterEviction] {
        all_complete(&world, &through_all(when, None, 1), &options());
    }
    // After it there are replicas.
    let mut world = alike(&lively(), 2, 3);
    fail_at(&mut world, 3, Span::from_millis(3500));
    let replicated = through_all(GatherWhen::AfterEviction, Some(Rate(12e6)), 2);
    let result = all_complete(&world, &replicated, &options());
    assert!(result.warnings.iter().any(|w| w.contains("intermediary")), "it failed too late: {:?}", result.warnings);
    // Or they are lost, and each guest says so.
    let mut world = alike(&lively(), 2, 1);
    fail_at(&mut world, 2, Span::from_millis(3500));
    let (_, result) = made(&world, &through_all(GatherWhen::AfterEviction, Some(Rate(8e6)), 1), &options());
    for migration in &result.migrations {
        let told = format!("{:?} {:?}", migration.metrics, result.warnings);
        assert_eq!(migration.metrics.outcome, Outcome::Lost, "{told}");
        assert!(migration.lost_pages > 0 && migration.report.is_none(), "{told}");
    }
}

#[test]
fn a_source_that_is_free_is_not_missed() {
    let Some(_alone) = alone() else { return };
    let mut world = alike(&lively(), 2, 1);
    world.moves[1].at = world.moves[0].at + Span::from_millis(500);
    let strategy = through_all(GatherWhen::AfterEviction, Some(Rate(30e6)), 1);
    // Killed when the first guest has left it, and while the second is leaving.
    let options = Options { strikes: vec![(Phase::Gather, world.vms[0].host)], ..options() };
    let (first, result) = made(&world, &strategy, &options);
    assert!(first.metrics.outcome == Outcome::Completed && first.report.is_some(), "{:?}", result.warnings);
    let second = &result.migrations[1];
    assert!(second.metrics.outcome == Outcome::Lost && second.report.is_none(), "{second:?} {:?}", result.warnings);
}

#[test]
fn staged_snapshots_of_guests_that_write_are_asked_for_too() {
    let Some(_alone) = alone() else { return };
    let hot = Workload::Uniform { working_set: Bytes::from_mib(16), writes: 1e9, reads: 0.0 };
    let strategy = with("quick-eviction", |spec| {
        spec.ahead.as_mut().expect("it takes snapshots").staging = true;
        (spec.live, spec.push) = (None, with("post-copy", |_| {}).spec.push);
        (spec.transfer.dedup, spec.transfer.limit) = (true, Some(Rate(120e6)));
    });
    let options = Options { lead: Span::from_millis(2000), ..options() };
    for workload in [lively(), hot] {
        let world = alike(&workload, 2, 2);
        let result = all_complete(&world, &strategy, &options);
        assert!(sums(&result).1 > 3e6, "{result:?}");
        assert!(result.migrations.iter().all(|m| m.metrics.bytes.gathered > Bytes::from_mib(5)), "{result:?}");
    }
}

#[test]
fn a_guest_alone_loses_nothing_by_questions() {
    let Some(_alone) = alone() else { return };
    let world = alike(&busy(), 1, 2);
    let mut strategy = through_all(GatherWhen::Concurrent, None, 1);
    strategy.spec.transfer.limit = None;
    let metrics = completes(&world, &strategy, &options()).metrics;
    assert!(metrics.bytes_deduplicated < Bytes::from_mib(1), "{metrics:?}");
    // A question is 20 bytes for a page, and its share of a frame.
    let went = metrics.bytes.first + metrics.bytes.resent + metrics.bytes.demand;
    assert!(went < Bytes::from_mib(55), "{metrics:?}");
    // What also goes straight is not asked for.
    completes(&world, &with("scatter-gather", |spec| spec.transfer.dedup = true), &options());
}
