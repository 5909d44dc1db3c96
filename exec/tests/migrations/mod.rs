//! What the tests of whole migrations share.

#[path = "../common/kvm.rs"]
mod kvm;

pub(crate) use kvm::have_kvm;

use livemig_core::machine::Outcome;
use livemig_core::strategy::{Spec, preset};
use livemig_core::units::{Bytes, Span};
use livemig_exec::run::{Launch, MigrationResult, Options, RunResult, run};
use livemig_models::world::{Strategy, Workload, World};

const AGENT: &str = "LIVEMIG_TEST_AGENT";

/// Serves a coordinator, in a process that was started to be an agent.
pub(crate) fn become_agent() {
    if std::env::var_os(AGENT).is_some() {
        livemig_exec::agent::serve_inherited().unwrap();
    }
}

fn launch() -> Launch {
    Launch {
        program: std::env::current_exe().unwrap(),
        args: ["agent_process", "--exact", "--nocapture"].map(Into::into).to_vec(),
        env: vec![(AGENT.into(), "1".into())],
    }
}

pub(crate) fn options() -> Options {
    Options {
        lead: Span::from_millis(300),
        observe: Span::from_millis(100),
        horizon: Span::from_secs(60),
        ..Options::new(launch())
    }
}

/// Two hosts and a guest of 64 MiB.
pub(crate) fn world(workload: Workload) -> World {
    let text = r#"
        schema = 1
        name = "real"
        [[host]]
        name = "src"
        nics = [{ rate = "10 Gbit/s" }]
        [[host]]
        name = "dst"
        nics = [{ rate = "10 Gbit/s" }]
        [[vm]]
        name = "vm1"
        host = "src"
        memory = "64 MiB"
        vcpus = 2
        zero = 0.2
        workload = { kind = "idle" }
        [migrate]
        vms = ["vm1"]
        to = "dst"
        at = "10 s"
        strategies = ["pre-copy"]
    "#;
    let loaded = livemig_models::scenario::parse(text, std::path::Path::new("."), "real.toml").unwrap();
    let mut world = loaded.scenario.points[0].world.clone();
    world.vms[0].workload = workload;
    world
}

pub(crate) fn busy() -> Workload {
    Workload::HotCold { hot: Bytes::from_mib(8), hot_writes: 20_000.0, hot_reads: 20_000.0, cold_writes: 500.0, cold_reads: 2000.0 }
}

pub(crate) fn strategy(name: &str) -> Strategy {
    let preset = preset(name).unwrap();
    Strategy { name: name.to_owned(), preset: preset.name, spec: (preset.spec)() }
}

pub(crate) fn with(name: &str, change: impl FnOnce(&mut Spec)) -> Strategy {
    let mut strategy = strategy(name);
    change(&mut strategy.spec);
    strategy
}

pub(crate) fn made(world: &World, strategy: &Strategy, options: &Options) -> (MigrationResult, RunResult) {
    let result = run(world, strategy, 7, options).unwrap_or_else(|e| panic!("{}: {e}", strategy.name));
    let migration = result.migrations[0].clone();
    if let Some(report) = &migration.report {
        assert!(report.is_clean(), "{}: {report}; {:?}", strategy.name, result.warnings);
    }
    (migration, result)
}

/// A migration that completes, with the right bytes.
pub(crate) fn completes(world: &World, strategy: &Strategy, options: &Options) -> MigrationResult {
    let (migration, result) = made(world, strategy, options);
    let told = || format!("{}: {:?} {:?}", strategy.name, migration.metrics, result.warnings);
    assert_eq!(migration.metrics.outcome, Outcome::Completed, "{}", told());
    assert!(migration.is_good() && migration.report.is_some(), "{}", told());
    assert!(migration.commands > 4, "{}", told());
    assert!(migration.metrics.guest_gap.is_some() && migration.baseline_gap.is_some(), "{}", told());
    let bytes = migration.metrics.bytes;
    let pages = bytes.first + bytes.resent + bytes.demand + bytes.snapshot;
    assert!(pages.0 > Bytes::from_mib(64).0 / 2, "four of five pages travel, {pages}: {}", told());
    migration
}
