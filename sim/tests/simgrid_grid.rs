//! The single-VM results of an independent simulator: `SimGrid` 3.32's live-migration plugin, measured once for 36 parameter sets.

mod common;

use common::{constant, one_vm, run, strategy};
use livemig_core::policy::stop::{SimGrid, StopRule};
use livemig_core::units::Bytes;

/// memory, dirty rate and bandwidth in MB and MB/s; total and downtime in seconds; rounds after the first, the stopped one included.
const GRID: &str = include_str!("data/simgrid-grid.csv");

#[test]
fn all_rows_agree() {
    let pre_copy = strategy("pre-copy", |s| {
        let live = s.live.as_mut().unwrap();
        live.stop = StopRule::SimGrid(SimGrid::default());
        live.skip_redirtied = false;
    });
    let mut rows = 0;
    for line in GRID.lines().skip(1) {
        let f: Vec<f64> = line.split(',').map(|x| x.parse().unwrap()).collect();
        let memory = Bytes((f[0] * 1e6) as u64);
        let world = one_vm(memory, constant(f[1] * 1e6, Bytes(memory.0 * 9 / 10)), f[2] * 1e6);
        let m = &run(&world, &pre_copy).migrations[0].metrics;
        let total = m.total_migration_time.unwrap().as_secs_f64();
        let downtime = m.downtime.unwrap().total.as_secs_f64();
        assert!((total - f[3]).abs() <= 1e-6 * f[3].max(1.0), "{line}: total {total}");
        assert!((downtime - f[4]).abs() <= 2e-6, "{line}: downtime {downtime}");
        assert!(m.converged);
        rows += 1;
    }
    assert_eq!(rows, 36);
}
