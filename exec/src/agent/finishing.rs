//! What an agent does when its coordinator is gone without having taken leave: migrations under way come to their end.
//!
//! Nobody is left who could say that a host is gone for good, so each end of a migration waits for the other: as long as it is connected,
//! and not for ever when it is not. Guests that are whole are compared with what they must be, as at the end of every run, and end with
//! this process, which is all that is left of the run.

use super::Agent;
use crate::destination::Reception;
use crate::source::Outgoing;
use crate::wire::frame::SILENCE;
use livemig_core::vocabulary::Event;
use std::time::{Duration, Instant};

/// A migration that was requested just now may need so long to reach its other hosts.
const GRACE: Duration = SILENCE;
/// An end of a migration to which nobody has been connected for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Migrations that could still be cancelled after this time are: a rule that is never met would keep the hosts for ever.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two looks at whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// How this host's part in a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// There is nothing more to do.
    Over,
    /// There is, with somebody who is not connected.
    Alone,
    /// There is, with somebody who is.
    Connected,
}

impl Agent {
    /// Brings migrations to their end; `tell` hears what came of them.
    pub(super) fn finish(&self, tell: fn(&str)) {
        tell("the coordinator is gone without a word: migrations under way are brought to their end");
        // What was only prepared was not wanted yet, and nobody will say that it is.
        self.outgoing.values().filter(|outgoing| !outgoing.is_requested()).for_each(|outgoing| outgoing.tell(Event::Cancel));
        let begun = Instant::now();
        let (mut connected, mut cancelled) = (begun, false);
        loop {
            match self.part() {
                Part::Connected => connected = Instant::now(),
                Part::Alone if connected.elapsed() > PATIENCE => break,
                Part::Over if begun.elapsed() > GRACE => break,
                Part::Alone | Part::Over => {}
            }
            if !cancelled && begun.elapsed() > LONGEST {
                cancelled = true;
                self.outgoing.values().for_each(|outgoing| outgoing.tell(Event::Cancel));
            }
            std::thread::sleep(LOOK);
        }
        self.tell_what_came_of_it(tell);
        tell("that was all: this agent's part in them is over");
    }

    /// The part that has most left to do.
    fn part(&self) -> Part {
        let outgoing = self.outgoing.values().map(Outgoing::part);
        let incoming = self.reception.as_ref().map(Reception::part);
        let staged = self.intermediary.as_ref().map(|intermediary| intermediary.part());
        outgoing.chain(incoming).chain(staged).max().unwrap_or(Part::Over)
    }

    fn tell_what_came_of_it(&self, tell: fn(&str)) {
        for (session, outgoing) in &self.outgoing {
            if outgoing.part() != Part::Over {
                tell(&format!("session {session}: given up: its destination was not to be reached"));
            }
        }
        let lost = self.reception.as_ref().map(Reception::give_up).unwrap_or_default();
        for (vm, missing) in &lost {
            tell(&format!("guest {vm}: lost with {missing} pages that nobody has"));
        }
        for vm in self.guests.present() {
            if lost.iter().any(|(gone, _)| *gone == vm) {
                continue;
            }
            tell(&match self.compare(vm) {
                Ok(report) => format!("guest {vm}: {} of {} pages are wrong", report.wrong, report.pages),
                Err(error) => format!("guest {vm}: {error}"),
            });
        }
    }
}
