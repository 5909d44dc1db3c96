//! The format as users write it. Every type here is read from a document and described by the JSON Schema; the doc comments are
//! the schema's descriptions.

mod cluster;
mod drain;
mod plan;
mod strategy;
mod via;
mod workload;

pub(crate) use cluster::{Content, Disk, Flow, Host, Nic, Rack, Role, Traffic, Vm};
pub(crate) use drain::{Drain, Names, Order, Placement};
pub(crate) use plan::{Event, Migrate};
pub(crate) use strategy::{
    Escalation, GatherWhen, OnTimeout, Options, Prepaging, Select, Snapshots, Stop, Strategy, Throttle, ThrottleStart,
};
pub(crate) use via::Via;
pub(crate) use workload::{Accesses, Curve, HotCold, Phases, Steady, Trace, Workload, Zipf};

use super::quantity::Fraction;
use super::value::{At, Constant};
use crate::calibration;
use livemig_core::units::Span;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A livemig scenario: hosts, guests, what happens to them, and the strategies to compare.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "livemig scenario")]
pub(crate) struct Document {
    /// Version of the format: 1.
    #[schemars(extend("const" = 1))]
    pub(crate) schema: At<u32>,
    /// Name of the scenario in results. Default: the file's name without its ending.
    pub(crate) name: Option<At<String>>,
    /// Seed of every random number. Default: 0.
    pub(crate) seed: Option<u64>,
    /// How often each point is run with different random numbers. Default: 1.
    pub(crate) replicates: Option<At<u32>>,
    /// Simulated time after which a run ends. Default: 24 h.
    pub(crate) horizon: Option<At<Constant<Span>>>,
    /// How exactly memory is modelled. Default: `class`.
    pub(crate) fidelity: Option<Fidelity>,
    /// Share of a link's capacity by which the rates over it may miss it, at most 0.1; saves time where many flows share links. Default: 0.
    pub(crate) rate_tolerance: Option<At<Constant<Fraction>>>,
    /// Costs and latencies: `default`, `ideal`, the path of a calibration file, or a table over one of these. Default: `default`.
    pub(crate) calibration: Option<At<calibration::Raw>>,
    /// Racks.
    #[serde(default)]
    pub(crate) rack: Vec<Rack>,
    /// Physical hosts.
    #[serde(default)]
    pub(crate) host: Vec<Host>,
    /// Virtual machines.
    #[serde(default)]
    pub(crate) vm: Vec<Vm>,
    /// Traffic beside that of `vm.traffic`.
    #[serde(default)]
    pub(crate) flow: Vec<Flow>,
    /// Who migrates where, when and how.
    pub(crate) migrate: Option<At<Migrate>>,
    /// Hosts to empty, in place of `migrate`.
    pub(crate) drain: Option<At<Drain>>,
    /// Failures, cancellations and changes of load.
    #[serde(default)]
    pub(crate) event: Vec<At<Event>>,
    /// Values to try: the key is the path of a key in this file (`host.NAME.KEY`, `vm.NAME.KEY`, `rack.NAME.KEY`,
    /// `flow.NAME.KEY`, `migrate.KEY`, `drain.KEY`, `strategy.NAME.KEY`, `event.NUMBER.KEY`, `calibration`, `calibration.KEY`; `*` is every
    /// name), the value a list. Every combination is a point.
    #[expect(dead_code, reason = "sweeps are applied to the document before it is read; the field is for the schema")]
    pub(crate) sweep: Option<BTreeMap<String, Vec<Anything>>>,
}

/// How exactly memory is modelled.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fidelity {
    /// Bytes per region of the workload, in expectation.
    Class,
    /// Pages with an identity, and accesses drawn one by one.
    Page,
}

/// A value of any type.
#[derive(Debug, Deserialize)]
pub(crate) struct Anything;

impl JsonSchema for Anything {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Anything".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        true.into()
    }
}
