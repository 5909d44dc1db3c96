//! What a driver measures beside the events: a stream that the migrations never see.

use crate::units::{Bytes, Rate, Share, Span, Time};

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Page requests that were answered, all with this wait.
    Faults {
        /// How many.
        count: u64,
        /// How long the guest waited for each.
        stall: Span,
    },
    /// Pages that were touched first after the switch and had already arrived.
    FirstTouches(u64),
    /// The bytes now staged at all intermediaries together.
    Staged(Bytes),
    /// The vCPU share that is in force from this moment on.
    ShareInForce {
        /// Since when.
        at: Time,
        /// The share.
        share: Share,
    },
    /// The largest gap that the guest itself saw around the switch.
    GuestGap(Span),
}

/// A point of a migration's timeline, for charts and `timeline.csv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimelinePoint {
    /// When.
    pub at: Time,
    /// What.
    pub what: TimelineItem,
}

/// What a timeline shows. A value holds from its point to the next point of the same kind.
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
}
