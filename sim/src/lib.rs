//! The simulated driver: hosts, guests and networks as a discrete-event model under the migrations of `livemig-core`.
#![forbid(unsafe_code)]

mod carry;
mod class;
mod cores;
mod drive;
mod engine;
mod fidelity;
mod incidents;
mod memory;
pub mod network;
mod page;
pub mod queue;
mod sample;
mod traffic;
mod watcher;
mod wiring;

use livemig_core::ledger::{Metrics, RoundRecord, TimelinePoint};
use livemig_core::units::{Rate, Span, Time};
use livemig_models::world::{HostId, Strategy, VmId, World};

/// How exactly memory is modelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fidelity {
    /// Bytes per region of the workload, in expectation: a round costs the same for 1 GiB and for 1 TiB.
    #[default]
    Class,
    /// Pages with an identity and accesses drawn one by one: the judge of the other.
    Page,
}

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
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// One entry per migration, in the order of `World::moves`.
    pub migrations: Vec<MigrationResult>,
    /// What the flows of the scenario have carried, in the order of `World::flows`.
    pub flows: Vec<FlowResult>,
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
    /// The preset that moved it.
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
    /// Its mean rate from the first request to the last ending of a migration.
    pub mean: Rate,
}

/// Runs every migration of `world` with `strategy` until all have ended and been observed, or until the horizon.
#[must_use]
pub fn run(world: &World, strategy: &Strategy, settings: Settings) -> RunResult {
    match settings.fidelity {
        Fidelity::Class => engine::Engine::<class::Class>::new(world, strategy, settings).run(),
        Fidelity::Page => engine::Engine::<page::Page>::new(world, strategy, settings).run(),
    }
}
