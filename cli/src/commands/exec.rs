//! `livemig exec`: the strategies of a scenario side by side, measured with real guests under KVM.

use crate::args::{BatchArgs, ExecArgs, NetName};
use crate::batch::{self, Executor, Run};
use crate::commands::compare::Blocks;
use crate::failure::{Answer, quoted};
use crate::jobs::Job;
use crate::lab;
use anyhow::{Context, Result};
use livemig_core::units::{Span, Time};
use livemig_exec::Net;
use livemig_exec::run::{Launch, MigrationResult, Options};
use livemig_models::world::{Scenario, World};
use livemig_sim::{FlowResult, RunResult};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) fn run(args: &ExecArgs) -> Result<Answer> {
    let batch = batch_args(args);
    let Some(mut loaded) = batch::load(&batch)? else { return Ok(Answer::Done) };
    let machine = Machine::new(args, loaded.scenario.horizon)?;
    // What cannot be done is said before anything is.
    for point in &loaded.scenario.points {
        for strategy in &point.strategies {
            livemig_exec::run::check(&point.world, strategy, &machine.options)?;
        }
    }
    if args.check {
        batch::say_valid(&loaded)?;
        return Ok(Answer::Done);
    }
    if args.agents.is_none() {
        livemig_exec::guest::kvm_available().context(
            "real guests need KVM (load kvm_intel or kvm_amd, and be in the group of /dev/kvm); `livemig compare` simulates",
        )?;
    }
    if args.net == NetName::Namespaces {
        loaded.add_option("--net namespaces");
    }
    if let Some(file) = &args.agents {
        loaded.add_option(&format!(
            "--agents {}{}",
            quoted(&file.display().to_string()),
            if args.insecure { " --insecure" } else { "" }
        ));
    }
    let mut view = Blocks::new(args.format, &loaded, args.baseline.as_deref())?;
    let tally = batch::drive(&batch, &loaded, &machine, &mut view)?;
    Ok(if tally.complain_of_failures(&loaded) { Answer::Negative } else { Answer::Done })
}

/// One run at a time: guests that run beside each other disturb each other's times.
fn batch_args(args: &ExecArgs) -> BatchArgs {
    BatchArgs {
        scenario: args.scenario.clone(),
        // What is read is checked for more than other commands ask.
        check: false,
        output: args.output.clone(),
        format: args.format,
        threads: Some(1),
        strategies: args.strategies.clone(),
        seed: args.seed,
        fidelity: None,
    }
}

/// This machine, with agents that are processes of this program.
struct Machine {
    options: Options,
    facts: Mutex<Facts>,
}

/// What the runs say beside metrics.
#[derive(Default)]
struct Facts {
    clock_error: Span,
    migrations: Vec<Value>,
    traffic: Vec<Value>,
}

impl Machine {
    fn new(args: &ExecArgs, horizon: Span) -> Result<Machine> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let span = |length: Duration| Span::from_secs_f64(length.as_secs_f64());
        let options = Options {
            net: match args.net {
                NetName::Loopback => Net::Loopback,
                NetName::Namespaces => Net::Namespaces,
            },
            lab: args.agents.as_ref().map(|file| lab::read(file, args.insecure)).transpose()?.map(Arc::new),
            verify: !args.no_verify,
            lead: span(args.lead),
            observe: span(args.observe),
            horizon: span(args.horizon).min(horizon),
            ..Options::new(Launch { program, args: vec!["agent".into()], env: Vec::new() })
        };
        Ok(Machine { options, facts: Mutex::default() })
    }
}

impl Executor for Machine {
    const COMMAND: &'static str = "exec";

    fn run(&self, scenario: &Scenario, job: &Job, timeline: bool) -> Result<Run> {
        let point = &scenario.points[job.point];
        let strategy = &point.strategies[job.strategy];
        let options = Options { timeline, ..self.options.clone() };
        let ran = livemig_exec::run::run(&point.world, strategy, job.seed(scenario.seed), &options)?;
        for warning in &ran.warnings {
            eprintln!("{}: {warning}", strategy.name);
        }
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.clock_error = facts.clock_error.max(ran.clock_error);
        facts.migrations.extend(ran.migrations.iter().map(|m| fact(&point.world, &strategy.name, job, m)));
        let complaints = ran.migrations.iter().filter_map(|m| complaint(&point.world, m)).collect();
        facts.traffic.extend(ran.flows.iter().map(|flow| traffic(&strategy.name, job, flow)));
        let migrations = ran.migrations.into_iter().map(simulated).collect();
        let listed = ran.flows.into_iter().filter(|flow| flow.listed);
        let flows = listed.map(|flow| FlowResult { name: flow.name, mean: flow.mean, before: flow.before }).collect();
        let ended = Time::ZERO + ran.ended;
        Ok(Run { result: RunResult { migrations, flows, drain: ran.drain, ended, events: 0 }, complaints })
    }

    fn facts(&self) -> Vec<(&'static str, Value)> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let net = match (&self.options.lab, self.options.net) {
            (Some(_), _) => "agents",
            (None, Net::Loopback) => "loopback",
            (None, Net::Namespaces) => "namespaces",
        };
        vec![
            ("net", net.into()),
            ("clock_error_s", facts.clock_error.as_secs_f64().into()),
            ("migrations", facts.migrations.clone().into()),
            ("traffic", facts.traffic.clone().into()),
        ]
    }
}

fn name(world: &World, m: &MigrationResult) -> String {
    world.vms.get(m.vm.0 as usize).map_or_else(|| "?".to_owned(), |vm| vm.name.clone())
}

/// What the manifest says of a migration.
fn fact(world: &World, strategy: &str, job: &Job, m: &MigrationResult) -> Value {
    json!({
        "point": job.point,
        "replicate": job.replicate,
        "strategy": strategy,
        "vm": name(world, m),
        "verification": m.report.as_ref().map(ToString::to_string),
        "gap_without_migration_s": m.baseline_gap.map(Span::as_secs_f64),
        "lost_pages": m.lost_pages,
        "commands_replayed": m.commands,
    })
}

/// What the manifest says of traffic that got through, in bytes per second.
fn traffic(strategy: &str, job: &Job, flow: &livemig_exec::run::FlowResult) -> Value {
    json!({
        "point": job.point,
        "replicate": job.replicate,
        "strategy": strategy,
        "flow": flow.name,
        "mean_rate": flow.mean.0,
        "mean_rate_before": flow.before.map(|rate| rate.0),
    })
}

/// What is wrong with the memory of a migration that completed. One that did not complete is complained of anyway.
fn complaint(world: &World, m: &MigrationResult) -> Option<String> {
    let report = m.report.as_ref().filter(|report| !report.is_clean())?;
    Some(format!("{}: {report}", name(world, m)))
}

/// The result in the form in which results are shown.
fn simulated(m: MigrationResult) -> livemig_sim::MigrationResult {
    livemig_sim::MigrationResult {
        vm: m.vm,
        source: m.source,
        destination: m.destination,
        attempt: m.attempt,
        technique: m.technique,
        metrics: m.metrics,
        rounds: m.rounds,
        timeline: m.timeline,
    }
}
