//! Fleets of migrations that share one network, per VM against `SimGrid` 3.32.
//!
//! Half of the hosts are sources. In `het`, values repeat every 35 VMs and many events coincide; in `rnd` no two do. The drawn
//! values are computed as the reference program computed them, so that nothing is lost to the rounding of its output.

mod common;

use common::{constant, host, ideal, run, strategy, vm};
use livemig_core::policy::stop::{SimGrid, StopRule};
use livemig_core::units::{Bytes, Time};
use livemig_models::world::{HostId, Move, VmId, World};

const MEMORY: f64 = 4000e6;
const DIRTY: f64 = 100e6;
const BANDWIDTH: f64 = 1250e6;

/// Splitmix64 of (i, k): the upper 53 bits as a number from 0 to 1.
fn draw(i: u64, k: u64) -> f64 {
    let mut z = (i * 3 + k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Memory in bytes, dirty rate in bytes per second and destination of VM `i`.
fn het(i: u32, source: u32, j: u32, sources: u32) -> (f64, f64, u32) {
    let (memory, dirty) = (1.0 + f64::from(i % 7) / 8.0, 0.5 + f64::from(i % 5) / 8.0);
    ((MEMORY * memory).trunc(), DIRTY * dirty, (source + j) % sources)
}

fn rnd(i: u32, _source: u32, _j: u32, sources: u32) -> (f64, f64, u32) {
    let i = u64::from(i);
    let memory = (MEMORY * (1.0 + draw(i, 0))).floor();
    (memory, DIRTY * (0.5 + draw(i, 1) / 2.0), (draw(i, 2) * f64::from(sources)) as u32)
}

fn fleet(hosts: u32, per_source: u32, values: impl Fn(u32, u32, u32, u32) -> (f64, f64, u32)) -> World {
    let sources = hosts / 2;
    let mut world = World {
        hosts: (0..hosts).map(|h| host(&format!("h{h}"), BANDWIDTH)).collect(),
        racks: Vec::new(),
        vms: Vec::new(),
        flows: Vec::new(),
        moves: Vec::new(),
        drain: None,
        events: Vec::new(),
        calibration: ideal(),
    };
    for source in 0..sources {
        for j in 0..per_source {
            let i = source * per_source + j;
            let (memory, dirty, destination) = values(i, source, j, sources);
            let memory = Bytes(memory as u64);
            let working_set = Bytes((memory.0 as f64 * 0.9) as u64);
            world.vms.push(vm(source, memory, constant(dirty, working_set)));
            world.moves.push(Move { vm: VmId(i), to: HostId(sources + destination), at: Time::ZERO, via: Vec::new() });
        }
    }
    world
}

fn compare(world: &World, reference: &str) {
    let s = strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::SimGrid(SimGrid::default());
        live.skip_redirtied = false;
    });
    let result = run(world, &s);
    let mut rows = 0;
    for (line, m) in reference.lines().skip(1).zip(&result.migrations) {
        let f: Vec<f64> = line.split(',').map(|x| x.parse().unwrap()).collect();
        let total = m.metrics.total_migration_time.unwrap().as_secs_f64();
        let downtime = m.metrics.downtime.unwrap().total.as_secs_f64();
        assert!((total - f[3]).abs() <= 1e-6 * f[3], "VM {line}: total {total}");
        assert!((downtime - f[4]).abs() <= 2e-6, "VM {line}: downtime {downtime}");
        rows += 1;
    }
    assert_eq!(rows, world.vms.len());
}

#[test]
fn coinciding_events_agree() {
    compare(&fleet(20, 1, het), include_str!("data/simgrid-20x1-het.csv"));
    compare(&fleet(20, 10, het), include_str!("data/simgrid-20x10-het.csv"));
    compare(&fleet(200, 10, het), include_str!("data/simgrid-200x10-het.csv"));
}

#[test]
fn irregular_fleets_agree() {
    compare(&fleet(20, 1, rnd), include_str!("data/simgrid-20x1-rnd.csv"));
    compare(&fleet(20, 10, rnd), include_str!("data/simgrid-20x10-rnd.csv"));
    compare(&fleet(200, 10, rnd), include_str!("data/simgrid-200x10-rnd.csv"));
}
