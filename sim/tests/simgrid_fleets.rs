//! Fleets of migrations that share one network, per VM against `SimGrid` 3.32.
//!
//! The drawn values are computed as the reference program computed them, so that nothing is lost to the rounding of its output.

mod common;

use common::fleets::Fleet;
use common::{like_simgrid, run};
use livemig_models::world::World;

fn fleet(hosts: u32, per_source: u32) -> Fleet {
    Fleet { hosts, per_source, dirty: 100e6 }
}

fn compare(world: &World, reference: &str) {
    let result = run(world, &like_simgrid());
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
    compare(&fleet(20, 1).het(), include_str!("data/simgrid-20x1-het.csv"));
    compare(&fleet(20, 10).het(), include_str!("data/simgrid-20x10-het.csv"));
    compare(&fleet(200, 10).het(), include_str!("data/simgrid-200x10-het.csv"));
}

#[test]
fn irregular_fleets_agree() {
    compare(&fleet(20, 1).rnd(), include_str!("data/simgrid-20x1-rnd.csv"));
    compare(&fleet(20, 10).rnd(), include_str!("data/simgrid-20x10-rnd.csv"));
    compare(&fleet(200, 10).rnd(), include_str!("data/simgrid-200x10-rnd.csv"));
}
