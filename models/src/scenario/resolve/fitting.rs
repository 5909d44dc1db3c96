//! Options that have no meaning in the world of the scenario: what a strategy asks for must be there.

use crate::scenario::error::Fault;
use crate::scenario::raw::{self, Document};
use crate::scenario::value::At;
use crate::world::{Strategy, World};
use livemig_core::strategy::preset;
use livemig_core::units::Time;

/// What the migrations of a world have for a strategy.
struct Given<'a> {
    /// Whose intermediaries are fewest, and how many; `None` when there are no migrations, or when they are chosen later.
    fewest: Option<(&'a str, usize)>,
    /// Why nothing can be sent before the request.
    no_time_before: Option<&'static str>,
}

/// Checks the options of strategies that were written as tables. Presets by name are taken as they are: without intermediaries, or time before
/// the request, they leave that stage out.
///
/// # Errors
/// The first option without meaning.
pub(super) fn check(document: &Document, world: &World, strategies: &[Strategy]) -> Result<(), Fault> {
    let (table, list) = match &document.drain {
        Some(drain) => ("drain", drain.value.strategies.as_ref()),
        None => ("migrate", document.migrate.as_ref().and_then(|m| m.value.strategies.as_ref())),
    };
    let given = Given::of(world);
    let written = list.iter().flat_map(|list| &list.value);
    for (number, (at, strategy)) in written.zip(strategies).enumerate() {
        given.check(at, strategy).map_err(|fault| fault.or_line(at.line).under(&format!("{table}.strategies[{number}]")))?;
    }
    Ok(())
}

impl<'a> Given<'a> {
    fn of(world: &'a World) -> Given<'a> {
        let fewest = match &world.drain {
            Some(drain) => (!drain.via_is_chosen).then_some(("the drain", drain.via.len())),
            None => {
                let each = world.moves.iter().map(|m| (world.vms[m.vm.0 as usize].name.as_str(), m.via.len()));
                each.min_by_key(|(_, hosts)| *hosts)
            }
        };
        let no_time_before = if world.drain.is_some() {
            Some("in a drain, where nobody knows before the request which VM goes where")
        } else {
            let at_once = !world.moves.is_empty() && world.moves.iter().all(|m| m.at == Time::ZERO);
            at_once.then_some("where the request comes at once: give `migrate` a time, `at`")
        };
        Given { fewest, no_time_before }
    }

    fn check(&self, at: &At<raw::Strategy>, strategy: &Strategy) -> Result<(), Fault> {
        let raw::Strategy::Options(options) = &at.value else { return Ok(()) };
        // What is as in the preset stands for its name, as in the effective configuration.
        let as_preset = preset(strategy.preset).is_some_and(|preset| (preset.spec)().ahead == strategy.spec.ahead);
        if let (Some(written), Some(why)) = (options.snapshots.as_ref().filter(|_| !as_preset), self.no_time_before) {
            return Err(Fault::at(written.line, "snapshots", format!("has no meaning {why}")));
        }
        let Some((whose, hosts)) = self.fewest else { return Ok(()) };
        if let Some(written) = options.staging.as_ref().filter(|written| written.value && hosts == 0) {
            let problem = format!("there is no host for what `{whose}` stages: give one the role `staging` and name it in `via`");
            return Err(Fault::at(written.line, "staging", problem));
        }
        let copies = strategy.spec.push.and_then(|push| push.scatter).map_or(1, |scatter| usize::from(scatter.copies));
        if let Some(written) = options.scatter.as_ref().filter(|_| copies > hosts.max(1)) {
            let problem = format!("must be at most the number of intermediaries, each of which keeps one: `{whose}` has {hosts}");
            return Err(Fault::at(written.line, "scatter.copies", problem));
        }
        Ok(())
    }
}
