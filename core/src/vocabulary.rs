//! What a migration and its driver say to each other.
//!
//! A [`Command`] carries an id and gets exactly one completion: [`Event::Done`], [`Event::Failed`] or [`Event::Recalled`].
//! Completions may come in any order, in every state, also after a cancel. Page sets are linear: a set that goes out in a
//! command either has arrived when the command is done, or comes back in its completion.

use crate::strategy::Technique;
use crate::tasks::TaskSizes;
use crate::units::{Bytes, Rate, Share, Span, Time};
use serde::{Deserialize, Serialize};

/// Names one command of one migration. Ids grow by one with each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CmdId(pub u32);

/// A host that takes part in a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// The host that the VM leaves.
    Source,
    /// The host that the VM goes to.
    Destination,
    /// The host with this number in the migration's list of intermediaries.
    Intermediary(u16),
}

/// One of the two hosts that can execute the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The host that the VM leaves.
    Source,
    /// The host that the VM goes to.
    Destination,
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Region {
    /// Guest memory.
    Memory,
    /// Guest disk.
    Disk,
}

/// The ways by which a [`Command::Send`] may go. The driver's sender fills them in this order, as far as each takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Straight to the destination.
    pub direct: bool,
    /// Through these intermediaries, which keep what they get until the destination gathers it.
    pub via: Vec<u16>,
    /// How many intermediaries store each page that does not go directly (at least 1 when `via` is not empty).
    pub copies: u16,
    /// Intermediaries are asked for each page, by its content, whether they have it; what they have is not sent ([`crate::dedup`]).
    pub dedup: bool,
}

impl Routes {
    /// Straight to the destination and no other way.
    #[must_use]
    pub fn direct() -> Routes {
        Routes { direct: true, via: Vec::new(), copies: 0, dedup: false }
    }
}

/// How the channels between source and destination are made and served. How many connections there are is said with each
/// [`Send`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Over how many network interfaces of each host the connections are spread; `None` for as many as there are.
    pub nics: Option<u16>,
    /// How many threads handle pages at each end; `None` for one per connection.
    pub threads: Option<u16>,
    /// Threads that map guest memory lock the range that they map, and not the whole address space (Song et al., VEE 2013).
    pub range_lock: bool,
    /// Each stage that a page passes through at an end has `threads` of its own, so that stages of different pages overlap; without,
    /// a thread takes its pages through all of them.
    pub pipeline: bool,
    /// Each connection takes its pages in tasks of these sizes; without, whichever has room takes the next ones.
    pub tasks: Option<TaskSizes>,
    /// Pages are compressed one by one.
    pub compress: bool,
    /// Pages are encrypted.
    pub encrypt: bool,
}

/// Why pages are sent; the ledger counts bytes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SendClass {
    /// Each page for the first time since the request.
    First,
    /// Pages that were sent before and written again.
    Resend,
    /// Proactively, before the request.
    Snapshot,
}

/// The order in which a sender takes pages that the destination may ask for at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prepaging {
    /// Ascending addresses (active push without prepaging).
    #[default]
    AddressOrder,
    /// Bubbles that grow around the last `pivots` faults (Hines and Gopalan, VEE 2009).
    Bubbling {
        /// How many pivots are kept; at least 1.
        pivots: u16,
    },
}

/// Pages to send. Pages that the guest asks for through [`Command::ServeFaults`] are sent first, out of whichever outstanding
/// send holds them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Send<P> {
    /// The pages.
    pub set: P,
    /// Memory or disk.
    pub region: Region,
    /// The ways they may go.
    pub routes: Routes,
    /// How many parallel connections carry them.
    pub streams: u16,
    /// Why they are sent.
    pub class: SendClass,
    /// The round of live copy that this is, from 0; the stopped round counts on.
    pub round: u32,
    /// Leave out pages that are found dirty again when their turn comes: they stay with the dirty tracker.
    pub skip_redirtied: bool,
    /// The order in which pages go.
    pub order: Prepaging,
}

impl<P> Send<P> {
    /// Whether these pages go for the first time, so that the receiver has no older version of them.
    #[must_use]
    pub fn is_first_copy(&self) -> bool {
        match self.class {
            SendClass::First => true,
            SendClass::Resend => false,
            SendClass::Snapshot => self.round == 0,
        }
    }
}

/// When a [`Command::Watch`] ends. The driver evaluates it every `every`, counted from the command.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The send that is watched.
    pub send: CmdId,
    /// The interval of evaluation; also the window over which the rate is measured.
    pub every: Span,
    /// End when what is pending could be sent in this time: pending <= rate x limit.
    pub below: Option<Span>,
    /// End when the least pending seen so far has not improved for a time.
    pub stall: Option<Stall>,
}

/// The progress that stall detection remembers from watch to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// How long without improvement is a stall.
    pub patience: Span,
    /// The least pending seen so far.
    pub best: Bytes,
    /// When it was seen.
    pub since: Time,
}

