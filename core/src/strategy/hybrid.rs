//! Hybrid: a few rounds of pre-copy, then post-copy of what they left dirty.

use super::{LiveCopy, Preset, Push, Spec};
use crate::policy::stop::{FixedRounds, StopRule};

pub(super) const PRESET: Preset = Preset {
    name: "hybrid",
    origin: "Hines, Deshpande and Gopalan, VEE 2009; QEMU postcopy-ram after a pass of pre-copy",
    summary: "one round of pre-copy, then post-copy of what is dirty",
    spec: || Spec {
        live: Some(LiveCopy { stop: StopRule::FixedRounds(FixedRounds { rounds: 1 }), throttle: None, skip_redirtied: false }),
        push: Some(Push::default()),
        ..Spec::default()
    },
};
