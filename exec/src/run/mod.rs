//! A run: a scenario's guests on this machine, one agent process per host, and migrations between them.
//!
//! The coordinator starts the agents, lets them make the guests, orders the migrations when the scenario says so, follows each with a
//! [`shadow`] whose ledger computes the metrics, and at the end has every guest compared with its replay.
//!
//! ```no_run
//! use livemig_exec::run::{Launch, Options, run};
//! # use livemig_models::world::{Strategy, World};
//! # fn measure(world: &World, strategy: &Strategy) -> Result<(), Box<dyn std::error::Error>> {
//! // `agent` is a hidden subcommand of this program that calls `livemig_exec::agent::serve_inherited`.
//! let launch = Launch { program: std::env::current_exe()?, args: vec!["agent".into()], env: Vec::new() };
//! for migration in run(world, strategy, 7, &Options::new(launch))?.migrations {
//!     println!("{:?}: {:?}", migration.metrics.outcome, migration.metrics.total_migration_time);
//! }
//! # Ok(())
//! # }
//! ```

mod afterwards;
mod cast;
mod coordinator;
mod draining;
mod failing;
mod hearing;
mod lab;
mod launch;
mod selecting;
mod shadow;
mod traffic;
mod work;

pub use lab::{Lab, Remote};
pub use launch::Launch;
pub use traffic::FlowResult;

use crate::error::ExecError;
use crate::net::{Fabric, Net};
use crate::verify::Report;
use livemig_core::ledger::{Metrics, RoundRecord, TimelinePoint};
use livemig_core::machine::Phase;
use livemig_core::units::Span;
use livemig_models::world::{DrainResult, HostId, Strategy, VmId, World};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Stands in for the network between source and destination: given where the destination listens, says where the source is to
/// connect. For tunnels, and for tests that damage what goes through.
pub type Route = Arc<dyn Fn(SocketAddr) -> SocketAddr + Send + Sync>;

/// How a run is made.
#[derive(Clone)]
pub struct Options {
    /// How agents are started.
    pub launch: Launch,
    /// How their hosts are connected.
    pub net: Net,
    /// Standing agents, to be used in place of those that would be started.
    pub lab: Option<Arc<Lab>>,
    /// Compare every byte of every guest's memory with its replay at the end.
    pub verify: bool,
    /// Guests run for at most this long before the first migration is requested, whatever the scenario says; all later times
    /// of the scenario move with it.
    pub lead: Span,
    /// How long guests are watched after the last migration has ended.
    pub observe: Span,
    /// A run that takes longer than this ends unfinished.
    pub horizon: Span,
    /// Keep a timeline per migration.
    pub timeline: bool,
    /// How the source reaches the destination, when not directly; on loopback only.
    pub route: Option<Route>,
    /// The same for intermediaries, on the way from the source and from the destination.
    pub via_route: Option<Route>,
    /// Hosts that fail the moment a migration is first seen in a phase, beside what the scenario says.
    pub strikes: Vec<(Phase, HostId)>,
}

impl Options {
    /// Verified, 10 s of guests running before the first migration and 2 s after the last one, 10 minutes at most.
    #[must_use]
    pub fn new(launch: Launch) -> Options {
        Options {
            launch,
            net: Net::Loopback,
            lab: None,
            verify: true,
            lead: Span::from_secs(10),
            observe: Span::from_secs(2),
            horizon: Span::from_secs(600),
            timeline: false,
            route: None,
            via_route: None,
            strikes: Vec::new(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("launch", &self.launch)
            .field("net", &self.net)
            .field("lab", &self.lab)
            .field("verify", &self.verify)
            .field("lead", &self.lead)
            .field("observe", &self.observe)
            .field("horizon", &self.horizon)
            .field("timeline", &self.timeline)
            .field("route", &self.route.is_some())
            .field("via_route", &self.via_route.is_some())
            .field("strikes", &self.strikes)
            .finish()
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// One for each migration: the scenario's in its order, or the drain's in the order in which they began.
    pub migrations: Vec<MigrationResult>,
    /// What came of the drain, if the scenario asks for one; its times are counted from the moment at which every guest ran.
    pub drain: Option<DrainResult>,
    /// What traffic has got through, guests' own first and then the scenario's flows.
    pub flows: Vec<FlowResult>,
    /// How long the run took from the moment at which every guest ran.
    pub ended: Span,
    /// How wrong the agents' clocks may be against each other, at most.
    pub clock_error: Span,
    /// What is worth knowing beside the results: connections lost, what peers refused.
    pub warnings: Vec<String>,
}

/// One migration's result.
#[derive(Clone, Debug)]
pub struct MigrationResult {
    /// Who.
    pub vm: VmId,
    /// Where from.
    pub source: HostId,
    /// Where to.
    pub destination: HostId,
    /// 1; above when the drain made the migration again because it had failed before.
    pub attempt: u32,
    /// The preset that moved it: the strategy's, or the one of the technique that was selected.
    pub technique: &'static str,
    /// What the ledger says.
    pub metrics: Metrics,
    /// Its rounds.
    pub rounds: Vec<RoundRecord>,
    /// Its timeline, when one is kept.
    pub timeline: Vec<TimelinePoint>,
    /// The longest gap between two of the guest's time stamps before the migration: what the machine does without one.
    pub baseline_gap: Option<Span>,
    /// The comparison with the replay, of a guest that runs; `None` without verification, or when there is no guest any more.
    pub report: Option<Report>,
    /// Pages that are lost, when the guest was stopped because of it.
    pub lost_pages: u64,
    /// Commands of the migration that were found to be, byte for byte, those that the core gives for the same events.
    pub commands: u64,
}

impl MigrationResult {
    /// Whether it completed, and every byte is what it must be if that was looked at.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let completed = self.metrics.outcome == livemig_core::machine::Outcome::Completed;
        completed && self.report.as_ref().is_none_or(Report::is_clean)
    }
}

/// Whether [`run`] can make the migrations of a world by a strategy, as far as that can be known without beginning.
///
/// # Errors
/// What real mode cannot do.
pub fn check(world: &World, strategy: &Strategy, options: &Options) -> Result<(), ExecError> {
    cast::Cast::of(world, strategy, 0, options).map(drop)
}

/// Makes the migrations of a world by a strategy, with real guests.
///
/// # Errors
/// No KVM, a scenario that real mode cannot do (it says what), a network that cannot be made, an agent that cannot be started or failed outside of what the
/// scenario says, or a migration that did not do what the core says. A migration that does not complete is a result, not an error.
pub fn run(world: &World, strategy: &Strategy, seed: u64, options: &Options) -> Result<RunResult, ExecError> {
    match (&options.lab, options.net) {
        (None, _) => crate::guest::kvm_available()?,
        (Some(_), Net::Loopback) => {}
        (Some(_), Net::Namespaces) => {
            return Err(ExecError::Run("agents that stand somewhere are in no namespaces of ours".to_owned()));
        }
    }
    let cast = cast::Cast::of(world, strategy, seed, options)?;
    let fabric = match options.net {
        Net::Loopback => None,
        Net::Namespaces if options.route.is_some() => {
            return Err(ExecError::Run("a route leads through this machine, and hosts in namespaces are not on it".to_owned()));
        }
        Net::Namespaces => {
            let outside = crate::net::unlimited(cast::OUTSIDE);
            let hosts: Vec<_> = cast.hosts.iter().map(|host| world.hosts.get(host.id.0 as usize).unwrap_or(&outside)).collect();
            Some(Fabric::build(&hosts, &world.racks)?)
        }
    };
    coordinator::Coordinator::start((world, &cast), strategy, options, fabric)?.run()
}
