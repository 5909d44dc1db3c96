//! Migrations of real guests over intermediaries: scattered, staged ahead, and with hosts that are full or fail.

#[path = "migrations/damage.rs"]
mod damage;
mod migrations;

use damage::{Damage, Kind, through};
use livemig_core::machine::{Outcome, Phase};
use livemig_core::strategy::{GatherWhen, Scatter, Spec};
use livemig_core::units::{Bytes, Rate, Span};
use livemig_exec::run::{MigrationResult, Options};
use livemig_models::world::{HostId, Incident, Role, ScheduledEvent, Strategy, Workload, World};
use migrations::{busy, completes, have_kvm, made, options, with, world};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether guests can run here; other tests of this file wait, because what happens at a time of the scenario is to find things as far
/// as they are on a machine that is not busy with others.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    have_kvm().then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

fn hot() -> Workload {
    Workload::Uniform { working_set: Bytes::from_mib(16), writes: 1e9, reads: 0.0 }
}

/// Two hosts, a guest of 64 MiB, and so many intermediaries.
fn with_intermediaries(workload: Workload, count: u32) -> World {
    let mut world = world(workload);
    for number in 0..count {
        let mut host = world.hosts[1].clone();
        (host.name, host.role) = (format!("mid{number}"), Role::Intermediary);
        world.moves[0].via.push(HostId(world.hosts.len() as u32));
        world.hosts.push(host);
    }
    world
}

/// Every page that the destination does not ask for goes through intermediaries; fetched from the beginning or when the source is free.
fn through_all(when: GatherWhen, limit: Option<Rate>) -> Strategy {
    with("scatter-gather", |spec| {
        let push = spec.push.as_mut().expect("it pushes");
        let mut scatter = Scatter::new(false);
        (scatter.gather.when, scatter.gather.limit) = (when, limit);
        push.scatter = Some(scatter);
    })
}

/// Snapshots go to an intermediary; what is left is pushed.
fn staged(change: impl FnOnce(&mut Spec)) -> Strategy {
    with("quick-eviction", |spec| {
        spec.ahead.as_mut().expect("it takes snapshots").staging = true;
        (spec.live, spec.push) = (None, with("post-copy", |_| {}).spec.push);
        change(spec);
    })
}

/// What went over intermediaries.
fn fetched(migration: &MigrationResult) -> Bytes {
    migration.metrics.bytes.gathered
}

#[test]
fn every_push_may_go_through_intermediaries() {
    let Some(_alone) = alone() else { return };
    for workload in [Workload::Idle, busy(), hot()] {
        let world = with_intermediaries(workload, 2);
        for when in [GatherWhen::Concurrent, GatherWhen::AfterEviction] {
            let migration = completes(&world, &through_all(when, None), &options());
            let metrics = &migration.metrics;
            assert!(metrics.intermediary_peak > Bytes::from_mib(20) && fetched(&migration) > Bytes::from_mib(20), "{metrics:?}");
            assert!(metrics.intermediary_peaks.iter().all(|peak| peak.0 > 0), "both are used: {metrics:?}");
            if when == GatherWhen::AfterEviction {
                assert!(metrics.eviction_time < metrics.total_migration_time, "{metrics:?}");
            }
        }
        let scattered = |name: &str| with(name, |spec| spec.push.as_mut().expect("it pushes").scatter = Some(Scatter::new(false)));
        for strategy in [scattered("post-copy"), scattered("hybrid")] {
            completes(&world, &strategy, &options());
        }
    }
}

/// Pages travel compressed both ways, and are kept whole.
#[test]
fn compressed_pages_go_through_intermediaries() {
    let Some(_alone) = alone() else { return };
    let mut world = with_intermediaries(busy(), 2);
    world.vms[0].compressed = 0.7;
    let ahead = Options { lead: Span::from_millis(3000), ..options() };
    let compress = |mut strategy: Strategy| {
        strategy.spec.transfer.channels.compress = true;
        strategy
    };
    for strategy in [through_all(GatherWhen::AfterEviction, None), staged(|_| {})] {
        let migration = completes(&world, &compress(strategy), &ahead);
        let metrics = &migration.metrics;
        assert!(metrics.intermediary_peak > Bytes::from_mib(20), "{metrics:?}");
        assert!(fetched(&migration).0 < metrics.intermediary_peak.0 * 3 / 4, "{metrics:?}");
    }
}

