//! The commands, one file each.

mod agent;
mod check;
mod compare;
mod doctor;
mod exec;
mod list;
mod plot;
mod reproduce;
mod run;
mod schema;

use crate::args::{Cli, Command};
use crate::failure::Answer;
use anyhow::Result;

/// Does what the user asked for.
///
/// # Errors
/// When it cannot be done; the text says why.
pub(crate) fn run(cli: &Cli) -> Result<Answer> {
    match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Reproduce(args) => reproduce::run(args),
        Command::Check(args) => check::run(args),
        Command::Exec(args) => exec::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::List(args) => list::run(args),
        Command::Schema => schema::run(),
        Command::Plot(args) => plot::run(args),
    }
}
