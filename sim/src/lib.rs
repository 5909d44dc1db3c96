//! The simulated driver: hosts, guests and networks as a discrete-event model under the migrations of `livemig-core`.
#![forbid(unsafe_code)]

mod carry;
mod class;
mod cores;
mod dedup;
mod drain;
mod drive;
mod drives;
mod engine;
mod fidelity;
mod gather;
mod incidents;
mod intermediaries;
mod memory;
pub mod network;
mod page;
mod placed;
pub mod queue;
mod sample;
mod selection;
mod threads;
mod traffic;
mod watcher;
mod ways;
mod wiring;

use livemig_core::ledger::{Metrics, RoundRecord, TimelinePoint};
use livemig_core::units::{Rate, Span, Time};
pub use livemig_models::world::{DrainResult, Fidelity, NotMoved};
use livemig_models::world::{HostId, Strategy, VmId, World};

/// How a run is made and what is kept of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Simulated time after which the run ends.
    pub horizon: Span,
    /// Seed of every random number of this run.
    pub seed: u64,
    /// Keep the timeline of every migration.
    pub timeline: bool,
    /// Draw what a guest dirties instead of using its expectation.
    /// At page fidelity it is always drawn.
    pub sampled: bool,
    /// How exactly memory is modelled.
    pub fidelity: Fidelity,
    /// The share of a link's capacity by which the rates over it may miss it ([`network`]); 0 is exact.
    pub rate_tolerance: f64,
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// One entry per migration: those of `World::moves` in their order, then those of the drain in the order in which they began. Empty
    /// when they were streamed ([`run_with`]).
    pub migrations: Vec<MigrationResult>,
    /// What the flows of the scenario have carried, in the order of `World::flows`.
    pub flows: Vec<FlowResult>,
    /// What came of the drain, if the scenario asks for one.
    pub drain: Option<DrainResult>,
    /// When the run ended.
    pub ended: Time,
    /// How many events it took.
    pub events: u64,
}

/// What became of one migration.
#[derive(Clone, Debug)]
pub struct MigrationResult {
    /// The guest.
    pub vm: VmId,
    /// Where it came from.
    pub source: HostId,
    /// Where it was to go.
    pub destination: HostId,
    /// 1; above when the drain made the migration again because it had failed before. The last one tells what became of the VM.
    pub attempt: u32,
    /// The preset that moved it: the strategy's, or the one of the technique that was selected.
    pub technique: &'static str,
    /// The results.
    pub metrics: Metrics,
    /// Its rounds.
    pub rounds: Vec<RoundRecord>,
    /// Its timeline, when asked for.
    pub timeline: Vec<TimelinePoint>,
}

/// What became of one flow of the scenario.
#[derive(Clone, Debug)]
pub struct FlowResult {
    /// Its name.
    pub name: String,
    /// Its mean rate from the first request to the last ending of a migration, or for the time that the scenario gives it.
    pub mean: Rate,
    /// Its mean rate from the beginning of the run to the first request; `None` when that is the same moment.
    pub before: Option<Rate>,
}

/// Runs every migration of `world` with `strategy` until all have ended and been observed, or until the horizon.
///
/// # Panics
/// When `world` asks for a drain that makes no sense (`livemig_core::drain::Plan::check`).
#[must_use]
pub fn run(world: &World, strategy: &Strategy, settings: Settings) -> RunResult {
    let mut migrations: Vec<Option<MigrationResult>> = Vec::with_capacity(world.moves.len());
    let end = run_engine(world, strategy, settings, &mut |m, result| {
        let place = m as usize;
        if migrations.len() <= place {
            migrations.resize_with(place + 1, || None);
        }
        migrations[place] = Some(result);
    });
    RunResult { migrations: migrations.into_iter().flatten().collect(), ..end }
}

/// Like [`run`], but hands each migration's result to `take` as soon as its observation is over, and keeps none.
///
/// # Panics
/// Like [`run`].
pub fn run_with(world: &World, strategy: &Strategy, settings: Settings, take: &mut dyn FnMut(MigrationResult)) -> RunResult {
    run_engine(world, strategy, settings, &mut |_, result| take(result))
}

/// Runs at the fidelity that is asked for; `take` gets each result with the migration's number.
fn run_engine(world: &World, strategy: &Strategy, settings: Settings, take: &mut dyn FnMut(u32, MigrationResult)) -> RunResult {
    match settings.fidelity {
        Fidelity::Class => engine::Engine::<class::Class>::new(world, strategy, settings, take).run(),
        Fidelity::Page => engine::Engine::<page::Page>::new(world, strategy, settings, take).run(),
    }
}