#[test]
fn a_destination_that_takes_little_gets_what_it_takes_and_intermediaries_the_rest() {
    let Some(_alone) = alone() else { return };
    let mut world = with_intermediaries(busy(), 2);
    world.hosts[1].reception = Some(Rate(40e6));
    let strategy = with("scatter-gather", |_| {});
    let metrics = completes(&world, &strategy, &options()).metrics;
    let plain = completes(&world, &with("post-copy", |_| {}), &options()).metrics;
    let (eviction, total) = (metrics.eviction_time.unwrap(), metrics.total_migration_time.unwrap());
    assert!(metrics.bytes.gathered > Bytes::from_mib(10) && metrics.intermediary_peak > Bytes::from_mib(10), "{metrics:?}");
    assert!(eviction.as_secs_f64() < 0.5 * total.as_secs_f64(), "{metrics:?}");
    assert!(eviction.as_secs_f64() < 0.5 * plain.eviction_time.unwrap().as_secs_f64(), "{metrics:?} {plain:?}");
    // What the destination takes in is limited in either case.
    let taken = metrics.bytes.first + metrics.bytes.demand;
    assert!(taken.0 as f64 / total.as_secs_f64() < 44e6, "{metrics:?}");
}

#[test]
fn gathering_keeps_its_limit_and_the_source_may_go_meanwhile() {
    let Some(_alone) = alone() else { return };
    let world = with_intermediaries(busy(), 2);
    let slow = through_all(GatherWhen::AfterEviction, Some(Rate(40e6)));
    let whole = completes(&world, &slow, &options());
    let source = world.vms[0].host;
    // Killed while it is being freed, and when it has just been.
    for phase in [Phase::Release, Phase::Gather] {
        let options = Options { strikes: vec![(phase, source)], ..options() };
        let migration = completes(&world, &slow, &options);
        for metrics in [&whole.metrics, &migration.metrics] {
            let total = metrics.total_migration_time.unwrap();
            // One that was killed too early has not said that it was free.
            let eviction = metrics.eviction_time.unwrap_or(Span::from_millis(100));
            let rate = metrics.bytes.gathered.0 as f64 / (total.as_secs_f64() - eviction.as_secs_f64());
            assert!(rate > 15e6 && rate < 44e6, "{rate} B/s: {metrics:?}");
        }
        // Both halves are compared with what the core gives; only the source's last command may not have been heard of.
        assert!(migration.commands + 1 >= whole.commands, "{} and {}", migration.commands, whole.commands);
        assert!(migration.metrics.eviction_time.is_some() || phase == Phase::Release);
    }
}

#[test]
fn snapshots_are_staged_and_what_is_left_is_pushed() {
    let Some(_alone) = alone() else { return };
    for workload in [Workload::Idle, busy(), hot()] {
        let world = with_intermediaries(workload, 1);
        let options = Options { lead: Span::from_millis(2000), ..options() };
        for strategy in [staged(|_| {}), staged(|spec| spec.live = with("hybrid", |_| {}).spec.live)] {
            let migration = completes(&world, &strategy, &options);
            let metrics = &migration.metrics;
            assert!(metrics.bytes.snapshot > Bytes::from_mib(40) && fetched(&migration) > Bytes::from_mib(20), "{metrics:?}");
        }
    }
}

#[test]
fn several_guests_share_intermediaries_and_replicas_are_kept() {
    let Some(_alone) = alone() else { return };
    let mut world = with_intermediaries(busy(), 3);
    for number in 2..=3 {
        let mut vm = world.vms[0].clone();
        vm.name = format!("vm{number}");
        let mut m = world.moves[0].clone();
        m.vm = livemig_models::world::VmId(world.vms.len() as u32);
        world.vms.push(vm);
        world.moves.push(m);
    }
    let mut strategy = through_all(GatherWhen::Concurrent, None);
    strategy.spec.push.as_mut().unwrap().scatter.as_mut().unwrap().copies = 2;
    let (_, result) = made(&world, &strategy, &options());
    for migration in &result.migrations {
        let metrics = &migration.metrics;
        assert_eq!(metrics.outcome, Outcome::Completed, "{metrics:?}");
        assert!(migration.report.as_ref().is_some_and(livemig_exec::verify::Report::is_clean), "{metrics:?}");
        // Each page twice.
        assert!(metrics.intermediary_peak > Bytes::from_mib(70), "{metrics:?}");
    }
}

