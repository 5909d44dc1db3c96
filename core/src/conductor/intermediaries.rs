//! Intermediaries: which of them the migration may use, and what becomes of pages that one of them refuses or takes with it.
//!
//! Nothing is given up here as long as the source has the page, which is until `Release` is ordered. Before the switch pages of
//! a failed intermediary are dirty again; after it they are sent once more. An intermediary that has no room keeps what it has.
//! With none left, pages go straight to the destination: eviction is then as slow as without intermediaries, and as safe.

use super::desk::Kind;
use super::{Conductor, State};
use crate::machine::{Migration, PeerError};
use crate::pages::PageSet;
use crate::units::Time;
use crate::vocabulary::{Command, Failure, Peer, Region, Routes};

/// The hosts that stage pages of a migration.
#[derive(Debug)]
pub(super) struct Intermediaries {
    /// All that take part.
    known: Vec<u16>,
    /// Those to which pages may go.
    usable: Vec<u16>,
    /// Those that are gone with pages which have not been taken back yet.
    lost: Vec<u16>,
}

impl Intermediaries {
    pub(super) fn new(known: Vec<u16>, used: bool) -> Intermediaries {
        let usable = if used { known.clone() } else { Vec::new() };
        Intermediaries { known, usable, lost: Vec::new() }
    }

    pub(super) fn are_none(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn usable(&self) -> &[u16] {
        &self.usable
    }

    fn exclude(&mut self, via: u16) {
        self.usable.retain(|&v| v != via);
    }
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn know(&self, via: u16) -> Result<(), PeerError> {
        if self.intermediaries.known.contains(&via) {
            Ok(())
        } else {
            Err(PeerError::UnknownPeer { peer: Peer::Intermediary(via), phase: self.phase() })
        }
    }

    /// The ways that pages of the current stage may go. A disk goes straight: it has to be there when the guest starts.
    pub(super) fn routes(&self, region: Region) -> Routes {
        if region == Region::Disk {
            return Routes::direct();
        }
        let usable = self.intermediaries.usable();
        let dedup = self.spec.transfer.dedup;
        let copies = |wanted: u16| wanted.min(u16::try_from(usable.len()).unwrap_or(u16::MAX));
        match &self.state {
            State::Snapshots(_) if self.stages_snapshots() => Routes { direct: false, via: usable.to_vec(), copies: 1, dedup },
            State::Push(pushing) => match pushing.push().scatter.filter(|_| !usable.is_empty()) {
                Some(s) => Routes { direct: s.direct, via: usable.to_vec(), copies: copies(s.copies), dedup },
                None => Routes::direct(),
            },
            State::Snapshots(_)
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Waiting
            | State::Preparation
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => Routes::direct(),
        }
    }

    fn stages_snapshots(&self) -> bool {
        self.spec.ahead.as_ref().is_some_and(|a| a.staging) && !self.intermediaries.usable().is_empty()
    }

    /// An intermediary has no room, or is not there: whether the reservation is tried without it.
    pub(super) fn reserve_without(&mut self, failure: Failure) -> bool {
        let via = match failure {
            Failure::Refused(Peer::Intermediary(via)) | Failure::Unreachable(Peer::Intermediary(via)) => via,
            Failure::Refused(_)
            | Failure::Unreachable(_)
            | Failure::NeverStarted
            | Failure::AnswerLost
            | Failure::PagesLost { .. } => return false,
        };
        let waits = matches!(self.state, State::Preparation);
        if waits {
            self.intermediaries.exclude(via);
            self.reserve();
        }
        waits
    }

    /// An intermediary has no room for pages of a send.
    pub(super) fn stage_refused(&mut self, now: Time, via: u16, set: P) -> Result<(), PeerError> {
        self.know(via)?;
        self.intermediaries.exclude(via);
        match &mut self.state {
            State::Push(pushing) => pushing.refused(set),
            State::Snapshots(_) | State::LiveCopy(_) | State::Switch(_) | State::Rollback(_) => {
                self.give_back(Region::Memory, set);
            }
            State::Waiting | State::Preparation | State::Release(_) | State::Gather(_) | State::Ended(_) => {}
        }
        self.advance(now);
        Ok(())
    }

    /// An intermediary is gone, or away for a while.
    pub(super) fn intermediary_dead(&mut self, via: u16, recoverable: bool) -> Result<(), PeerError> {
        self.know(via)?;
        if recoverable {
            return Ok(());
        }
        self.intermediaries.exclude(via);
        match &self.state {
            State::Snapshots(_) | State::LiveCopy(_) | State::Switch(_) | State::Push(_) => {
                self.intermediaries.lost.push(via);
                self.reclaim_next();
            }
            // Nothing is staged yet, or the source has everything anyway, or the destination says what is lost.
            State::Waiting | State::Preparation | State::Rollback(_) | State::Release(_) | State::Gather(_) | State::Ended(_) => {}
        }
        Ok(())
    }

    /// Takes back what a failed intermediary had, one after the other.
    pub(super) fn reclaim_next(&mut self) {
        if let Some(&via) = self.intermediaries.lost.first()
            && !self.desk.any_open(&[Kind::Reclaim])
        {
            self.desk.order(Command::Reclaim { via });
        }
    }

    /// The pages that only a failed intermediary had.
    pub(super) fn reclaimed(&mut self, set: P) {
        if !self.intermediaries.lost.is_empty() {
            self.intermediaries.lost.remove(0);
        }
        match &mut self.state {
            State::Push(pushing) => {
                if pushing.take_back(set) {
                    self.desk.order(Command::ServeFaults);
                }
            }
            State::Switch(_) => self.switch_reclaimed(set),
            State::Snapshots(_) | State::LiveCopy(_) | State::Rollback(_) => self.give_back(Region::Memory, set),
            // The source has failed since, and with it what it has taken back.
            State::Release(_) | State::Gather(_) => return,
            State::Waiting | State::Preparation | State::Ended(_) => {
                unreachable!("nothing is taken back in phase {}", self.phase().name())
            }
        }
        self.reclaim_next();
    }
}
