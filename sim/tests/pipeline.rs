//! Streams over several interfaces, threads and locks: idle guests against what can be computed by hand.

mod common;

use common::{one_vm, run, strategy};
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span};
use livemig_core::vocabulary::Channels;
use livemig_models::world::{Nic, Strategy, Workload, World};

/// 4.096 GB over interfaces of 100 MB/s.
const PAGES: u64 = 1_000_000;
const LINE: f64 = 100e6;
const NICS: f64 = 4.0;
/// What sending and mapping a page take.
const SEND: f64 = 24e-6;
const MAP: f64 = 16e-6;

fn world(line: f64, map: f64) -> World {
    let mut world = one_vm(Bytes::from_pages(PAGES), Workload::Idle, line);
    for host in &mut world.hosts {
        host.nics = vec![Nic { rate: Rate(line), goodput: 1.0 }; NICS as usize];
    }
    world.calibration.send_per_page = Span::from_secs_f64(SEND);
    world.calibration.map_per_page = Span::from_secs_f64(map);
    world
}

fn with(channels: Channels) -> Strategy {
    strategy("pmigrate", |s| s.transfer.channels = channels)
}

#[track_caller]
fn takes(world: &World, strategy: &Strategy, seconds: f64) {
    let metrics = run(world, strategy).migrations.remove(0).metrics;
    let total = metrics.total_migration_time.expect("reached").as_secs_f64();
    assert!((total - seconds).abs() <= 1e-6 * seconds, "{total}, not {seconds}");
}

#[test]
fn interfaces_add_up_until_threads_are_the_bound() {
    let bytes = (PAGES * PAGE_SIZE) as f64;
    let free = Channels { range_lock: true, ..Channels::default() };
    takes(&world(LINE, MAP), &with(free), bytes / (NICS * LINE));
    takes(&world(LINE, MAP), &with(Channels { nics: Some(2), ..free }), bytes / (2.0 * LINE));
    takes(&world(LINE, MAP), &with(Channels { threads: Some(2), ..free }), PAGES as f64 * (SEND + MAP) / 2.0);
}

#[test]
fn range_locks_let_threads_map_side_by_side() {
    let fast = world(1e9, MAP);
    let (range, whole) = (Channels { range_lock: true, ..Channels::default() }, Channels::default());
    takes(&fast, &with(range), PAGES as f64 * (SEND + MAP) / 4.0);
    takes(&fast, &with(whole), PAGES as f64 * (SEND / 4.0 + MAP));
    // Where nothing is mapped there is nothing to lock.
    takes(&world(1e9, 0.0), &with(whole), PAGES as f64 * SEND / 4.0);
}

#[test]
fn threads_are_no_more_than_cores() {
    let mut few = world(1e9, MAP);
    few.hosts[1].cores = 3;
    takes(&few, &with(Channels { range_lock: true, ..Channels::default() }), PAGES as f64 * (SEND + MAP) / 3.0);
}
