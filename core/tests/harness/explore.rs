//! Every interleaving of a tiny migration: depth-first over all decisions, each run from its start.
//!
//! Runs that come into a state in which another run has been are cut short, because everything that can follow was followed
//! there. A state is all that can have an influence on what follows, the machine's included; its fingerprint is 64 bits, which
//! makes a wrong cut as likely as a bit flipped by a cosmic ray.

use std::collections::HashSet;
use std::fmt::{Debug, Write};

use livemig_core::machine::Migration;
use livemig_core::strategy::Spec;
use livemig_core::units::{Span, Time};
use xxhash_rust::xxh3::xxh3_64;

use super::bugs::Bug;
use super::channel::Lane;
use super::choice::{Choices, next_script};
use super::faults::FaultKind;
use super::guest::{GuestSetup, Habit, Pattern};
use super::intermediary::Intermediary;
use super::scenario::{AboutResume, Timing};
use super::world::{Happening, World};

/// A tiny migration.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) spec: Spec,
    /// How many of the four pages are blocks of a disk.
    pub(crate) disk: u64,
    /// How often the guest writes to some page at each side.
    pub(crate) writes: u64,
    /// Something that goes wrong at some time.
    pub(crate) strike: Option<FaultKind>,
    pub(crate) about_resume: AboutResume,
    pub(crate) bug: Option<Bug>,
    /// Intermediaries, with room for everything.
    pub(crate) vias: u16,
}

/// What an exploration has seen.
#[derive(Debug, Default)]
pub(crate) struct Explored {
    /// Runs that were followed to their end.
    pub(crate) ends: u64,
    pub(crate) states: usize,
    /// The outcomes, with how often each was reached.
    pub(crate) outcomes: std::collections::BTreeMap<&'static str, u64>,
}

const PAGES: u64 = 4;

/// Tries everything that can happen. Fails with what was wrong and the steps that led to it.
pub(crate) fn explore(tiny: &Tiny) -> Result<Explored, String> {
    let mut visited = HashSet::new();
    let mut explored = Explored::default();
    let mut script = Vec::new();
    loop {
        let mut world = tiny.world(script.clone(), false);
        tiny.begin(&mut world);
        let whole = follow(&mut world, &mut visited);
        if whole && world.violation.is_none() {
            world.check_end();
            explored.ends += 1;
            let outcome = world.run.conductor.ending().map_or("none", |e| e.outcome.name());
            *explored.outcomes.entry(outcome).or_default() += 1;
        }
        if world.violation.is_some() {
            return Err(tiny.replay(&world));
        }
        match next_script(world.choices.made().0) {
            Some(next) => script = next,
            None => break,
        }
    }
    explored.states = visited.len();
    Ok(explored)
}

/// Goes on until nothing happens any more, or until a state is reached that is known; whether the former. Where there was nothing to decide
/// a state is no junction, and is not remembered: what was reached through it comes to the same next junction.
fn follow(world: &mut World, visited: &mut HashSet<u64>) -> bool {
    let mut text = String::new();
    let mut decisions = world.choices.made().0.len();
    while world.violation.is_none() && world.step() {
        let (made, is_new) = world.choices.made();
        if is_new && made.len() > decisions {
            decisions = made.len();
            if !visited.insert(world.fingerprint(&mut text)) {
                return false;
            }
        }
    }
    true
}

impl Tiny {
    fn world(&self, script: Vec<u64>, traced: bool) -> World {
        let habit = Habit { pattern: Pattern::Uniform, writes_percent: 100 };
        let guest =
            GuestSetup { pages: PAGES, disk: self.disk, vcpus: vec![habit], interval: Span(1), steps_per_side: self.writes };
        let timing = Timing {
            notice: None,
            page: Span(1),
            latency: Span(1),
            jitter: Span(1),
            local: Span(1),
            batch: 2,
            window: 1,
            hasty_recalls_percent: 0,
            gives_up_percent: 0,
            about_resume: self.about_resume,
        };
        World::new(guest, timing, Choices::scripted(script), self.bug, traced)
    }

    fn begin(&self, world: &mut World) {
        world.vias = (0..self.vias).map(|via| Intermediary::new(via, PAGES, self.bug)).collect();
        world.begin(self.spec.clone(), Vec::new());
        if let Some(kind) = self.strike {
            world.lanes.push(Lane::World, Time::ZERO, Happening::Strike(kind));
        }
    }

    /// What was wrong in a run, and its steps.
    fn replay(&self, failed: &World) -> String {
        let script = failed.choices.made().0.iter().map(|d| d.taken).collect();
        let mut world = self.world(script, true);
        self.begin(&mut world);
        while world.violation.is_none() && world.step() {}
        if world.violation.is_none() {
            world.check_end();
        }
        let steps: Vec<String> = world.trace().cloned().collect();
        format!("{}\n{}\n{self:?}", steps.join("\n"), world.violation.unwrap_or_default())
    }
}

impl World {
    /// `text` is room to write the state down.
    fn fingerprint(&self, text: &mut String) -> u64 {
        text.clear();
        // What the ledger has noted has no influence on what follows.
        let parts: [&dyn Debug; 15] = [
            &self.lanes,
            &self.guest,
            &self.source,
            &self.destination,
            self.run.conductor.migration(),
            &self.run.outstanding,
            &self.run.resume_issued,
            &self.run.never_proven,
            &(self.run.cancelled, self.run.abort_failed, self.run.aborting),
            &self.cut,
            &self.dead,
            &self.resume_loses,
            &self.ideal,
            &self.vias,
            &(&self.run.known_dead, self.run.pages_lost),
        ];
        for part in parts {
            write!(text, "{part:?};").expect("writing to memory cannot fail");
        }
        xxh3_64(text.as_bytes())
    }
}
