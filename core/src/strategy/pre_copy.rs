//! Pre-copy: copy all memory while the guest runs, then what it has written meanwhile, until a stop rule says that the rest is
//! small enough to be sent while the guest stands still.

use super::{LiveCopy, Preset, Spec};
use crate::policy::stop::{Clark, StopRule};

pub(super) const PRESET: Preset = Preset {
    name: "pre-copy",
    origin: "Clark et al., NSDI 2005; Nelson et al., USENIX ATC 2005",
    summary: "copy in rounds while the guest runs; stop it for the last",
    spec: || Spec {
        live: Some(LiveCopy { stop: StopRule::Clark(Clark::default()), throttle: None, skip_redirtied: true }),
        ..Spec::default()
    },
};