#[test]
fn intermediaries_without_room_are_gone_round() {
    let Some(_alone) = alone() else { return };
    let mut world = with_intermediaries(busy(), 2);
    let strategy = through_all(GatherWhen::AfterEviction, None);
    // One is full after 10 MiB, and one before anything.
    world.hosts[2].memory = Some(Bytes::from_mib(10));
    let metrics = completes(&world, &strategy, &options()).metrics;
    assert!(
        metrics.intermediary_peaks[0] <= Bytes::from_mib(10) && metrics.intermediary_peaks[1] > Bytes::from_mib(30),
        "{metrics:?}"
    );
    world.hosts[3].memory = Some(Bytes::ZERO);
    let metrics = completes(&world, &strategy, &options()).metrics;
    assert!(metrics.intermediary_peak <= Bytes::from_mib(10) && metrics.intermediary_peak > Bytes::from_mib(9), "{metrics:?}");
    // Staged snapshots that find no room are dirty again.
    let options = Options { lead: Span::from_millis(1000), ..options() };
    completes(&world, &staged(|_| {}), &options);
}

#[test]
fn a_source_that_is_killed_while_it_is_freed_is_not_missed() {
    let Some(_alone) = alone() else { return };
    let world = world(busy());
    let options = Options { strikes: vec![(Phase::Release, world.vms[0].host)], ..options() };
    for name in ["pre-copy", "post-copy"] {
        completes(&world, &with(name, |_| {}), &options);
    }
}

#[test]
fn an_intermediary_that_is_cut_off_is_waited_for() {
    let Some(_alone) = alone() else { return };
    if let Err(why) = livemig_exec::doctor::network_namespaces() {
        println!("skipped: {why}");
        return;
    }
    // While the source leaves pages there, and while the destination fetches them; so long that connections do not live through it.
    for (after, limit) in [(300, None), (1500, Some(Rate(15e6)))] {
        let mut world = with_intermediaries(busy(), 2);
        for host in &mut world.hosts {
            host.nics = vec![livemig_models::world::Nic { rate: Rate(25e6), goodput: 1.0 }];
        }
        let at = world.moves[0].at + Span::from_millis(after);
        world.events.push(ScheduledEvent { at, what: Incident::Cut(HostId(2)) });
        world.events.push(ScheduledEvent { at: at + Span::from_millis(4000), what: Incident::Restore(HostId(2)) });
        let options = Options { net: livemig_exec::Net::Namespaces, ..options() };
        let metrics = completes(&world, &through_all(GatherWhen::AfterEviction, limit), &options).metrics;
        assert!(metrics.total_migration_time > Some(Span::from_millis(after + 4000)), "{metrics:?}");
    }
}

/// An intermediary fails so long after the request.
fn fail_at(world: &mut World, host: u32, after: Span) {
    let at = world.moves[0].at + after;
    world.events.push(ScheduledEvent { at, what: Incident::Fail(HostId(host)) });
}

#[test]
fn what_an_intermediary_takes_with_it_before_the_release_is_sent_again() {
    let Some(_alone) = alone() else { return };
    let healthy = with_intermediaries(busy(), 2);
    let mut failing = healthy.clone();
    fail_at(&mut failing, 2, Span::from_millis(500));
    for when in [GatherWhen::Concurrent, GatherWhen::AfterEviction] {
        let mut strategy = through_all(when, None);
        strategy.spec.transfer.limit = Some(Rate(40e6));
        // A push sends a page once, unless a copy of it was lost.
        assert_eq!(completes(&healthy, &strategy, &options()).metrics.bytes.resent, Bytes::ZERO);
        let again = completes(&failing, &strategy, &options()).metrics.bytes.resent;
        // What is fetched meanwhile need not be lost.
        assert!(again > Bytes::ZERO || when == GatherWhen::Concurrent, "{again}");
    }
    // And ahead of the request.
    let mut world = with_intermediaries(busy(), 2);
    world.events.push(ScheduledEvent { at: world.moves[0].at, what: Incident::Fail(HostId(2)) });
    let options = Options { lead: Span::from_millis(1000), ..options() };
    completes(&world, &staged(|_| {}), &options);
}

