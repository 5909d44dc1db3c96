//! Messages between source and destination.

use super::dial::Way;
use livemig_core::conductor::Remainder;
use livemig_core::pages::Bitmap;
use livemig_core::units::{Rate, Time};
use serde::{Deserialize, Serialize};

/// Most streams of a migration.
pub(crate) const MAX_STREAMS: u16 = 64;

/// Everything but pages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// To the destination, on the control connection: something to do. It is given again on a new connection until it is answered.
    Order { id: u32, order: Order },
    /// To the source, on the control connection: what came of an order.
    Answer { id: u32, answer: Answer },
    /// To the source: the pages of the frame with this number, on the same connection, have been applied.
    Ack { seq: u32 },
    /// To the source, on the fault connection: the guest waits for a page.
    Ask { page: u64 },
    /// In both directions, on the control connection: still here.
    Ping,
}

/// What the destination is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make a guest of this specification, stopped, over empty memory. Of its pages some may be fetched from intermediaries, by
    /// number, at these addresses.
    Reserve { vm: u32, spec: Vec<u8>, via: Vec<Way> },
    /// Be ready for pages.
    Prepare,
    /// Load this state of the vCPUs.
    State { state: Vec<u8>, saved_at: Time },
    /// Drop these pages; access to what is missing waits from now on.
    Discard { pages: Bitmap },
    /// Start the guest; with `faults`, access to missing pages waits and is asked for.
    Resume { faults: bool },
    /// These pages (the first of neighbouring ones, and how many) are staged at each of these intermediaries; any other version of
    /// them is old. Given after the guest has stopped at the source, so that there is one version of each.
    Locate { via: Vec<u16>, runs: Vec<(u64, u64)> },
    /// Ask the source for no more pages: what is staged is asked for at intermediaries.
    Redirect,
    /// Ask the source again for what nobody else has.
    Serve,
    /// Fetch what is staged, at most this fast; answered by `Done` when it has begun, and by `Gathered` when everything is here.
    Gather { limit: Option<Rate> },
    /// The source is free: go on with the rest of the migration without it.
    GoOn { remainder: Remainder },
    /// Drop everything.
    Abort,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// There is no room, or it cannot be done; why.
    Refused(String),
    /// To `Resume`: the guest has started, and its step counters had advanced at this time on the coordinator's clock.
    Started { at: Time },
    /// To `Resume`: the guest has not started and will not in this session.
    Never,
    /// To `Redirect`: when the last page came, on the coordinator's clock, and how many pages are neither here nor staged
    /// (none, or something is wrong).
    Whole { at: Time, missing: u64 },
    /// To `Gather`: when the last page came, on the coordinator's clock.
    Gathered { at: Time },
}
