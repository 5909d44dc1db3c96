//! What a coordinator and its agents say to each other, in [frames](crate::wire).

use crate::traffic::Flow;
use crate::verify::Report;
use crate::wire::auth::Key;
use crate::wire::dial::Way;
use livemig_core::conductor::Remainder;
use livemig_core::ledger::Observation;
use livemig_core::strategy::{Spec, Technique};
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_core::vocabulary::Peer;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What a coordinator says to a standing agent before anything else.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {}

/// What a standing agent answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// An agent's process is being started; what follows is with it.
    In,
    /// It serves another coordinator, or still clears away after one.
    Busy,
    /// Why not.
    Refused(String),
}

/// To an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToAgent {
    /// What is your time?
    Clock,
    /// The coordinator's clock is so many nanoseconds ahead of yours.
    SetClock { offset: i64 },
    /// Make this guest, fill its memory and start it. With `windows` whoever sends its pages maps them task by task.
    Host { vm: u32, spec: Vec<u8>, windows: bool },
    /// Take guests in, and keep pages of others: listen at this address for whoever knows the key, within these limits.
    Listen { address: SocketAddr, key: Key, limits: Limits },
    /// Get ready to migrate a guest.
    Migrate(Box<Migrate>),
    /// The migration will be requested later.
    Prepare { session: u32 },
    /// The migration is requested: t0.
    Request { session: u32 },
    /// The migration is not wanted any more.
    Cancel { session: u32 },
    /// A host has failed for good.
    PeerDead { session: u32, peer: Peer },
    /// The source of this session is gone: whatever is missing is lost, and perhaps the guest whatever is missing.
    SourceDead { session: u32, lost: bool },
    /// The source of this session is free, or was before it went: go on with what is left, unless that is being done already.
    GoOn { session: u32, remainder: Remainder },
    /// An intermediary of this session is gone, with all that it had.
    StageDead { session: u32, via: u16 },
    /// Nobody will fetch what is kept here of this session.
    Unstage { session: u32 },
    /// The migration may send so much at most, whatever its strategy says.
    Allow { session: u32, rate: Rate },
    /// The cables of the host at this address, or of this one, are pulled or plugged in again.
    Cables { of: Option<IpAddr>, pulled: bool },
    /// The guest's load changes: it goes to this phase, wherever it is or comes to.
    Load { vm: u32, phase: usize },
    /// The guest's longest gap since it was last asked for.
    TakeGap { vm: u32 },
    /// Stop the guest and compare every byte of its memory.
    Verify { vm: u32 },
    /// Drop the guest.
    Forget { vm: u32 },
    /// The technique of a migration has been chosen.
    Selected { session: u32, technique: Technique },
    /// This flow begins at this host from now on, if it did not, and goes where this says.
    OpenFlow(Box<Flow>),
    /// It does not begin here any more.
    CloseFlow { flow: u32 },
    /// Nothing of this run is needed any more.
    Leave,
}

/// What a host has for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Memory for all guests together; `None` for no limit.
    pub(crate) room: Option<Bytes>,
    /// Memory for pages that are kept for others.
    pub(crate) stage: Option<Bytes>,
    /// Bytes per second of migrations that it takes in as a destination.
    pub(crate) reception: Option<Rate>,
    /// Bytes per second that it takes in and hands out as an intermediary, together.
    pub(crate) service: Option<Rate>,
}

/// A migration to make.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Migrate {
    pub(crate) session: u32,
    pub(crate) vm: u32,
    pub(crate) spec: Spec,
    /// Connections are spread over these; never empty.
    pub(crate) ways: Vec<Way>,
    pub(crate) key: Key,
    /// Where intermediaries are, as seen from the source and from the destination.
    pub(crate) via: Vec<(Way, Way)>,
}

/// From an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromAgent {
    /// Its monotonic clock.
    Clock { local: u64 },
    /// What was asked for is done.
    Done,
    /// It listens here.
    Listening { address: SocketAddr },
    /// What was asked for cannot be done.
    Failed { why: String },
    /// Something has happened in a migration.
    Record { session: u32, record: Record },
    /// A migration has ended: nothing more of it comes.
    Ended { session: u32 },
    /// The migration goes on at its destination, and nothing more of it comes from here.
    HandedOver { session: u32 },
    /// How many steps the guest had made at this time, all vCPUs together, and how many it would make per second at full speed.
    Sample { vm: u32, at: Time, steps: u64, offered: f64 },
    /// The guest has waited this long for each of these pages.
    Stalls { session: u32, stalls: Vec<Span> },
    /// The guest's longest gap.
    Gap { gap: Span },
    /// The comparison.
    Verified { report: Report },
    /// The guest of a session whose source is gone has been stopped: so many of its pages are lost.
    Lost { session: u32, missing: u64 },
    /// Something that is worth a warning.
    Warning { text: String },
    /// Still here.
    Alive,
    /// So many bytes of these flows have come to this host until now.
    Arrived { at: Time, flows: Vec<(u32, u64)> },
}

/// What went in and out of a migration, encoded by postcard, so that it can be compared byte by byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The migration was told this.
    Event { at: Time, event: Vec<u8> },
    /// It was told that time has passed.
    Wake { at: Time },
    /// It ordered this.
    Command { id: u32, command: Vec<u8> },
    /// The driver has measured this.
    Observed(Observation),
}
