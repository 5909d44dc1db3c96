//! The geometric series of pre-copy at a constant dirty rate (Liu et al., HPDC 2011; Akoush et al., MASCOTS 2010).
//!
//! With memory V, bandwidth R, dirty rate D = l R and allowed downtime T, the rest after k rounds is V l^k; copying stops before
//! round n = ceil(ln(R T / V) / ln l), and all rounds 0..n together take V / R (1 - l^(n+1)) / (1 - l).

mod common;

use common::{constant, one_vm, run_for, strategy};
use livemig_core::policy::stop::{SimGrid, StopRule};
use livemig_core::units::{Bytes, Span};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_constant_dirty_rate_gives_the_geometric_series(
        memory in 1u64 << 26..1 << 40,
        bandwidth in 1e7..1e10f64,
        ratio in 0.01..0.97f64,
        limit_ms in 1u64..2000,
    ) {
        let (v, limit) = (memory as f64, Span::from_millis(limit_ms));
        let allowed = bandwidth * limit.as_secs_f64();
        let exact = (allowed / v).ln() / ratio.ln();
        // Where the rest is within rounding of the limit either number of rounds is right.
        prop_assume!(exact > 0.01 && (exact - exact.round()).abs() > 1e-4);
        let n = exact.ceil();

        let pre_copy = strategy("pre-copy", |s| {
            let live = s.live.as_mut().unwrap();
            live.stop = StopRule::SimGrid(SimGrid { downtime_limit: limit });
            live.skip_redirtied = false;
        });
        let world = one_vm(Bytes(memory), constant(ratio * bandwidth, Bytes(memory)), bandwidth);
        let m = &run_for(&world, &pre_copy, Span::from_secs(100_000_000)).migrations[0].metrics;

        prop_assert_eq!(f64::from(m.rounds), n + 1.0);
        let series = |terms: f64| v / bandwidth * (1.0 - ratio.powf(terms)) / (1.0 - ratio);
        let total = m.total_migration_time.unwrap().as_secs_f64();
        // Each round may be off by 1 ns and by the time of 1 byte, and hands that on to the rounds after it.
        let rounding = (n + 1.0) * (1e-9 + 1.0 / bandwidth) / (1.0 - ratio);
        prop_assert!((total - series(n + 1.0)).abs() <= 1e-9 * total + rounding, "total {total} {}", series(n + 1.0));
        let downtime = m.downtime.unwrap().total.as_secs_f64();
        let last = v / bandwidth * ratio.powf(n);
        prop_assert!((downtime - last).abs() <= 1e-5 * last + rounding, "downtime {downtime} {last}");
        prop_assert!(m.converged);
    }
}
