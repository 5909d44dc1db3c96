//! What a swarm has come across. A swarm that never meets a case proves nothing about it, so this is checked too.

use std::collections::BTreeMap;

use livemig_core::machine::{Outcome, Phase};
use livemig_core::vocabulary::WatchEnd;

use super::faults::FaultKind;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) cases: BTreeMap<String, u64>,
    pub(crate) asked: u64,
    pub(crate) demanded: u64,
    pub(crate) skipped: u64,
    pub(crate) joined_airborne: u64,
    pub(crate) recalled_late: u64,
    pub(crate) recalled_with_rest: u64,
    pub(crate) hasty_recalls: u64,
    pub(crate) gave_up: u64,
    pub(crate) outdated: u64,
    phase: Option<Phase>,
    faults: [[u64; PHASES]; super::faults::FAULT_KINDS],
    watches: [u64; 3],
}

const PHASES: usize = 10;

impl Coverage {
    pub(crate) fn fault(&mut self, kind: FaultKind, phase: Phase) {
        self.faults[kind.index()][phase as usize] += 1;
    }

    pub(crate) fn watched(&mut self, end: WatchEnd) {
        self.watches[end as usize] += 1;
    }

    pub(crate) fn case(&mut self, name: String) {
        *self.cases.entry(name).or_default() += 1;
    }

    /// Whether the phase is another than at the last call.
    pub(crate) fn saw_phase(&mut self, phase: Phase) -> bool {
        self.phase.replace(phase) != Some(phase)
    }

    /// One migration's coverage joins a swarm's.
    pub(crate) fn absorb(&mut self, other: &Coverage) {
        for (name, count) in &other.cases {
            *self.cases.entry(name.clone()).or_default() += count;
        }
        for (mine, theirs) in self.faults.iter_mut().flatten().zip(other.faults.iter().flatten()) {
            *mine += theirs;
        }
        for (mine, theirs) in self.watches.iter_mut().zip(other.watches) {
            *mine += theirs;
        }
        self.asked += other.asked;
        self.demanded += other.demanded;
        self.skipped += other.skipped;
        self.joined_airborne += other.joined_airborne;
        self.recalled_late += other.recalled_late;
        self.recalled_with_rest += other.recalled_with_rest;
        self.hasty_recalls += other.hasty_recalls;
        self.gave_up += other.gave_up;
        self.outdated += other.outdated;
    }

    /// Every case with how often it was met.
    pub(crate) fn table(&self) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> = self.cases.iter().map(|(name, &count)| (name.clone(), count)).collect();
        for (kind, phases) in self.faults.iter().enumerate() {
            let only = if kind >= 9 { vec![[Phase::Waiting, Phase::Switch][usize::from(kind > 9)]] } else { KILLABLE.to_vec() };
            for phase in only {
                rows.push((format!("fault: {}: {}", FaultKind::name(kind), phase.name()), phases[phase as usize]));
            }
        }
        for (end, name) in [(WatchEnd::Below, "below"), (WatchEnd::Stalled, "stalled"), (WatchEnd::SendEnded, "send ended")] {
            rows.push((format!("watch: {name}"), self.watches[end as usize]));
        }
        for (name, count) in [
            ("pages: asked for", self.asked),
            ("pages: sent on demand", self.demanded),
            ("pages: skipped, dirty again", self.skipped),
            ("pages: joined while on their way", self.joined_airborne),
            ("recalls: too late", self.recalled_late),
            ("recalls: with pages unsent", self.recalled_with_rest),
            ("recalls: connections given up", self.hasty_recalls),
            ("broken connections: reported as failures", self.gave_up),
            ("messages: of a connection given up", self.outdated),
        ] {
            rows.push((name.into(), count));
        }
        rows
    }
}

/// The phases in which faults strike.
pub(crate) const KILLABLE: [Phase; 8] = [
    Phase::Waiting,
    Phase::Preparation,
    Phase::Snapshots,
    Phase::LiveCopy,
    Phase::Switch,
    Phase::Push,
    Phase::Release,
    Phase::Rollback,
];

/// Outcomes that a swarm must see.
pub(crate) const OUTCOMES: [Outcome; 5] =
    [Outcome::Completed, Outcome::Aborted, Outcome::Cancelled, Outcome::Lost, Outcome::Undecided];
