//! What must hold after every step, and at the end.

use livemig_core::ledger::Metrics;
use livemig_core::machine::{Ending, Migration, Outcome, Phase};
use livemig_core::units::{Bytes, PageIndex, Span, Time};
use livemig_core::vocabulary::Side;

use super::memory::{index, version};
use super::world::World;

/// Up to this many pages are all checked after every step; of larger memories, those that the step has touched.
const SMALL: u64 = 8;

impl World {
    pub(crate) fn check_step(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        if self.guest.pages() <= SMALL {
            self.check_all_pages();
        } else {
            touched.iter().for_each(|&page| self.check_page(page));
        }
        if self.coverage.saw_phase(self.phase()) {
            self.check_all_pages();
        }
    }

    pub(crate) fn check_all_pages(&mut self) {
        (0..self.guest.pages()).for_each(|page| self.check_page(PageIndex(page)));
    }

    /// The newest version of the page is in a live, known place, nobody presents an older one as the newest, and if the
    /// destination lacks it, somebody is responsible for sending it.
    fn check_page(&mut self, page: PageIndex) {
        if self.guest_died || self.dead.is_some() || self.violation.is_some() {
            return;
        }
        let newest = self.ideal[index(page)];
        let source = self.source.memory.get(page).expect("the source forgets nothing");
        let destination = self.destination.memory.get(page);
        if self.destination.started.is_none() {
            if source != newest {
                self.broken(format!("the source has version {} of page {}, not {}", version(source), page.0, version(newest)));
            }
            let lacking = destination != Some(newest);
            if lacking && self.destination.holds && self.source.tracker.tracking() && !self.is_accounted_for(page) {
                self.broken(format!("nobody will send page {}", page.0));
            }
        } else if let Some(content) = destination {
            if content != newest {
                self.broken(format!(
                    "the destination presents version {} of page {}, not {}",
                    version(content),
                    page.0,
                    version(newest)
                ));
            }
        } else if self.source.released {
            self.broken(format!("page {} is missing at the destination, and the source is released", page.0));
        } else if source != newest {
            self.broken(format!("nobody has the newest version of page {}", page.0));
        } else if self.phase() != Phase::Ended && !self.is_responsible(page) {
            self.broken(format!("page {} is missing at the destination, and nobody will send it", page.0));
        }
    }

    fn is_accounted_for(&self, page: PageIndex) -> bool {
        self.source.tracker.is_dirty(page) || self.is_responsible(page)
    }

    fn is_responsible(&self, page: PageIndex) -> bool {
        self.source.hands[index(page)] > 0 || self.source.sends.iter().any(|s| s.holds(page))
    }

    pub(crate) fn check_source_may_run(&mut self) {
        if self.run.resume_issued && !(self.run.never_proven && self.destination.never) {
            self.broken("the source starts the guest although the destination may have started it".into());
        }
        if self.guest.runs_at.is_some() {
            self.broken("the guest is started at the source while it runs".into());
        }
    }

    /// The destination has been told to start the guest, and has.
    pub(crate) fn guest_starts_at_destination(&mut self) {
        if let Some(side) = self.guest.runs_at {
            self.broken(format!("the guest starts at the destination while it runs at the {side:?}"));
        }
        if self.destination.started != Some(self.guest.steps) {
            self.broken("the destination starts the guest without the newest state of its CPUs".into());
        }
        let missing = self.guest.pages() - self.destination.memory.present();
        if missing > 0 && !self.source.serving {
            self.broken(format!("the guest starts with {missing} pages missing, and nobody answers requests for them"));
        }
        self.start_guest(Side::Destination);
        self.check_all_pages();
    }

    /// The source is about to forget the guest.
    pub(crate) fn check_release(&mut self) {
        let missing = self.guest.pages() - self.destination.memory.present();
        if missing > 0 || self.destination.started.is_none() {
            self.broken(format!("the source is released while {missing} pages are missing at the destination"));
        }
        self.check_all_pages();
    }

