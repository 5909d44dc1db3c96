//! Strategies: a preset, or a table over one.

use crate::scenario::deserializer::OR_TABLE;
use crate::scenario::quantity::{Fraction, Positive};
use crate::scenario::schema::or_name_alone;
use crate::scenario::value::{At, Constant};
use livemig_core::units::{Bytes, Rate, Span};
use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;

/// A strategy: the name of a preset, or a table over one.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Strategy {
    /// Name of a preset.
    Preset(String),
    /// Options over a preset.
    Options(Box<Options>),
}

impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strategy, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Strategy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a preset, or a table with `preset` and options")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Strategy, E> {
                Ok(Strategy::Preset(name.to_owned()))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, table: D) -> Result<Strategy, D::Error> {
                Options::deserialize(table).map(|options| Strategy::Options(Box::new(options)))
            }
        }
        deserializer.deserialize_newtype_struct(OR_TABLE, Either)
    }
}

/// Options over a preset; what is left out is as in the preset.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "StrategyOptions")]
pub(crate) struct Options {
    /// Name in results. Default: the preset's.
    pub(crate) name: Option<At<String>>,
    /// Name of the preset.
    pub(crate) preset: At<String>,
    /// Parallel connections; at least 1.
    pub(crate) streams: Option<At<u16>>,
    /// Over how many network interfaces of each host the streams are spread; at most one each. Default: as many as there are.
    pub(crate) nics: Option<At<u16>>,
    /// Threads that handle pages at each end. Default: one per stream.
    pub(crate) threads: Option<At<u16>>,
    /// Threads that map guest memory lock the range that they map, and not the whole address space.
    pub(crate) range_lock: Option<At<bool>>,
    /// Each stage that a page passes through at an end has as many threads of its own, so that stages overlap.
    pub(crate) pipeline: Option<At<bool>>,
    /// Each stream takes its pages in tasks, runs of memory or of disk of these sizes.
    pub(crate) tasks: Option<At<Tasks>>,
    /// Pages are compressed one by one.
    pub(crate) compress: Option<At<bool>>,
    /// Pages are encrypted.
    pub(crate) encrypt: Option<At<bool>>,
    /// Limit of the sending rate over all streams.
    pub(crate) limit: Option<At<Constant<Rate>>>,
    /// The limit does not hold while the guest is paused (QEMU).
    pub(crate) unlimited_while_paused: Option<At<bool>>,
    /// Pages of zeros are sent as a mark.
    pub(crate) elide_zero_pages: Option<At<bool>>,
    /// Intermediaries are asked for each page whether they have its content, of whichever VM; what they have is not sent. Default: false.
    pub(crate) dedup: Option<At<bool>>,
    /// Passes over what is dirty, straight after the first copy, before the request; with `snapshots`. Default: 4.
    pub(crate) passes: Option<At<u32>>,
    /// Memory is sent before the request (`migrate.at`), from the beginning of the run on; when snapshots are taken.
    pub(crate) snapshots: Option<At<Snapshots>>,
    /// When live copy ends.
    pub(crate) stop: Option<At<Stop>>,
    /// How the guest is slowed down so that live copy ends.
    pub(crate) throttle: Option<At<Throttle>>,
    /// Leave out pages that are dirty again when their turn comes in a round.
    pub(crate) skip_redirtied: Option<At<bool>>,
    /// How one of copying before the switch and pushing after it is chosen for each VM, at the request.
    pub(crate) select: Option<At<Select>>,
    /// In which order pages are pushed after the switch.
    pub(crate) prepaging: Option<At<Prepaging>>,
    /// Pages that are pushed after the switch go to intermediaries too, which keep them until the destination gathers them.
    pub(crate) scatter: Option<At<Scatter>>,
    /// Snapshots go to the intermediaries instead of the destination, which gathers them after the switch.
    pub(crate) staging: Option<At<bool>>,
    /// When a migration that takes too long is ended, and how.
    pub(crate) timeout: Option<At<Timeout>>,
    /// How long a cut link may stay cut before the switch until the migration is given up.
    pub(crate) link_patience: Option<At<Constant<Span>>>,
}

