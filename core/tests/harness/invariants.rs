//! What must hold after every step, and at the end.

use livemig_core::ledger::Metrics;
use livemig_core::machine::{Ending, Migration, Outcome, Phase};
use livemig_core::units::{Bytes, PageIndex, Span, Time};
use livemig_core::vocabulary::Side;

use super::intermediary::{Intermediary, ViaState};
use super::memory::{index, version};
use super::places::Place;
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
        self.check_another();
    }

    /// What another VM has at intermediaries stays there until it needs it no more.
    fn check_another(&mut self) {
        if let Some((via, page)) = (0..).zip(&self.vias).find_map(|(via, host)| Some((via, host.lost_of_another()?))) {
            self.broken(format!("intermediary {via} has lost page {} of another VM", page.0));
        }
    }

    /// The newest version of the page is in a live, known place, nobody presents an older one as the newest, and if the
    /// destination lacks it, somebody is responsible for sending it, or has it for the destination to fetch.
    fn check_page(&mut self, page: PageIndex) {
        if self.guest_died || self.dead == Some(Side::Destination) || self.violation.is_some() {
            return;
        }
        let source_lives = self.dead.is_none();
        let newest = self.ideal[index(page)];
        let source = self.source.memory.get(page).expect("the source forgets nothing");
        let destination = self.destination.memory.get(page);
        if self.destination.started.is_none() {
            if source_lives && source != newest {
                self.broken(format!("the source has version {} of page {}, not {}", version(source), page.0, version(newest)));
            }
            let lacking = destination != Some(newest);
            let promised = source_lives && !self.run.aborting && self.destination.holds && self.source.tracker.tracking();
            if lacking && promised && !self.is_accounted_for(page) {
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
        } else if let Some(place) = self.destination.places.get(page) {
            self.check_place(page, place);
        } else if self.source.released && source_lives {
            self.broken(format!("page {} is missing at the destination, and the source is released", page.0));
        } else if source_lives && source != newest {
            self.broken(format!("nobody has the newest version of page {}", page.0));
        } else if source_lives && self.phase() != Phase::Ended && !self.is_responsible(page) && !self.is_staged(page) {
            self.broken(format!("page {} is missing at the destination, and nobody will send it", page.0));
        }
    }

    /// The destination lacks a page of the running guest, and knows where it is.
    fn check_place(&mut self, page: PageIndex, place: Place) {
        let newest = self.ideal[index(page)];
        let mut held = false;
        for via in place.holders.iter() {
            let host = &self.vias[usize::from(via)];
            if host.state == ViaState::Dead {
                continue;
            }
            held = true;
            match host.get(page) {
                Some((frame, content)) if frame >= place.frame && content == newest => {}
                Some((_, content)) => {
                    let (old, new) = (version(content), version(newest));
                    self.broken(format!("the destination would fetch version {old} of page {}, not {new}", page.0));
                }
                None => self.broken(format!("page {} is not where the destination believes it is", page.0)),
            }
        }
        // Every intermediary that had it has failed. As long as the source has it, it will be sent once more.
        let safe = self.source.released || self.dead.is_some() || self.phase() == Phase::Ended;
        if !held && !safe && !self.is_responsible(page) && !self.is_staged(page) {
            self.broken(format!("page {} is gone with an intermediary, and nobody will send it", page.0));
        }
    }

    /// Whether the source knows of an intermediary that has the newest version, or will take the page back from one that has failed.
    fn is_staged(&self, page: PageIndex) -> bool {
        let newest = self.ideal[index(page)];
        let places = &self.source.places;
        let kept = |via: u16| self.vias[usize::from(via)].get(page).is_some_and(|(_, content)| content == newest);
        places.is_lost(page) || places.get(page).is_some_and(|place| place.holders.iter().any(kept))
    }

    fn is_accounted_for(&self, page: PageIndex) -> bool {
        self.source.tracker.is_dirty(page) || self.is_responsible(page) || self.is_staged(page)
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
        if self.destination.started.is_none() {
            self.broken("the source is released before the guest has started at the destination".into());
        }
        let lacking: Vec<PageIndex> = self.lacking().filter(|&page| self.destination.places.get(page).is_none()).collect();
        if let Some(page) = lacking.first() {
            let count = lacking.len();
            self.broken(format!("the source is released while {count} pages are nowhere else, such as page {}", page.0));
        }
        self.check_all_pages();
    }

    /// The machine wants the source released: every page is at the destination, or at an intermediary of which the machine does not
    /// know that it has failed.
    pub(crate) fn check_release_order(&mut self) {
        let known_dead = &self.run.known_dead;
        let lost = self.lacking().find(|&page| {
            let place = self.destination.places.get(page);
            place.is_none_or(|place| place.holders.iter().all(|via| known_dead.contains(&via)))
        });
        if let Some(page) = lost.filter(|_| !self.guest_died && self.dead.is_none()) {
            self.broken(format!("the source is to be released, and nobody else is known to have page {}", page.0));
        }
    }

    fn lacking(&self) -> impl Iterator<Item = PageIndex> {
        (0..self.guest.pages()).map(PageIndex).filter(|&page| self.destination.memory.get(page).is_none())
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
        self.check_another();
    }

    /// The ledger has seen what the harness has seen.
    fn check_metrics(&mut self, outcome: Outcome) {
        let metrics = self.run.conductor.finish(self.now);
        let Metrics { bytes, downtime, .. } = &metrics;
        let pages = bytes.snapshot + bytes.first + bytes.resent + bytes.demand + bytes.disk;
        let parts = downtime.map_or(Span::ZERO, |d| d.memory + d.state + d.activation);
        let completed = outcome == Outcome::Completed;
        let lasted = self.now - Time::ZERO;
        let gathered = bytes.gathered;
        let wrong = if metrics.outcome != outcome {
            Some("the outcome")
        } else if pages != Bytes(self.source.wire) {
            Some("the bytes of pages")
        } else if gathered != Bytes(self.destination.gathered) {
            Some("the bytes gathered")
        } else if metrics.bytes_deduplicated != Bytes(self.source.deduplicated) {
            Some("the bytes that intermediaries had")
        } else if metrics.bytes_lost != self.run.lost {
            Some("the bytes lost")
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
        self.check_freed();
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
        self.check_freed();
    }

    /// Intermediaries keep nothing of a migration that has ended undisturbed.
    fn check_freed(&mut self) {
        let kept: u64 = self.vias.iter().map(Intermediary::pages).sum();
        if kept > 0 && !self.run.disturbed {
            self.broken(format!("intermediaries keep {kept} pages of a migration that is over"));
        }
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
            Some(Side::Destination) => self.destination.memory.present() == self.guest.pages(),
            // A guest that has come to run at the destination is gone with it, or with pages that it says are lost.
            None if self.destination.started.is_some() => self.dead != Some(Side::Destination) && !self.run.pages_lost,
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
