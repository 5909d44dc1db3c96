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

use super::memory::Content;

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
}

#[derive(Clone, Debug)]
pub(crate) enum Order {
    Reserve,
    Prepare,
    /// The state of the CPUs.
    State(u64),
    Discard(Vec<PageIndex>),
    Resume,
    /// Promise never to carry out the resume of this id, unless that has been done.
    Fence(CmdId),
    Redirect,
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
