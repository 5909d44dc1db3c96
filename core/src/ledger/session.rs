//! A migration together with its ledger, so that a driver cannot forget to tell the ledger.

use super::book::Ledger;
use super::metrics::{Metrics, RoundRecord};
use super::observation::{Observation, TimelinePoint};
use crate::machine::{Ending, Migration, PeerError, Phase};
use crate::pages::PageSet;
use crate::units::Time;
use crate::vocabulary::{CmdId, Command, Event};
use std::marker::PhantomData;

/// A migration whose events, commands and phases are entered in a ledger. It is driven like the migration itself.
#[derive(Debug)]
pub struct Session<P, M> {
    migration: M,
    ledger: Ledger,
    /// When the migration was last told something; commands that are polled are issued then.
    now: Time,
    phase: Phase,
    pages: PhantomData<fn(P)>,
}

impl<P: PageSet, M: Migration<P>> Session<P, M> {
    /// A session of a migration that nothing has happened to.
    #[must_use]
    pub fn new(migration: M, ledger: Ledger) -> Session<P, M> {
        let phase = migration.phase();
        Session { migration, ledger, now: Time::ZERO, phase, pages: PhantomData }
    }

    /// The driver has measured something.
    pub fn observe(&mut self, observation: Observation) {
        self.ledger.observe(observation);
    }

    /// The observation is over. To be called once.
    pub fn finish(&mut self, now: Time) -> Metrics {
        self.ledger.finish(now, self.migration.ending())
    }

    /// The migration.
    #[must_use]
    pub fn migration(&self) -> &M {
        &self.migration
    }

    /// Another migration goes on where this one ends, elsewhere ([`Conductor::go_on`](crate::conductor::Conductor::go_on)); to the
    /// ledger they are one.
    pub fn go_on_with(&mut self, migration: M) {
        self.migration = migration;
        self.note_phase();
    }

    /// Whether a timeline is kept.
    #[must_use]
    pub fn keeps_timeline(&self) -> bool {
        self.ledger.keeps_timeline()
    }

    /// The rounds so far; see [`Ledger::rounds`].
    #[must_use]
    pub fn rounds(&self) -> &[RoundRecord] {
        self.ledger.rounds()
    }

    /// Hands over the rounds; see [`Ledger::take_rounds`].
    pub fn take_rounds(&mut self) -> Vec<RoundRecord> {
        self.ledger.take_rounds()
    }

    /// Hands over the timeline; to be called after [`Session::finish`].
    pub fn take_timeline(&mut self) -> Vec<TimelinePoint> {
        self.ledger.take_timeline()
    }

    fn note_phase(&mut self) {
        let phase = self.migration.phase();
        if phase != self.phase {
            self.phase = phase;
            self.ledger.phase(self.now, phase);
        }
    }
}

impl<P: PageSet, M: Migration<P>> Migration<P> for Session<P, M> {
    fn handle(&mut self, now: Time, event: Event<P>) -> Result<(), PeerError> {
        self.now = now;
        self.ledger.event(now, &event);
        let result = self.migration.handle(now, event);
        self.note_phase();
        result
    }

    fn wake(&mut self, now: Time) {
        self.now = now;
        self.migration.wake(now);
        self.note_phase();
    }

    fn poll(&mut self) -> Option<(CmdId, Command<P>)> {
        let (id, command) = self.migration.poll()?;
        self.ledger.command(self.now, id, &command);
        self.note_phase();
        Some((id, command))
    }

    fn deadline(&self) -> Option<Time> {
        self.migration.deadline()
    }

    fn phase(&self) -> Phase {
        self.migration.phase()
    }

    fn ending(&self) -> Option<Ending> {
        self.migration.ending()
    }
}