#[test]
fn what_an_intermediary_takes_with_it_after_the_release_is_declared_lost() {
    let Some(_alone) = alone() else { return };
    let slow = through_all(GatherWhen::AfterEviction, Some(Rate(10e6)));
    let mut world = with_intermediaries(busy(), 2);
    fail_at(&mut world, 3, Span::from_millis(1500));
    let (migration, result) = made(&world, &slow, &options());
    let told = format!("{:?} {:?}", migration.metrics, result.warnings);
    assert_eq!(migration.metrics.outcome, Outcome::Lost, "{told}");
    assert!(migration.lost_pages > 0 && migration.report.is_none(), "{told}");
    assert_eq!(migration.metrics.bytes_lost, Bytes::from_pages(migration.lost_pages), "{told}");
    assert!(result.ended < Span::from_millis(300 + 1500 + 3000), "{}", result.ended);
    // With replicas nothing is lost.
    let mut replicated = slow;
    let scatter = replicated.spec.push.as_mut().unwrap().scatter.as_mut().unwrap();
    (scatter.copies, scatter.gather.limit) = (2, Some(Rate(20e6)));
    let migration = completes(&world, &replicated, &options());
    assert_eq!(migration.lost_pages, 0);
}

#[test]
fn a_source_that_fails_before_its_release_takes_the_guest_with_it() {
    let Some(_alone) = alone() else { return };
    let mut world = with_intermediaries(busy(), 2);
    let mut strategy = through_all(GatherWhen::Concurrent, None);
    strategy.spec.transfer.limit = Some(Rate(10e6));
    let (from, at) = (world.vms[0].host, world.moves[0].at + Span::from_millis(1000));
    world.events.push(ScheduledEvent { at, what: Incident::Fail(from) });
    let (migration, result) = made(&world, &strategy, &options());
    assert_eq!(migration.metrics.outcome, Outcome::Lost, "{:?}", result.warnings);
    assert!(migration.lost_pages > 0 && migration.report.is_none(), "{migration:?}");
}

#[test]
fn a_destination_that_fails_while_it_gathers_takes_the_guest_with_it() {
    let Some(_alone) = alone() else { return };
    let world = with_intermediaries(busy(), 1);
    let slow = through_all(GatherWhen::AfterEviction, Some(Rate(10e6)));
    let options = Options { strikes: vec![(Phase::Gather, world.moves[0].to)], ..options() };
    let (migration, result) = made(&world, &slow, &options);
    assert_eq!(migration.metrics.outcome, Outcome::Lost, "{:?}", result.warnings);
    // Its socket tells at once that it is gone; nobody waits as long as for a link that may come back.
    assert!(result.ended < Span::from_secs(4), "{}", result.ended);
}

#[test]
fn damage_on_the_way_over_intermediaries_is_found_and_made_up_for() {
    let Some(_alone) = alone() else { return };
    // The first connection to the intermediary is the source's; the destination's come when it is told what is staged.
    let cases = [
        Damage { connection: 0, forth: true, at: 3_000_001, kind: Kind::Flip },
        Damage { connection: 0, forth: true, at: 9_000_000, kind: Kind::LeaveOut },
        Damage { connection: 0, forth: true, at: 15_000_000, kind: Kind::Swap },
        Damage { connection: 0, forth: false, at: 900, kind: Kind::Flip },
        Damage { connection: 1, forth: false, at: 9000, kind: Kind::Flip },
        Damage { connection: 2, forth: false, at: 9000, kind: Kind::Cut },
    ];
    for damage in cases {
        let (route, done) = through(damage);
        let options = Options { via_route: Some(route), ..options() };
        let world = with_intermediaries(busy(), 1);
        let (migration, result) = made(&world, &through_all(GatherWhen::AfterEviction, None), &options);
        let told = format!("{damage:?}: {:?}", result.warnings);
        assert!(done.load(std::sync::atomic::Ordering::SeqCst), "nothing was damaged: {told}");
        assert_eq!(migration.metrics.outcome, Outcome::Completed, "{told}");
        assert!(migration.report.is_some() && !result.warnings.is_empty(), "{told}");
    }
}
