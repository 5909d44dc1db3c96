//! Scatter-gather: the source gives memory to whoever can take it, and the destination collects it later.

use super::{Preset, Push, Scatter, Spec};
use crate::vocabulary::Prepaging;

/// As in post-copy.
const PIVOTS: u16 = 7;

pub(super) const PRESET: Preset = Preset {
    name: "scatter-gather",
    origin: "Deshpande, Chan, Chan, Gopalan and Bila, IEEE CLOUD 2014, IEEE TCC 2015",
    summary: "post-copy of which the destination takes what it can, and intermediaries the rest, so that the source is free soon",
    spec: || Spec {
        push: Some(Push { prepaging: Prepaging::Bubbling { pivots: PIVOTS }, scatter: Some(Scatter::new(true)) }),
        ..Spec::default()
    },
};
