//! Streams over several interfaces, threads and locks: idle guests against what can be computed by hand.

mod common;

use common::{one_vm, run, strategy};
use livemig_core::ledger::Metrics;
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span};
use livemig_core::vocabulary::Channels;
use livemig_models::world::{HostId, Move, Nic, Strategy, VmId, Workload, World};

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
fn takes(world: &World, strategy: &Strategy, seconds: f64) -> Metrics {
    let metrics = run(world, strategy).migrations.remove(0).metrics;
    let total = metrics.total_migration_time.expect("reached").as_secs_f64();
    assert!((total - seconds).abs() <= 1e-6 * seconds, "{total}, not {seconds}");
    metrics
}

#[track_caller]
fn near(ours: f64, exact: f64) {
    assert!((ours - exact).abs() <= 1e-3 * exact, "{ours}, not {exact}");
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

#[test]
fn the_slower_end_is_the_bound() {
    let mut slow = world(1e9, 0.0);
    slow.calibration.receive_per_page = Span::from_secs_f64(30e-6);
    slow.calibration.apply_per_page = Span::from_secs_f64(20e-6);
    takes(&slow, &with(Channels::default()), PAGES as f64 * 50e-6 / 4.0);
    slow.calibration.scan_per_page = Span::from_secs_f64(15e-6);
    takes(&slow, &with(Channels::default()), PAGES as f64 * 15e-6);
}

#[test]
fn in_a_pipeline_the_slowest_stage_is_the_bound() {
    let pipeline = Channels { pipeline: true, range_lock: true, ..Channels::default() };
    takes(&world(1e9, MAP), &with(pipeline), PAGES as f64 * SEND / 4.0);
    takes(&world(1e9, MAP), &with(Channels { range_lock: false, ..pipeline }), PAGES as f64 * MAP);
}

#[test]
fn compression_takes_cores_and_saves_bytes() {
    let packed = Channels { compress: true, ..Channels::default() };
    let mut world = world(LINE, 0.0);
    world.vms[0].compressed = 0.25;
    (world.calibration.send_per_page, world.calibration.compress_per_page) = (Span::ZERO, Span::from_secs_f64(20e-6));
    // Four threads make 204.8 MB/s of 819.2 MB/s, which the interfaces carry.
    let metrics = takes(&world, &with(packed), PAGES as f64 * 20e-6 / 4.0);
    assert_eq!(metrics.bytes.first, Bytes(PAGES * PAGE_SIZE / 4));
    // Free of charge the interfaces are the bound.
    world.calibration.compress_per_page = Span::ZERO;
    takes(&world, &with(packed), (PAGES * PAGE_SIZE) as f64 / 4.0 / (NICS * LINE));
    takes(&world, &with(Channels::default()), (PAGES * PAGE_SIZE) as f64 / (NICS * LINE));
    world.calibration.encrypt_per_page = Span::from_secs_f64(60e-6);
    takes(&world, &with(Channels { encrypt: true, ..packed }), PAGES as f64 * 60e-6 / 4.0);
}

#[test]
fn staged_pages_travel_compressed_too() {
    let mut world = world(LINE, 0.0);
    world.calibration.send_per_page = Span::ZERO;
    world.vms[0].compressed = 0.25;
    world.hosts.push(common::host("mid", NICS * LINE));
    world.hosts[2].role = livemig_models::world::Role::Intermediary;
    world.moves[0].via = vec![HostId(2)];
    let mut through = strategy("scatter-gather", |s| s.transfer.channels.compress = true);
    through.spec.push.as_mut().unwrap().scatter.as_mut().unwrap().direct = false;
    let metrics = run(&world, &through).migrations.remove(0).metrics;
    // One stream over one of the interfaces.
    near(metrics.eviction_time.unwrap().as_secs_f64(), (PAGES * PAGE_SIZE) as f64 / 4.0 / LINE);
}

/// So many guests with one vCPU each, all on a source with so many cores; the first moves over one stream and one interface, to where it
/// finds as many others on as many cores.
fn crowd(guests: usize, cores: u32) -> World {
    let mut world = world(LINE, 0.0);
    world.hosts[0].nics.truncate(1);
    let mut there = vec![world.vms[0].clone(); guests - 1];
    there.iter_mut().for_each(|vm| vm.host = HostId(1));
    world.vms = vec![world.vms[0].clone(); guests];
    world.vms.append(&mut there);
    world.hosts.iter_mut().for_each(|host| host.cores = cores);
    world
}

fn one_stream() -> Strategy {
    strategy("pre-copy", |_| {})
}

#[test]
fn threads_that_wait_for_the_network_take_what_they_use_and_no_more() {
    let seconds = (PAGES * PAGE_SIZE) as f64 / LINE;
    let lost = |guests, cores| {
        let mut world = crowd(guests, cores);
        world.calibration.send_per_page = Span::from_secs_f64(10e-6);
        takes(&world, &one_stream(), seconds).work_lost.as_secs_f64()
    };
    let used = LINE / PAGE_SIZE as f64 * 10e-6;
    near(lost(4, 4), seconds * used / 4.0);
    // A core for the thread is enough.
    assert_eq!(lost(4, 5), 0.0);
    // Guests that are short of cores anyway lose of what they had.
    near(lost(8, 4), seconds * used / 4.0);
}

#[test]
fn threads_and_vcpus_have_the_same_claim() {
    let mut world = crowd(3, 2);
    world.hosts[0].nics[0].rate = Rate(1e9);
    world.hosts[1].nics[0].rate = Rate(1e9);
    // Three vCPUs and a thread on two cores.
    let seconds = PAGES as f64 * SEND / 0.5;
    let metrics = takes(&world, &one_stream(), seconds);
    near(metrics.work_lost.as_secs_f64(), seconds * (1.0 - 0.5 / (2.0 / 3.0)));
    // A second migration adds a claim: each of the five has two fifths of a core.
    world.moves.push(Move { vm: VmId(1), ..world.moves[0].clone() });
    takes(&world, &one_stream(), PAGES as f64 * SEND / 0.4);
}

#[test]
fn the_destination_s_cores_are_taken_too() {
    let mut world = crowd(1, 64);
    world.calibration.receive_per_page = Span::from_secs_f64(SEND);
    world.vms.push(common::vm(1, Bytes::from_mib(1), Workload::Idle));
    world.hosts[1].cores = 1;
    world.hosts[0].nics[0].rate = Rate(1e9);
    world.hosts[1].nics[0].rate = Rate(1e9);
    takes(&world, &one_stream(), PAGES as f64 * SEND / 0.5);
}
