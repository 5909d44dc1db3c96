//! `PMigrate`: pre-copy whose tasks are sent over several connections and interfaces at once, its stopped round too.

use super::{LiveCopy, Preset, Spec, Transfer};
use crate::policy::stop::{PMigrate, StopRule};
use crate::tasks::TaskSizes;
use crate::vocabulary::Channels;

/// One connection per interface of the published testbed's hosts.
const STREAMS: u16 = 4;

pub(super) const PRESET: Preset = Preset {
    name: "pmigrate",
    origin: "Song, Shi, Liu, Yang and Chen, VEE 2013",
    summary: "pre-copy of memory and disk over several connections, interfaces and cores at once",
    spec: || Spec {
        live: Some(LiveCopy { stop: StopRule::PMigrate(PMigrate::default()), throttle: None, skip_redirtied: false }),
        transfer: Transfer {
            streams: STREAMS,
            channels: Channels { range_lock: true, tasks: Some(TaskSizes::default()), ..Channels::default() },
            ..Transfer::default()
        },
        ..Spec::default()
    },
};
