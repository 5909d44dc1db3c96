//! Quick eviction: snapshots of memory go to the destination before anybody asks, so that only the last little rest is left when the
//! order comes.

use super::{Ahead, LiveCopy, Preset, Spec};
use crate::policy::stop::{Clark, StopRule};

pub(super) const PRESET: Preset = Preset {
    name: "quick-eviction",
    origin: "Fernando et al., UCC 2016",
    summary: "send snapshots of memory before the request; then pre-copy of the little that is left",
    spec: || Spec {
        ahead: Some(Ahead::default()),
        live: Some(LiveCopy { stop: StopRule::Clark(Clark::default()), throttle: None, skip_redirtied: false }),
        ..Spec::default()
    },
};
