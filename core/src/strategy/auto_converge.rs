//! Auto-converge: pre-copy as QEMU does it, with vCPUs that are slowed down in steps while the guest dirties memory too fast.

use super::{LiveCopy, Preset, Spec};
use crate::policy::stop::{Qemu, StopRule};
use crate::policy::throttle::{AutoConverge, ThrottlePolicy};

pub(super) const PRESET: Preset = Preset {
    name: "auto-converge",
    origin: "QEMU 1.6 (capability auto-converge), in steps since 2.5",
    summary: "pre-copy as in QEMU; the vCPUs are slowed down in steps until it converges",
    spec: || Spec {
        live: Some(LiveCopy {
            stop: StopRule::Qemu(Qemu::default()),
            throttle: Some(ThrottlePolicy::AutoConverge(AutoConverge::default())),
            skip_redirtied: false,
        }),
        ..Spec::default()
    },
};
