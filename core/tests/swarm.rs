//! The swarm: migrations drawn from seeds, under every strategy, with everything going wrong that can.
//!
//! `LIVEMIG_SWARM_COUNT` sets how many there are, `LIVEMIG_SWARM_FROM` with which seed they begin, `LIVEMIG_SWARM_SEED` replays one.

#[expect(dead_code, reason = "each test uses a part of the harness")]
mod harness;

use std::sync::atomic::{AtomicBool, Ordering};

use harness::coverage::{Coverage, OUTCOMES};
use harness::scenario::Scenario;
use harness::swarm::migrate;
use livemig_core::strategy::PRESETS;

const COUNT: u64 = 100_000;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

#[test]
fn no_migration_of_the_swarm_breaks_an_invariant() {
    if let Some(seed) = from_environment("LIVEMIG_SWARM_SEED") {
        println!("{:#?}", Scenario::draw(seed));
        report_failure(seed);
        println!("seed {seed}: nothing is wrong");
        return;
    }
    let count = from_environment("LIVEMIG_SWARM_COUNT").unwrap_or(COUNT);
    let (coverage, failed) = run_swarm(from_environment("LIVEMIG_SWARM_FROM").unwrap_or(0), count);
    if let Some(seed) = failed {
        report_failure(seed);
        panic!("seed {seed} failed once and not again: the harness is not deterministic");
    }
    check_coverage(&coverage, count);
}

/// Runs so many seeds on as many threads as there are processors; stops at a failure and returns its seed.
fn run_swarm(from: u64, count: u64) -> (Coverage, Option<u64>) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let stop = AtomicBool::new(false);
    let worker = |first: u64| {
        let mut coverage = Coverage::default();
        for seed in (from + first..from + count).step_by(usize::try_from(threads).unwrap()) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match migrate(seed, None, false) {
                Ok(seen) => coverage.absorb(&seen),
                Err(_) => {
                    stop.store(true, Ordering::Relaxed);
                    return (coverage, Some(seed));
                }
            }
        }
        (coverage, None)
    };
    let mut whole = (Coverage::default(), None);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || worker(first))).collect();
        for handle in workers {
            let (coverage, failed) = handle.join().expect("workers catch panics");
            whole.0.absorb(&coverage);
            whole.1 = [whole.1, failed].into_iter().flatten().min();
        }
    });
    whole
}

/// Runs a seed again with its trace, and panics with it if something is wrong.
fn report_failure(seed: u64) {
    if let Err(violation) = migrate(seed, None, true) {
        println!("the last steps:\n{}", violation.trace.join("\n"));
        println!("replay: LIVEMIG_SWARM_SEED={seed} cargo test -p livemig-core --test swarm -- --nocapture");
        panic!("seed {seed}: {}", violation.what);
    }
}

/// Every case is met often enough to mean something.
fn check_coverage(coverage: &Coverage, count: u64) {
    let table = coverage.table();
    for (case, times) in &table {
        println!("{times:>10}  {case}");
    }
    if count < COUNT {
        return;
    }
    for (case, times) in &table {
        assert!(*times >= 20, "in {count} migrations {case:?} was met only {times} times");
    }
    for name in OUTCOMES.map(|o| format!("outcome: {}", o.name())).into_iter().chain(PRESETS.map(|p| format!("preset: {}", p.name)))
    {
        let times = coverage.cases.get(&name).copied().unwrap_or(0);
        assert!(times >= count / 500, "in {count} migrations {name:?} was met only {times} times");
    }
}
