//! What the user typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use livemig_models::world::Fidelity;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  it ran, and the answer is negative: `run`: a migration did not complete;
     `compare --require-converged`: a migration did not complete or did not converge;
     `exec`: a migration did not complete, or memory is not what it must be;
     `check`: a metric is not what it was; `doctor`: real guests cannot run here
  2  wrong usage, wrong scenario, or an error

Data goes to standard output, messages and progress to standard error.";

/// A laboratory for live migration of virtual machines.
#[derive(Debug, Parser)]
#[command(name = "livemig", version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every migration of a scenario in the simulator: one row per run and VM
    #[command(after_help = AFTER_HELP)]
    Run(RunArgs),
    /// Run the strategies of a scenario and show them side by side
    #[command(after_help = AFTER_HELP)]
    Compare(CompareArgs),
    /// Run the scenarios of published papers: what each paper says, ours, and the deviation
    #[command(after_help = AFTER_HELP)]
    Reproduce(ReproduceArgs),
    /// Check that scenarios still give the metrics of a committed baseline
    #[command(after_help = AFTER_HELP)]
    Check(CheckArgs),
    /// Migrate real guests under KVM on this machine, and show the strategies side by side
    #[command(after_help = AFTER_HELP)]
    Exec(ExecArgs),
    /// Wait on this machine for coordinators, to be a host of their scenarios (`exec --agents`)
    #[command(after_help = AFTER_HELP)]
    Agent(AgentArgs),
    /// Tell what this machine can do for real guests, and what mends it
    #[command(after_help = AFTER_HELP)]
    Doctor(DoctorArgs),
    /// List strategies and policies with their origin
    List(ListArgs),
    /// Print the JSON Schema of scenario files
    Schema,
    /// Draw the charts of an output directory again from its CSV files
    Plot(PlotArgs),
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// Comma-separated values, all columns
    Csv,
    /// One JSON object per line, all columns
    Json,
    /// A Markdown table
    Md,
}

/// How exactly memory is modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FidelityName {
    /// Bytes per region of the workload, in expectation
    Class,
    /// Pages with an identity, and accesses drawn one by one
    Page,
}

impl From<FidelityName> for Fidelity {
    fn from(name: FidelityName) -> Fidelity {
        match name {
            FidelityName::Class => Fidelity::Class,
            FidelityName::Page => Fidelity::Page,
        }
    }
}

/// What `run` and `compare` have in common.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// The scenario file (TOML)
    pub(crate) scenario: PathBuf,
    /// Only read and check the scenario
    #[arg(long)]
    pub(crate) check: bool,
    /// Write CSV files, manifest.json and charts to this directory; timelines only of runs with at most 1000 migrations
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Number of runs at the same time; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Only this strategy of the scenario, or this preset; may be repeated
    #[arg(long = "strategy", value_name = "NAME")]
    pub(crate) strategies: Vec<String>,
    /// Use this seed instead of the scenario's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How exactly memory is modelled, instead of what the scenario says
    #[arg(long, value_enum)]
    pub(crate) fidelity: Option<FidelityName>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Show ratios to this strategy instead of the best one
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Option<String>,
    /// Exit with 1 unless every migration completed and converged
    #[arg(long)]
    pub(crate) require_converged: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Where to wait for coordinators
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// This agent's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca", conflicts_with = "insecure")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The certificates of the authority that coordinators and other agents must have theirs from (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) ca: Option<PathBuf>,
    /// Do without TLS: whoever reaches this agent may use it
    #[arg(long)]
    pub(crate) insecure: bool,
    /// The port at which migrations arrive [default: any that is free]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) migration_port: u16,
    /// Serve the coordinator at standard input, and wait for migrations here; the waiting agent starts it
    #[arg(long, value_name = "IP:PORT", hide = true, conflicts_with = "listen")]
    pub(crate) migrations_at: Option<SocketAddr>,
}

/// How the hosts of real guests are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetName {
    /// By loopback, whatever NICs they have; a strategy's limit holds
    #[default]
    Loopback,
    /// Each in a network namespace, with NICs, racks and reception as in the scenario; needs root
    Namespaces,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The scenario file (TOML); its hosts are processes on this machine, unless there are agents
    pub(crate) scenario: PathBuf,
    /// Only read and check the scenario
    #[arg(long)]
    pub(crate) check: bool,
    /// Write CSV files, manifest.json and charts to this directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Only this strategy of the scenario, or this preset; may be repeated
    #[arg(long = "strategy", value_name = "NAME")]
    pub(crate) strategies: Vec<String>,
    /// Use this seed instead of the scenario's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Show ratios to this strategy instead of the best one
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Option<String>,
    /// How hosts are connected
    #[arg(long, value_enum, default_value_t)]
    pub(crate) net: NetName,
    /// Use the agents that this file names (TOML), on machines of their own, in place of processes on this machine
    #[arg(long, value_name = "FILE", conflicts_with = "net")]
    pub(crate) agents: Option<PathBuf>,
    /// Talk to agents without TLS: whoever is on the network can read, change and take over everything
    #[arg(long, requires = "agents")]
    pub(crate) insecure: bool,
    /// How long guests run before the first migration, if the scenario waits longer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) lead: Duration,
    /// How long guests are watched after the last migration
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) observe: Duration,
    /// A run is ended after this time, or after the scenario's horizon if that is shorter
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) horizon: Duration,
    /// Do not compare every byte of memory with what it must be
    #[arg(long)]
    pub(crate) no_verify: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// Only these papers [default: all]
    #[arg(value_name = "PAPER")]
    pub(crate) papers: Vec<String>,
    /// Write a CSV file per paper and a chart per figure to this directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Number of runs at the same time; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Read scenarios and published figures from this directory instead of using those inside the program
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The baseline: check.toml with the names of scenarios, and the metrics of each
    #[arg(value_name = "DIR", default_value = "results/baseline")]
    pub(crate) directory: PathBuf,
    /// Write the metrics of now into the baseline
    #[arg(long)]
    pub(crate) update: bool,
    /// How differences are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Number of runs at the same time; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// A directory that `run` or `compare` has written
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Where the charts go [default: the same directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
