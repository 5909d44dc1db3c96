//! One migration of the swarm, from its seed to its verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};

use livemig_core::machine::Outcome;
use livemig_core::strategy::{PRESETS, Spec, preset};
use livemig_core::vocabulary::Side;

use super::bugs::Bug;
use super::choice::Choices;
use super::coverage::Coverage;
use super::destination::Destination;
use super::intermediary::Intermediary;
use super::scenario::Scenario;
use super::world::World;

/// What was wrong, with the last steps before it when they were recorded.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

/// Runs the migration of a seed, and a second one when the first has left the guest where it was.
pub(crate) fn migrate(seed: u64, bug: Option<Bug>, traced: bool) -> Result<Coverage, Violation> {
    let scenario = Scenario::draw(seed);
    let choices = Choices::seeded(seed ^ 0x5eed);
    let mut world = World::new(scenario.guest.clone(), scenario.timing.clone(), choices, bug, traced);
    world.vias = (0u16..).zip(&scenario.vias).map(|(via, &capacity)| Intermediary::new(via, capacity, bug)).collect();
    if scenario.spec.transfer.dedup {
        world.vias.iter_mut().for_each(|via| via.serve_another(scenario.guest.pages));
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| follow(&mut world, &scenario))) {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.broken(format!("panic: {}", text.unwrap_or_default()));
    }
    match world.violation.take() {
        None => Ok(world.coverage),
        Some(what) => Err(Violation { what, trace: world.trace().cloned().collect() }),
    }
}

fn follow(world: &mut World, scenario: &Scenario) {
    let Some(ending) = world.migrate(scenario.spec.clone(), scenario.faults.clone()) else { return };
    world.coverage.case(format!("outcome: {}", ending.outcome.name()));
    world.coverage.case(format!("preset: {}", scenario.preset));
    world.coverage.case(format!("converged: {}", ending.converged));
    if scenario.guest.disk > 0 {
        world.coverage.case(format!("disk: {}", scenario.preset));
    }
    let in_push = world.dead == Some(Side::Source) && !world.source.released;
    world.coverage.spared += u64::from(in_push && ending.outcome == Outcome::Completed);
    let undisturbed = scenario.faults.is_empty();
    if undisturbed && ending.outcome != Outcome::Completed && !scenario.may_give_up() {
        world.broken(format!("an undisturbed migration is {}", ending.outcome.name()));
    }
    if world.violation.is_none() && world.dead != Some(Side::Source) {
        retry(world, scenario, ending.outcome);
    }
}

/// A migration that was given up leaves a world in which the next one works.
fn retry(world: &mut World, scenario: &Scenario, outcome: Outcome) {
    if !matches!(outcome, Outcome::Aborted | Outcome::Cancelled) {
        return;
    }
    if world.dead.take().is_some() {
        let pages = world.guest.pages();
        world.destination = Destination::new(pages);
        world.destination.bug = world.bug;
    }
    world.destination.refuses_room = false;
    world.destination.refuses_resume = false;
    world.resume_loses = None;
    let ending = world.migrate(retry_spec(scenario), Vec::new());
    if world.violation.is_none() && ending.map(|e| e.outcome) != Some(Outcome::Completed) {
        world.broken(format!("the second attempt ends as {ending:?}"));
    }
    world.coverage.case("retried".into());
}

/// The preset as it is listed: it never gives up by itself.
fn retry_spec(scenario: &Scenario) -> Spec {
    (preset(scenario.preset).unwrap_or(&PRESETS[0]).spec)()
}
