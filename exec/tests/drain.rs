//! Drains of real hosts: who goes when and where to, what fails, and what a host sends meanwhile.

#[expect(dead_code, reason = "worlds of one guest are not for drains")]
mod migrations;

use livemig_core::drain::{Fate, NoPlace};
use livemig_core::machine::{Outcome, Phase};
use livemig_core::units::{Bytes, Span};
use livemig_exec::run::{MigrationResult, Options, RunResult};
use livemig_models::world::{DrainResult, HostId, Strategy, VmId, World};
use migrations::{have_kvm, made, options, strategy, with};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

/// Whether guests can run here. One drain at a time: each has more guests than there are cores.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    have_kvm().then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Hosts by these names, with so much memory if that is limited, guests with these keys, and what is drained.
fn world(hosts: &[(&str, Option<u64>)], guests: &[&str], drain: &str) -> World {
    let host = |&(name, memory): &(&str, Option<u64>)| {
        let memory = memory.map_or(String::new(), |mib| format!("memory = '{mib} MiB'\n"));
        format!("[[host]]\nname = '{name}'\nnics = [{{ rate = '10 Gbit/s' }}]\n{memory}")
    };
    let guest = |(i, keys): (usize, &&str)| format!("[[vm]]\nname = 'vm{i}'\nmemory = '64 MiB'\nzero = 0.2\n{keys}\n{BUSY}\n");
    let text = format!(
        "schema = 1\nname = 'drain'\n{}{}[drain]\nat = '1 s'\n{drain}\nstrategies = ['pre-copy']\n",
        hosts.iter().map(host).collect::<String>(),
        guests.iter().enumerate().map(guest).collect::<String>(),
    );
    let loaded = livemig_models::scenario::parse(&text, Path::new("."), "drain.toml").unwrap_or_else(|e| panic!("{e:?}"));
    loaded.scenario.points[0].world.clone()
}

const BUSY: &str = "workload = { kind = 'uniform', working_set = '8 MiB', writes = '2000 pages/s', reads = '2000 pages/s' }";
const OLD: &str = "host = 'old'";

/// Every byte of every guest that a migration has moved or left is right.
fn drained(world: &World, strategy: &Strategy, options: &Options) -> (RunResult, DrainResult) {
    let (_, result) = made(world, strategy, options);
    for m in &result.migrations {
        let clean = m.report.as_ref().is_none_or(livemig_exec::verify::Report::is_clean);
        assert!(clean, "{:?} {:?}", m.report, result.warnings);
    }
    let drain = result.drain.clone().expect("it was a drain");
    (result, drain)
}

/// Who went where to, and how that ended.
fn courses(result: &RunResult) -> Vec<(u32, u32, Outcome)> {
    result.migrations.iter().map(|m| (m.vm.0, m.destination.0, m.metrics.outcome)).collect()
}

/// From its start to the moment at which its source was free, counted from the drain's request.
fn stay(m: &MigrationResult) -> (Span, Span) {
    (m.metrics.queued, m.metrics.queued + m.metrics.eviction_time.expect("it left"))
}

#[test]
fn a_host_is_emptied_within_its_limits() {
    let Some(_alone) = alone() else { return };
    let rate = 60e6;
    let drain = "host = 'old'\ndestinations = ['new1', 'new2']\nper_host = 2\nrate_per_host = '480 Mbit/s'";
    let world = world(&[("old", None), ("new1", Some(130)), ("new2", None)], &[OLD; 4], drain);
    for name in ["pre-copy", "post-copy"] {
        let (result, drain) = drained(&world, &strategy(name), &options());
        // The first destination has room for two.
        let places: Vec<_> = courses(&result);
        assert_eq!(places, [(0, 1), (1, 1), (2, 2), (3, 2)].map(|(vm, to)| (vm, to, Outcome::Completed)), "{name}: {drain:?}");
        assert!(result.migrations.iter().all(|m| m.report.is_some() && m.metrics.guest_gap.is_some()), "{name}: {result:?}");
        assert!(result.migrations.iter().all(|m| m.metrics.observed > Span::ZERO), "{name}: the guests' work is known");
        assert_eq!((drain.hosts.len(), drain.hosts[0].evicted, drain.hosts[0].left), (1, 4, 0), "{name}: {drain:?}");
        for m in &result.migrations {
            let (start, _) = stay(m);
            let others = result.migrations.iter().filter(|other| stay(other).0 <= start && start < stay(other).1);
            assert!(others.count() <= 2, "{name}: two at a time: {result:?}");
        }
        let bytes: Bytes = result.migrations.iter().map(|m| m.metrics.bytes.total()).sum();
        let took = drain.whole.drain_time().expect("it is empty");
        let speed = bytes.0 as f64 / took.as_secs_f64();
        assert!(speed < rate * 1.05, "{name}: {speed} B/s where {rate} are allowed, in {took}");
        let last = result.migrations.iter().map(|m| stay(m).1).max().expect("there are four");
        assert!(took.0.abs_diff(last.0) < Span::from_millis(300).0, "{name}: {took}, and the last left after {last}");
    }
}

