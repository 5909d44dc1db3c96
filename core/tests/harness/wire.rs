//! What source and destination say to each other.
//!
//! Every message carries the *session* (which migration of this VM it belongs to) and the *epoch* (how often the connections of
//! the session have been set up). The source begins a new epoch whenever it takes pages back that may still be on their way:
//! after a broken connection, or for a recall that cannot wait. The destination drops what is of an older epoch than the newest
//! it has seen, so that a page that was taken back and sent again in a newer version is never overwritten by the older one,
//! whatever the connections do.
//!
//! Orders are exempt, because they are numbered: an order that comes twice is answered twice and carried out once, and after an
//! abort none is carried out that comes late.

use livemig_core::units::PageIndex;
use livemig_core::vocabulary::CmdId;

use super::intermediary::Vias;
use super::memory::{Content, Hash};

/// A message with what fences it.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) session: u32,
    pub(crate) epoch: u32,
    pub(crate) message: Message,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// To the destination: a batch of pages. A page of zeros may be a mere mark.
    Pages(Batch),
    /// To the destination: something to do.
    Order { id: CmdId, order: Order },
    /// To the destination: a new epoch has begun.
    Hello,
    /// To the destination: where pages are staged that were sent in this frame.
    Locate(Location),
    /// To the source: the destination knows.
    Located { frame: u32 },
    /// To an intermediary: pages to keep.
    Stage(Batch),
    /// From an intermediary to the source: it keeps the pages of a frame, except these, for which it has no room, and these, of which it
    /// got only a hash and has no content.
    Stored { via: u16, frame: u32, refused: Vec<PageIndex>, unknown: Vec<PageIndex> },
    /// From the destination to an intermediary: the page is wanted.
    Fetch(PageIndex),
    /// From an intermediary to the destination: the newest version that it has, and the frame in which that came.
    Fetched { via: u16, page: PageIndex, frame: u32, content: Content },
    /// To an intermediary: nothing is needed any more.
    Free,
    /// To the source: a batch has been applied.
    Ack { frame: u32 },
    /// To the source: the guest waits for a page.
    Ask(PageIndex),
    /// To the source: no request comes after this one, which is the answer to an order.
    LastAsk { id: CmdId },
    /// To the source: an order has been carried out, or not.
    Answer { id: CmdId, answer: Answer },
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) frame: u32,
    /// The lane of its acknowledgement.
    pub(crate) lane: usize,
    pub(crate) pages: Vec<(PageIndex, Option<Content>)>,
    /// Of staged pages: equal contents are kept once.
    pub(crate) dedup: bool,
    /// Pages of which only the hash goes, to whoever may have the content.
    pub(crate) hashes: Vec<(PageIndex, Hash)>,
}

/// Pages, and who has them. Frames are numbered in the order in which the source reads pages, so that of two places of a page
/// the one with the higher frame has the newer version, whatever the connections do.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) frame: u32,
    pub(crate) pages: Vec<PageIndex>,
    pub(crate) holders: Vias,
}

#[derive(Clone, Debug)]
pub(crate) enum Order {
    Reserve,
    Prepare,
    /// The state of the CPUs.
    State(u64),
    /// Forget these pages: every version of a frame below this one.
    Discard {
        pages: Vec<PageIndex>,
        below: u32,
    },
    Resume,
    /// Promise never to carry out the resume of this id, unless that has been done.
    Fence(CmdId),
    Redirect,
    /// The source may be asked again.
    Serve,
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused,
    /// To `Resume` and `Fence`: the guest has started.
    Started,
    /// To `Resume` and `Fence`: the guest has not started and will not.
    Never,
}
