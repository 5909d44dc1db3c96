//! The command line of livemig: wiring and presentation. Algorithms, models and engines are in the other crates.
#![forbid(unsafe_code)]

mod args;
mod batch;
mod chart;
mod commands;
mod csv_rows;
mod failure;
mod heading;
mod human;
mod jobs;
mod lab;
mod loaded;
mod output;
mod papers;
mod progress;
mod record;
mod stdout;
mod summary;
mod table;
mod value;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    failure::exit_code(commands::run(&cli))
}
