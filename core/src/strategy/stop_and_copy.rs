//! Stop-and-copy: stop the guest, copy everything, start it. The least bytes and the longest downtime.

use super::{Preset, Spec};

pub(super) const PRESET: Preset = Preset {
    name: "stop-and-copy",
    origin: "folklore; the baseline of Clark et al., NSDI 2005",
    summary: "stop the guest, copy all of its memory, start it at the destination",
    spec: Spec::default,
};
