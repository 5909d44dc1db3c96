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
    pub(crate) staged: u64,
    pub(crate) refused: u64,
    pub(crate) reclaimed: u64,
    pub(crate) fetched: u64,
    pub(crate) fetched_too_late: u64,
    pub(crate) superseded: u64,
    pub(crate) pages_lost: u64,
    pub(crate) no_way: u64,
    pub(crate) reserved_without: u64,
    pub(crate) gatherings: u64,
    pub(crate) gathering_repeated: u64,
    pub(crate) served_again: u64,
    pub(crate) spared: u64,
    pub(crate) deduplicated: u64,
    pub(crate) asked_in_vain: u64,
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
        self.staged += other.staged;
        self.refused += other.refused;
        self.reclaimed += other.reclaimed;
        self.fetched += other.fetched;
        self.fetched_too_late += other.fetched_too_late;
        self.superseded += other.superseded;
        self.pages_lost += other.pages_lost;
        self.no_way += other.no_way;
        self.reserved_without += other.reserved_without;
        self.gatherings += other.gatherings;
        self.gathering_repeated += other.gathering_repeated;
        self.served_again += other.served_again;
        self.spared += other.spared;
        self.deduplicated += other.deduplicated;
        self.asked_in_vain += other.asked_in_vain;
    }

    /// Every case with how often it was met.
    pub(crate) fn table(&self) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> = self.cases.iter().map(|(name, &count)| (name.clone(), count)).collect();
        for (kind, phases) in self.faults.iter().enumerate() {
            for &phase in FaultKind::phases(kind) {
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
            ("pages: staged", self.staged),
            ("pages: refused by an intermediary", self.refused),
            ("pages: taken back from a failed intermediary", self.reclaimed),
            ("pages: fetched from an intermediary", self.fetched),
            ("pages: fetched, and not wanted any more", self.fetched_too_late),
            ("places: older than what is known", self.superseded),
            ("pages: lost with an intermediary", self.pages_lost),
            ("sends: no intermediary left", self.no_way),
            ("reservations: without an intermediary", self.reserved_without),
            ("gatherings", self.gatherings),
            ("gatherings: ordered again by another", self.gathering_repeated),
            ("requests: served again after a redirection", self.served_again),
            ("a source failed in the push, and nothing was missing", self.spared),
            ("pages: not sent, for intermediaries had their content", self.deduplicated),
            ("pages: asked for at intermediaries in vain", self.asked_in_vain),
        ] {
            rows.push((name.into(), count));
        }
        rows
    }
}

/// The phases in which faults strike.
pub(crate) const KILLABLE: [Phase; 9] = [
    Phase::Waiting,
    Phase::Preparation,
    Phase::Snapshots,
    Phase::LiveCopy,
    Phase::Switch,
    Phase::Push,
    Phase::Release,
    Phase::Gather,
    Phase::Rollback,
];

/// Outcomes that a swarm must see.
pub(crate) const OUTCOMES: [Outcome; 5] =
    [Outcome::Completed, Outcome::Aborted, Outcome::Cancelled, Outcome::Lost, Outcome::Undecided];
