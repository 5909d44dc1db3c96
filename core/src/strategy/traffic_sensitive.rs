//! Traffic-sensitive migration: VMs that are moved together are pre-copied or post-copied, each so that its traffic is out of the
//! migrations' way.

use super::{Preset, Spec, post_copy, pre_copy};
use crate::policy::selection::{SelectionPolicy, TrafficSensitive};

pub(super) const PRESET: Preset = Preset {
    name: "traffic-sensitive",
    origin: "Deshpande and Keahey, CCGrid 2015",
    summary: "pre-copy or post-copy, chosen per VM by what it sends and receives",
    spec: || Spec {
        live: (pre_copy::PRESET.spec)().live,
        push: (post_copy::PRESET.spec)().push,
        selection: Some(SelectionPolicy::Traffic(TrafficSensitive::default())),
        ..Spec::default()
    },
};
