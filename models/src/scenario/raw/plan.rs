//! Migrations and events.

use super::{Strategy, Traffic, Via, Workload};
use crate::scenario::value::{At, Constant};
use livemig_core::units::Span;
use schemars::JsonSchema;
use serde::Deserialize;

/// Who migrates where, when and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Migrate {
    /// Names of VMs; `*` stands for any text. Default: every VM that has a destination and is not there already.
    pub(crate) vms: Option<At<Vec<At<String>>>>,
    /// Name of the destination, for VMs without `to`.
    pub(crate) to: Option<At<String>>,
    /// When the migrations are requested; preparation happens before. Default: 0 s.
    pub(crate) at: Option<At<Constant<Span>>>,
    /// Presets, or tables over presets; each is run by itself. Default: every preset.
    pub(crate) strategies: Option<At<Vec<At<Strategy>>>>,
    /// Which hosts stage pages: their names, or `auto`: of the hosts with the role `intermediary` as many as the source's uplink and the
    /// VM's memory need. Default: all of them.
    pub(crate) via: Option<At<Via<At<String>>>>,
}

/// Something that happens at a set time: exactly one of `fail`, `cut`, `restore`, `cancel`, or `vm` with `workload` or
/// `traffic` or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// When.
    pub(crate) at: At<Constant<Span>>,
    /// Name of a host that fails for good.
    pub(crate) fail: Option<At<String>>,
    /// Name of a host whose links are cut.
    pub(crate) cut: Option<At<String>>,
    /// Name of a host whose links are back.
    pub(crate) restore: Option<At<String>>,
    /// Name of a VM whose migration is called off; `*` stands for any text.
    pub(crate) cancel: Option<At<String>>,
    /// Name of a VM that changes; `*` stands for any text.
    pub(crate) vm: Option<At<String>>,
    /// What the VM does from now on.
    pub(crate) workload: Option<Workload>,
    /// The VM's traffic from now on.
    pub(crate) traffic: Option<Traffic>,
}