/// What a migration wants done.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command<P> {
    /// Ask the destination and the intermediaries for room.
    Reserve {
        /// Bytes of memory that the destination must take.
        memory: Bytes,
        /// Bytes of disk that the destination must take; zero for a VM whose disk is not moved.
        disk: Bytes,
        /// Hosts that stage pages.
        intermediaries: Vec<u16>,
    },
    /// Open the channels and start tracking writes; from now on every page counts as dirty until it is collected.
    Prepare {
        /// Send pages of zeros as a mark.
        elide_zero_pages: bool,
        /// How the channels are made and served.
        channels: Channels,
    },
    /// Count the dirty pages and clear nothing.
    PeekDirty {
        /// Memory or disk.
        region: Region,
    },
    /// Take dirty pages out of the tracker, which counts them as clean from then on.
    Collect {
        /// Memory or disk.
        region: Region,
        /// At most this much, going on round-robin in address order where the last limited collection ended.
        limit: Option<Bytes>,
        /// Add them to this outstanding send instead of handing them over; pages that the send still holds are not added twice.
        /// When the send is over, they are handed over.
        into: Option<CmdId>,
    },
    /// Give pages back to the tracker: they count as dirty again.
    ReturnDirty {
        /// Memory or disk.
        region: Region,
        /// The pages.
        set: P,
    },
    /// Send pages; done when every receiver has acknowledged them.
    Send(Send<P>),
    /// Stop a send, a watch or a gathering as soon as possible. The target completes as recalled, or as done when it was faster.
    Recall {
        /// The target.
        of: CmdId,
    },
    /// Limit the migration's sending rate; `None` lifts the limit.
    SetRate {
        /// Bytes per second over all streams.
        limit: Option<Rate>,
    },
    /// Let the vCPUs run for this share of the time.
    Throttle {
        /// The share.
        share: Share,
    },
    /// Stop the guest at the source.
    Pause,
    /// Send CPU and device state; done when the destination has acknowledged it.
    SendState,
    /// Tell the destination which pages it holds in an old version, so that it drops them before it resumes.
    DiscardStale {
        /// The pages; they come back in [`Reply::Discarded`].
        set: P,
    },
    /// Start the guest. After `Resume` at the destination is issued the source is fenced.
    Resume {
        /// Where.
        side: Side,
    },
    /// Answer the destination's page requests from now on.
    ServeFaults,
    /// Let the destination ask the source no more; done when every request that reached the source is answered and the
    /// destination has acknowledged where each staged page is.
    RedirectFaults,
    /// Take back what is staged at an intermediary that is gone or is not to be used any more.
    Reclaim {
        /// Which one.
        via: u16,
    },
    /// Let the destination fetch what the intermediaries stage: also what is staged from now on, in the order announced. Done when the
    /// destination has everything, which cannot be before [`Command::RedirectFaults`] is done or the source has failed; fails with
    /// [`Failure::PagesLost`] when the destination misses pages that nobody has any more: an intermediary that alone had them dies after the
    /// source was released, or the source itself, before it was.
    Gather {
        /// At most this fast.
        limit: Option<Rate>,
    },
    /// Report when a condition on an outstanding send holds, or when that send ends.
    Watch(Watch),
    /// Free the source of the VM.
    Release,
    /// Free the destination and the intermediaries of the VM; nothing at the source changes.
    Abort,
}

impl<P> Command<P> {
    /// What is wanted, in words, without the details.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Reserve { .. } => "reserve",
            Command::Prepare { .. } => "prepare",
            Command::PeekDirty { .. } => "peek dirty",
            Command::Collect { .. } => "collect",
            Command::ReturnDirty { .. } => "return dirty",
            Command::Send(_) => "send",
            Command::Recall { .. } => "recall",
            Command::SetRate { .. } => "set rate",
            Command::Throttle { .. } => "throttle",
            Command::Pause => "pause",
            Command::SendState => "send state",
            Command::DiscardStale { .. } => "discard stale",
            Command::Resume { side: Side::Source } => "resume at source",
            Command::Resume { side: Side::Destination } => "resume at destination",
            Command::ServeFaults => "serve faults",
            Command::RedirectFaults => "redirect faults",
            Command::Reclaim { .. } => "reclaim",
            Command::Gather { .. } => "gather",
            Command::Watch(_) => "watch",
            Command::Release => "release",
            Command::Abort => "abort",
        }
    }
}

/// Why a [`Watch`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEnd {
    /// What is pending can be sent within the limit.
    Below,
    /// The best has not improved for the patience given.
    Stalled,
    /// The watched send is over.
    SendEnded,
}

/// What a [`Watch`] saw at its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Why it ended.
    pub end: WatchEnd,
    /// Bytes of the send not yet sent.
    pub pending: Bytes,
    /// Bytes per second over the last window.
    pub rate: Rate,
    /// The updated progress, when stalls are watched for.
    pub stall: Option<Stall>,
}