/// The sizes of tasks.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tasks {
    /// Of memory; at least a page. Default: 2 MiB.
    pub(crate) memory: Option<Constant<Bytes>>,
    /// Of disk; at least a page. Default: 8 MiB.
    pub(crate) disk: Option<Constant<Bytes>>,
}

/// A stop rule; its options are as in the origin when left out.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "rule", transform = or_name_alone)]
pub(crate) enum Stop {
    /// Xen's: few pages left; capped by rounds, by a multiple of memory, or by a round that grew.
    Clark {
        /// Converged when fewer pages than this are dirty. Default: 50.
        min_pages: Option<u64>,
        /// Capped after so many rounds. Default: 29.
        max_rounds: Option<u32>,
        /// Capped when more than this multiple of memory was sent. Default: 3.
        max_factor: Option<Constant<Positive>>,
        /// Capped when a round sent more than the one before. Default: true.
        stop_when_growing: Option<bool>,
    },
    /// QEMU's: what remains takes at most the downtime limit; no cap.
    Qemu {
        /// How long the guest may stand still for the rest. Default: 300 ms.
        downtime_limit: Option<Constant<Span>>,
    },
    /// A number of rounds of live copy.
    FixedRounds {
        /// How many; the first copy of all memory counts as one.
        rounds: u32,
    },
    /// SimGrid's: at the end of a round the rest takes at most the downtime limit; no cap.
    #[serde(rename = "simgrid")]
    SimGrid {
        /// How long the guest may stand still for the rest. Default: 30 ms.
        downtime_limit: Option<Constant<Span>>,
    },
    /// QEMU's, supervised by KubeVirt: no progress leads to the next escalation.
    #[serde(rename = "kubevirt")]
    KubeVirt {
        /// How long the guest may stand still for the rest. Default: 300 ms.
        downtime_limit: Option<Constant<Span>>,
        /// How long without progress is a stall. Default: 150 s.
        progress_timeout: Option<Constant<Span>>,
        /// What is done about stalls, one step each; after the last step the migration is aborted. Default: `["abort"]`.
        on_stall: Option<Vec<Escalation>>,
    },
    /// PMigrate's: the rest takes less than the downtime limit; capped by a round that grew, by rounds, or by a multiple of size.
    #[serde(rename = "pmigrate")]
    PMigrate {
        /// How long the guest may stand still for the rest. Default: 300 ms.
        downtime_limit: Option<Constant<Span>>,
        /// Capped after so many rounds. Default: 30.
        max_rounds: Option<u32>,
        /// Capped when more than this multiple of the size was sent. Default: 3.
        max_factor: Option<Constant<Positive>>,
    },
}

/// What is done about a migration that makes no progress.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Escalation {
    /// Allow this downtime from now on.
    #[serde(rename = "raise_limit")]
    RaiseLimit(Constant<Span>),
    /// Switch to post-copy.
    PostCopy,
    /// Give the migration up.
    Abort,
}

/// A throttling policy; its options are as in the origin when left out.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "policy", transform = or_name_alone)]
pub(crate) enum Throttle {
    /// QEMU's: in steps, while too much of what is sent is dirty again.
    AutoConverge {
        /// Share of what a round sent that must be dirty at its end to count against the guest. Default: 0.5.
        trigger: Option<Constant<Fraction>>,
        /// The first throttle. Default: 0.2.
        initial: Option<Constant<Fraction>>,
        /// What each further step adds. Default: 0.1.
        increment: Option<Constant<Fraction>>,
        /// The highest throttle. Default: 0.99.
        max: Option<Constant<Fraction>>,
    },
    /// By the sending rate, the dirty rate and the desired rest.
    CpuScheduling {
        /// How much memory shall be left. Default: what the stop rule wants, less a tenth.
        remaining: Option<Constant<Bytes>>,
        /// In how many rounds; at least 1. Default: 3.
        rounds: Option<u32>,
        /// The least share of the time that the vCPUs run. Default: 0.01.
        min_share: Option<Constant<Fraction>>,
        /// When throttling begins. Default: after the first round.
        start: Option<ThrottleStart>,
    },
    /// QEMU's: hold a guest that dirties too much to a dirty rate.
    DirtyLimit {
        /// The dirty rate of the whole guest. Default: 1 MiB/s.
        limit: Option<Constant<Rate>>,
        /// Share of what a round sent that must be dirty at its end to count against the guest. Default: 0.5.
        trigger: Option<Constant<Fraction>>,
        /// The highest throttle. Default: 0.99.
        max: Option<Constant<Fraction>>,
    },
}