#[test]
fn guests_go_through_intermediaries_and_hosts_are_free_before_they_have_arrived() {
    let Some(_alone) = alone() else { return };
    let drain = "host = 'old'\ndestinations = ['new']\nvia = ['mid']";
    let mut world = world(&[("old", None), ("new", None), ("mid", None)], &[OLD; 2], drain);
    world.hosts[2].role = livemig_models::world::Role::Intermediary;
    let through = with("scatter-gather", |spec| {
        let mut scatter = livemig_core::strategy::Scatter::new(false);
        scatter.gather.limit = Some(livemig_core::units::Rate(30e6));
        spec.push.as_mut().expect("it pushes").scatter = Some(scatter);
        spec.transfer.limit = Some(livemig_core::units::Rate(120e6));
    });
    let (result, drain) = drained(&world, &through, &options());
    assert_eq!(courses(&result), [(0, 1, Outcome::Completed), (1, 1, Outcome::Completed)], "{:?}", result.warnings);
    assert!(result.migrations.iter().all(|m| m.metrics.bytes.gathered > Bytes::from_mib(20)), "{result:?}");
    // The second begins when the source is free of the first, and not when that has arrived.
    let [first, second] = [0, 1].map(|n| &result.migrations[n].metrics);
    assert!(second.queued < first.total_migration_time.expect("it completed"), "{first:?} {second:?}");
    assert!(drain.whole.drain_time().is_some(), "{drain:?}");
}

#[test]
fn what_fails_is_made_again_elsewhere_and_what_has_no_place_stays() {
    let Some(_alone) = alone() else { return };
    let drain = "host = 'old'\ndestinations = ['new1', 'new2']\nretries = 1";
    let world = world(&[("old", None), ("new1", None), ("new2", Some(130))], &[OLD; 3], drain);
    let slow = with("pre-copy", |spec| spec.transfer.limit = Some(livemig_core::units::Rate(80e6)));
    let options = Options { strikes: vec![(Phase::LiveCopy, HostId(1))], ..options() };
    let (result, drain) = drained(&world, &slow, &options);
    assert_eq!(
        courses(&result),
        [(0, 1, Outcome::Aborted), (0, 2, Outcome::Completed), (1, 2, Outcome::Completed)],
        "{drain:?} {:?}",
        result.warnings
    );
    let attempts: Vec<u32> = result.migrations.iter().map(|m| m.attempt).collect();
    assert_eq!((attempts, drain.whole.retried), (vec![1, 2, 1], 1), "{drain:?}");
    let left: Vec<_> = drain.not_moved.iter().map(|vm| (vm.vm, vm.fate)).collect();
    assert_eq!(left, [(VmId(2), Fate::Unplaced(NoPlace::NoRoom))]);
    assert_eq!((drain.whole.drain_time(), drain.hosts[0].left), (None, 1), "{drain:?}");
}

#[test]
fn hosts_are_emptied_in_turn_and_take_guests_again() {
    let Some(_alone) = alone() else { return };
    let drain = "host = ['a', 'b']\ndestinations = ['a', 'b']\nonto_waiting = true\nhosts_at_once = 1\nreturns_after = '300 ms'";
    let world = world(&[("a", None), ("b", None)], &["host = 'a'", "host = 'b'"], drain);
    let (result, drain) = drained(&world, &strategy("post-copy"), &options());
    // From the first host to the second, and when that is emptied both go to the first, one of them back.
    let mut places = courses(&result);
    places[1..].sort_unstable_by_key(|place| place.0);
    assert_eq!(places, [(0, 1), (0, 0), (1, 0)].map(|(vm, to)| (vm, to, Outcome::Completed)), "{drain:?} {:?}", result.warnings);
    assert_eq!((drain.whole.hosts_emptied, drain.whole.moved), (2, 3), "{drain:?}");
    let [first, second] = [0, 1].map(|n| drain.hosts[n]);
    assert!(second.began >= first.emptied.map(|at| at + Span::from_millis(300)), "{drain:?}");
    // What is compared is the guest where it is in the end, and there once.
    assert_eq!(result.migrations.iter().filter(|m| m.report.is_some()).count(), 2, "{result:?}");
}

#[test]
fn a_guest_that_is_withdrawn_stays() {
    let Some(_alone) = alone() else { return };
    let drain = "host = 'old'\ndestinations = ['new']";
    let mut world = world(&[("old", None), ("new", None)], &[OLD; 3], drain);
    // One waits and one is under way: a guest of 51 MB takes a second.
    for (vm, after) in [(VmId(1), Span::from_millis(200)), (VmId(0), Span::from_millis(400))] {
        let at = world.drain.as_ref().expect("it is a drain").at + after;
        world.events.push(livemig_models::world::ScheduledEvent { at, what: livemig_models::world::Incident::Cancel(vm) });
    }
    let slow = with("pre-copy", |spec| spec.transfer.limit = Some(livemig_core::units::Rate(50e6)));
    let (result, drain) = drained(&world, &slow, &options());
    assert_eq!(courses(&result), [(0, 1, Outcome::Cancelled), (2, 1, Outcome::Completed)], "{drain:?} {:?}", result.warnings);
    assert!(result.migrations.iter().all(|m| m.report.is_some()), "both run, one of them where it was");
    let left: Vec<_> = drain.not_moved.iter().map(|vm| (vm.vm, vm.fate)).collect();
    assert_eq!(left, [(VmId(1), Fate::Cancelled), (VmId(0), Fate::Cancelled)]);
}