    /// Nothing happens any more.
    pub(crate) fn check_end(&mut self) {
        let Some(Ending { outcome, .. }) = self.run.conductor.ending() else {
            let outstanding = self.run.outstanding.clone();
            self.broken(format!("the migration hangs in phase {}; outstanding: {outstanding:?}", self.phase().name()));
            return;
        };
        if !self.run.outstanding.is_empty() {
            let outstanding = self.run.outstanding.clone();
            self.broken(format!("the migration has ended with commands outstanding: {outstanding:?}"));
        }
        match outcome {
            Outcome::Completed => self.check_completed(),
            Outcome::Aborted | Outcome::Cancelled => self.check_back_at_source(outcome),
            Outcome::Undecided => self.check_undecided(),
            Outcome::Lost => self.check_lost(),
            Outcome::Unfinished => self.broken("only an observer finds a migration unfinished".into()),
        }
        if self.run.cancelled && outcome == Outcome::Completed {
            self.broken("a cancelled migration has completed".into());
        }
        self.check_metrics(outcome);
    }

    /// The ledger has seen what the harness has seen.
    fn check_metrics(&mut self, outcome: Outcome) {
        let metrics = self.run.conductor.finish(self.now);
        let Metrics { bytes, downtime, .. } = &metrics;
        let pages = bytes.snapshot + bytes.first + bytes.resent + bytes.demand + bytes.disk;
        let parts = downtime.map_or(Span::ZERO, |d| d.memory + d.state + d.activation);
        let completed = outcome == Outcome::Completed;
        let lasted = self.now - Time::ZERO;
        let wrong = if metrics.outcome != outcome {
            Some("the outcome")
        } else if pages != Bytes(self.source.wire) {
            Some("the bytes of pages")
        } else if completed && metrics.total_migration_time.is_none() {
            Some("the total migration time")
        } else if completed && (downtime.is_none() || (self.dead.is_none() && metrics.eviction_time.is_none())) {
            Some("the downtime or the eviction time")
        } else if downtime.is_some_and(|d| d.total != parts || d.total > lasted) {
            Some("the parts of the downtime")
        } else if metrics.total_migration_time.zip(downtime.as_ref()).is_some_and(|(total, down)| total < down.total) {
            Some("the total migration time or the downtime")
        } else {
            None
        };
        if let Some(what) = wrong {
            let wire = self.source.wire;
            self.broken(format!("the ledger is wrong about {what}; {wire} bytes of pages were sent; {metrics:?}"));
        }
    }

    fn check_completed(&mut self) {
        if self.dead == Some(Side::Destination) {
            // It failed after the end, or too late for the machine to hear of it before.
            return;
        }
        if self.guest.runs_at != Some(Side::Destination) {
            self.broken("the migration has completed, and the guest does not run at the destination".into());
        }
        self.check_memory(Side::Destination);
        if let Some(vcpu) = self.guest.blocked.iter().position(Option::is_some) {
            self.broken(format!("vCPU {vcpu} waits for a page for ever"));
        }
    }

    fn check_back_at_source(&mut self, outcome: Outcome) {
        if self.dead == Some(Side::Source) {
            return;
        }
        if self.guest.runs_at != Some(Side::Source) {
            self.broken(format!("the migration is {}, and the guest does not run at the source", outcome.name()));
        }
        if self.guest.share != livemig_core::units::Share::FULL {
            self.broken(format!("the migration is {}, and the guest is still throttled", outcome.name()));
        }
        if self.dead.is_none() && !self.run.abort_failed && self.destination.holds {
            self.broken(format!("the migration is {}, and the destination has not been freed", outcome.name()));
        }
        self.check_memory(Side::Source);
    }

    fn check_undecided(&mut self) {
        if !self.run.resume_issued {
            self.broken("undecided before Resume was issued".into());
        }
        if self.guest.runs_at == Some(Side::Source) {
            self.broken("the source runs a guest that the destination may have started".into());
        }
        self.check_all_pages();
    }

    fn check_lost(&mut self) {
        let safe = match self.guest.runs_at {
            Some(Side::Source) => true,
            Some(Side::Destination) => self.run.told_all_sent && self.destination.memory.present() == self.guest.pages(),
            None => self.dead.is_none(),
        };
        if safe {
            self.broken("the guest is given up for lost, and is not".into());
        }
    }

    fn check_memory(&mut self, side: Side) {
        for page in (0..self.guest.pages()).map(PageIndex) {
            let memory = if side == Side::Source { &self.source.memory } else { &self.destination.memory };
            if memory.get(page) != Some(self.ideal[index(page)]) {
                self.broken(format!("at the end page {} at the {side:?} is wrong", page.0));
            }
        }
    }
}
