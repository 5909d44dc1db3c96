//! CPU scheduling: pre-copy that slows the vCPUs down, from the second round on, so far that what is left comes to what the downtime
//! limit allows.

use super::{LiveCopy, Preset, Spec};
use crate::policy::stop::{Qemu, StopRule};
use crate::policy::throttle::{CpuScheduling, ThrottlePolicy};

pub(super) const PRESET: Preset = Preset {
    name: "cpu-scheduling",
    origin: "Jin et al., JNCA 2011",
    summary: "pre-copy; the vCPUs are slowed down so far that the rest becomes small",
    spec: || Spec {
        live: Some(LiveCopy {
            stop: StopRule::Qemu(Qemu::default()),
            throttle: Some(ThrottlePolicy::CpuScheduling(CpuScheduling::default())),
            skip_redirtied: false,
        }),
        ..Spec::default()
    },
};
