//! The simulated driver: hosts, guests and networks as a discrete-event model under the migrations of `livemig-core`.
#![forbid(unsafe_code)]

pub mod network;
pub mod queue;

use livemig_core::ledger::{Metrics, RoundRecord, TimelinePoint};
use livemig_core::units::{Span, Time};
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
    pub sampled: bool,
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// One entry per migration, in the order of `World::moves`.
    pub migrations: Vec<MigrationResult>,
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

/// Runs every migration of `world` with `strategy` until all have ended and been observed, or until the horizon.
#[must_use]
pub fn run(_world: &World, _strategy: &Strategy, _settings: Settings) -> RunResult {
    RunResult { migrations: Vec::new(), ended: Time::ZERO, events: 0 }
}
