//! What a driver measures beside the events: a stream that the migrations never see.

use crate::units::{Bytes, Rate, Share, Span, Time};
use crate::vocabulary::{CmdId, Sent};
use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// From the end of the previous interval until `until` the application worked at this share of its baseline, on average.
    /// The first interval begins at the first [`Observation::WorkBegins`].
    Work {
        /// End of the interval.
        until: Time,
        /// Average rate over the interval divided by the baseline; above 1 when it was faster.
        rate: f64,
    },
    /// The application is observed from now on.
    WorkBegins(Time),
    /// Control messages on the wire.
    Control(Bytes),
    /// Page requests of the guest at the destination that were answered, all with this wait.
    Faults {
        /// How many.
        count: u64,
        /// How long the guest waited for each.
        stall: Span,
    },
    /// Pages that were touched first after the switch and had already arrived.
    FirstTouches(u64),
    /// The bytes now staged at an intermediary.
    Staged {
        /// Its number in the migration's list of intermediaries.
        via: u16,
        /// Bytes that the VM takes there; of contents that several refer to, its share.
        bytes: Bytes,
    },
    /// So much more has come from intermediaries to the destination, asked for or not, on the wire.
    Gathered(Bytes),
    /// The vCPU share that is in force from this moment on.
    ShareInForce {
        /// Since when.
        at: Time,
        /// The share.
        share: Share,
    },
    /// The largest gap that the guest itself saw around the switch.
    GuestGap(Span),
    /// How long the migration has waited for its admission before t0.
    Queued(Span),
    /// What has gone out so far of a send that is not over. A driver whose run ends reports it of every send under way; it may
    /// do so at any other time.
    Progress {
        /// The send.
        send: CmdId,
        /// All of it that has gone out since it was ordered.
        sent: Sent,
    },
    /// So much more of this migration has gone over a link.
    Link {
        /// The driver's number of the link.
        link: u32,
        /// Bytes on the wire.
        bytes: Bytes,
    },
    /// The migration sends at this rate from this moment on; only the timeline wants it ([`super::Ledger::keeps_timeline`]).
    Bandwidth {
        /// Since when.
        at: Time,
        /// Over all its streams, faults included.
        rate: Rate,
    },
}

/// A point of a migration's timeline, for charts and `timeline.csv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimelinePoint {
    /// When.
    pub at: Time,
    /// What.
    pub what: TimelineItem,
}

/// What a timeline shows. A value holds from its point to the next point of the same kind; a command is a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimelineItem {
    /// The migration enters a phase.
    Phase(crate::machine::Phase),
    /// The migration's sending rate.
    Bandwidth(Rate),
    /// The application's rate as a share of its baseline.
    Work(f64),
    /// A round begins.
    Round(u32),
    /// The migration orders this ([`Command::name`](crate::vocabulary::Command::name)).
    Command(&'static str),
}
