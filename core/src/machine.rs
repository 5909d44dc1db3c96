//! The contract between a migration and its driver.
//!
//! A driver calls [`Migration::handle`] with every event, then [`Migration::poll`] until it returns `None`, carries the
//! commands out and reports their completions as events. It calls `handle` again, at the latest, at the time that
//! [`Migration::deadline`] names, with [`Migration::wake`] when nothing else happened. Nothing in here reads a clock.

use crate::pages::PageSet;
use crate::units::Time;
use crate::vocabulary::{CmdId, Command, Event, Peer};
use serde::{Deserialize, Serialize};

/// One migration of one VM: told what happened, it says what to do.
pub trait Migration<P: PageSet> {
    /// Takes note of an event.
    ///
    /// # Errors
    /// When a peer did what the protocol excludes. The migration is then unchanged and may be cancelled.
    ///
    /// # Panics
    /// When the completion is of a command that is not outstanding: a defect of the driver, which is our own process.
    fn handle(&mut self, now: Time, event: Event<P>) -> Result<(), PeerError>;

    /// Takes note that time has passed.
    fn wake(&mut self, now: Time);

    /// The next command, if there is one.
    fn poll(&mut self) -> Option<(CmdId, Command<P>)>;

    /// Wake me no later than this.
    fn deadline(&self) -> Option<Time>;

    /// What the migration is doing.
    fn phase(&self) -> Phase;

    /// How it ended, once it has.
    fn ending(&self) -> Option<Ending>;
}

/// What a migration is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing yet.
    Waiting,
    /// Reserving room, opening channels, starting to track writes.
    Preparation,
    /// Sending memory before the request.
    Snapshots,
    /// Rounds of copying while the guest runs at the source.
    LiveCopy,
    /// The guest stands still: the rest of its memory, its state, its start.
    Switch,
    /// The guest runs at the destination while the source pushes what is missing.
    Push,
    /// The destination fetches what intermediaries stage.
    Gather,
    /// The source is being freed.
    Release,
    /// Going back to where everything began.
    Rollback,
    /// Over.
    Ended,
}

impl Phase {
    /// The phase's name in tables, files and charts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Preparation => "preparation",
            Phase::Snapshots => "snapshots",
            Phase::LiveCopy => "live copy",
            Phase::Switch => "switch",
            Phase::Push => "push",
            Phase::Gather => "gather",
            Phase::Release => "release",
            Phase::Rollback => "rollback",
            Phase::Ended => "ended",
        }
    }
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What became of the VM.
    pub outcome: Outcome,
    /// Whether the stop rule was met, rather than a cap, a stall or a timeout; true where there is no rule to meet.
    pub converged: bool,
}

/// What became of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The VM is at the destination and depends on no other host.
    Completed,
    /// The migration was given up; the VM runs at the source.
    Aborted,
    /// The migration was called off; the VM runs at the source.
    Cancelled,
    /// The VM is gone.
    Lost,
    /// The destination may or may not have started the VM; the source has stopped it and does not start it again.
    Undecided,
    /// The observation ended first.
    Unfinished,
}

impl Outcome {
    /// The outcome's name in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Aborted => "aborted",
            Outcome::Cancelled => "cancelled",
            Outcome::Lost => "lost",
            Outcome::Undecided => "undecided",
            Outcome::Unfinished => "unfinished",
        }
    }
}

/// What a peer did that the protocol excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// An answer of the wrong kind.
    #[error("phase {}: command {} was answered with something that is no answer to it", .phase.name(), .id.0)]
    WrongReply {
        /// The command.
        id: CmdId,
        /// The phase at the time.
        phase: Phase,
    },
    /// An event about an intermediary that the migration does not use.
    #[error("phase {}: {peer:?} takes no part in this migration", .phase.name())]
    UnknownPeer {
        /// Who.
        peer: Peer,
        /// The phase at the time.
        phase: Phase,
    },
    /// A cancel that comes too late, or a request that comes twice.
    #[error("phase {}: too late", .phase.name())]
    TooLate {
        /// The phase at the time.
        phase: Phase,
    },
}