/// What was achieved by a command that is done.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply<P> {
    /// To `Reserve`: there is room.
    Reserved,
    /// To `Prepare`.
    Prepared,
    /// To `PeekDirty`: bytes of dirty pages.
    DirtyCount(Bytes),
    /// To `Collect` without `into`: the pages.
    Dirty(P),
    /// To `Collect` with `into`: the pages were added to the send.
    Joined(Joined),
    /// To `ReturnDirty`.
    Returned,
    /// To `Send`.
    Sent(Sent),
    /// To `Recall`: it was passed on (the target has a completion of its own).
    RecallNoted,
    /// To `SetRate`.
    RateSet,
    /// To `Throttle`.
    Throttled,
    /// To `Pause`: the guest stands still.
    Paused,
    /// To `SendState`.
    StateSent {
        /// Bytes on the wire.
        wire: Bytes,
    },
    /// To `DiscardStale`: dropped; here are the pages again.
    Discarded(P),
    /// To `Resume`.
    Resumed {
        /// When the step counter of every vCPU had advanced, on the driver's clock.
        at: Time,
    },
    /// To `ServeFaults`.
    ServingFaults,
    /// To `RedirectFaults`.
    FaultsRedirected {
        /// When the destination had everything that went to it directly, on the driver's clock.
        at: Time,
    },
    /// To `Reclaim`: the pages of which, outside of the source, only this intermediary had the newest version, and which the destination
    /// has not got.
    Reclaimed(P),
    /// To `Gather`.
    Gathered {
        /// When the destination had everything, on the driver's clock.
        at: Time,
    },
    /// To `Watch`.
    Watched(Watched),
    /// To `Release`.
    Released,
    /// To `Abort`.
    Aborted,
}

/// What a collection has added to an outstanding send, and how far that send had come. A new round begins here, and this is
/// what tells its bytes from those of the round before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Bytes of pages added.
    pub added: Bytes,
    /// Bytes of pages of the send not yet sent, the added ones included.
    pub pending: Bytes,
    /// What had gone out of the send since it was ordered.
    pub sent: Sent,
}

/// What became of a send, or of the part of it that went out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Bytes on the wire, demand included.
    pub wire: Bytes,
    /// Of these, bytes that the destination asked for.
    pub demand: Bytes,
    /// Bytes of pages left out because they were dirty again.
    pub skipped: Bytes,
    /// Bytes of pages that did not go because intermediaries had their content, counted once for each copy.
    pub deduplicated: Bytes,
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// The peer has no room or does not want to.
    #[error("{0:?} refused")]
    Refused(Peer),
    /// The peer is gone.
    #[error("{0:?} is unreachable")]
    Unreachable(Peer),
    /// The command was carried out nowhere; of `Resume`: the destination has proven that it never started the guest.
    #[error("never started")]
    NeverStarted,
    /// The answer is lost: it is not known whether the command was carried out.
    #[error("the answer is lost")]
    AnswerLost,
    /// Pages that nobody else had are gone with an intermediary, or with the source.
    #[error("{bytes} of pages are lost")]
    PagesLost {
        /// How much.
        bytes: Bytes,
    },
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event<P> {
    /// A migration will be requested later: prepare for it, if the strategy can.
    Prepare,
    /// How the VM is to be moved, where the strategy leaves that open: told before the request, by which without it the VM is
    /// pre-copied.
    Selected(Technique),
    /// The migration is requested: t0.
    Requested,
    /// The migration is not wanted any more; refused once `Resume` at the destination is issued.
    Cancel,
    /// A command is done.
    Done {
        /// Which.
        id: CmdId,
        /// What came of it.
        reply: Reply<P>,
    },
    /// A command has failed.
    Failed {
        /// Which.
        id: CmdId,
        /// Why.
        failure: Failure,
        /// Of a command with pages: what went out.
        sent: Sent,
        /// Of a command with pages: the pages that were not acknowledged; empty otherwise.
        unsent: P,
    },
    /// A command was recalled.
    Recalled {
        /// Which.
        id: CmdId,
        /// Of a send: what went out.
        sent: Sent,
        /// Of a send: the pages that were not acknowledged; empty otherwise.
        unsent: P,
    },
    /// An intermediary has no room for more. What it has it keeps. The driver says so before the completion of the send that the pages were
    /// part of: once that has come, the machine takes every page of the send for acknowledged.
    StageRefused {
        /// Which one.
        via: u16,
        /// Pages that have left their send and are the migration's again.
        set: P,
    },
    /// The link to a peer is cut; sends over it stand still.
    LinkLost(Peer),
    /// The link to a peer is back; sends go on.
    LinkRestored(Peer),
    /// A host has failed.
    PeerDead {
        /// Which one.
        peer: Peer,
        /// Whether it keeps its memory and will be back.
        recoverable: bool,
    },
}