/// When CPU scheduling begins.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ThrottleStart {
    /// After so many rounds; at least 1.
    Round(u32),
    /// When the dirty memory is at most this share of all memory.
    Below(Constant<Fraction>),
    /// When a round has left more than nine tenths of what the round before left.
    NotShrinking,
}

/// A snapshot policy.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "policy", transform = or_name_alone)]
pub(crate) enum Snapshots {
    /// At a fixed checking interval.
    Fixed {
        /// Between two counts of dirty pages. Default: 1 s.
        interval: Option<Constant<Span>>,
        /// Fewer dirty pages make no snapshot. Default: 2000.
        threshold: Option<u64>,
        /// At most so many pages in one snapshot. Default: all.
        max_pages: Option<u64>,
        /// Least time between two snapshots. Default: 0 s.
        min_spacing: Option<Constant<Span>>,
    },
    /// At an interval that holds the share of the time in which snapshots are sent.
    Adaptive {
        /// That share. Default: 0.05.
        impact: Option<Constant<Fraction>>,
        /// Least time between two counts of dirty pages. Default: 1 s.
        interval: Option<Constant<Span>>,
        /// Most time between two counts. Default: 60 s.
        max_interval: Option<Constant<Span>>,
        /// Fewer dirty pages make no snapshot. Default: 2000.
        threshold: Option<u64>,
        /// At most so many pages in one snapshot. Default: all.
        max_pages: Option<u64>,
        /// Least time between two snapshots. Default: 0 s.
        min_spacing: Option<Constant<Span>>,
    },
}

/// A selection of the technique.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "policy", transform = or_name_alone)]
pub(crate) enum Select {
    /// By what the VMs that are migrated together send and receive.
    Traffic {
        /// Over which time before the request that is measured. Default: 10 s.
        window: Option<Constant<Span>>,
    },
}

/// The order in which pages are pushed.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Prepaging {
    /// Ascending addresses.
    AddressOrder,
    /// Bubbles around the last faults; the value is how many are remembered.
    Bubbling(u16),
}

/// How pages go over intermediaries.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scatter {
    /// Straight to the destination what it takes, the rest to intermediaries; otherwise all that it does not ask for goes to
    /// intermediaries. Default: true.
    pub(crate) direct: Option<bool>,
    /// How many intermediaries store each page; at least 1. Default: 1.
    pub(crate) copies: Option<u16>,
    /// When the destination begins to gather. Default: after the eviction with `direct`, otherwise at once.
    pub(crate) gather: Option<GatherWhen>,
    /// The destination gathers at most this fast. Default: no limit.
    pub(crate) gather_limit: Option<Constant<Rate>>,
}

/// When the destination begins to gather.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GatherWhen {
    /// While the source still sends.
    Concurrent,
    /// When the source is released.
    AfterEviction,
}

/// A time limit for everything before the switch.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeout {
    /// Time per GiB of memory.
    pub(crate) per_gib: Constant<Span>,
    /// What is done when it is up.
    pub(crate) then: OnTimeout,
}

/// What is done when the time is up.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnTimeout {
    /// Give the migration up.
    Abort,
    /// Switch to post-copy.
    PostCopy,
    /// Stop the guest and send the rest.
    Pause,
}
