//! What a run costs, in events: independent of the machine.

mod common;

use common::{ordinary, run, strategy};
use livemig_core::strategy::PRESETS;
use livemig_core::units::Bytes;

#[test]
fn a_large_guest_costs_as_much_as_a_small_one() {
    for preset in &PRESETS {
        let strategy = strategy(preset.name, |_| ());
        let [small, large] = [1, 1024].map(|gib| run(&ordinary(Bytes::from_gib(gib)), &strategy));
        assert!(small.events >= 5, "{}: {} events", preset.name, small.events);
        assert!(large.events <= small.events + 20, "{}: {} events, then {}", preset.name, small.events, large.events);
        let [small, large] = [small, large].map(|r| r.migrations[0].metrics.total_migration_time.unwrap().as_secs_f64());
        assert!(large > 500.0 * small, "{}: {small} s, then {large} s", preset.name);
    }
}
