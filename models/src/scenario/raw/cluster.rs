//! Racks, hosts, guests and flows.

use super::{Via, Workload};
use crate::scenario::quantity::{Count, Fraction, Positive};
use crate::scenario::value::{At, Text, Value};
use livemig_core::units::{Bytes, Rate, Span};
use schemars::JsonSchema;
use serde::Deserialize;

/// A rack with an uplink that its hosts share towards other racks. A fleet with `count` or `table`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rack {
    /// Makes so many, numbered by `{i}` from 0.
    pub(crate) count: Option<At<u64>>,
    /// Makes one per row of this CSV file, whose columns are `{column}`.
    pub(crate) table: Option<At<String>>,
    /// Its name.
    pub(crate) name: Text,
    /// Payload rate of the uplink in each direction. Default: no limit.
    pub(crate) uplink: Option<Value<Rate>>,
}

/// A physical host. A fleet with `count` or `table`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// Makes so many, numbered by `{i}` from 0.
    pub(crate) count: Option<At<u64>>,
    /// Makes one per row of this CSV file, whose columns are `{column}`.
    pub(crate) table: Option<At<String>>,
    /// Its name.
    pub(crate) name: Text,
    /// What it is for. Default: `host`.
    pub(crate) role: Option<Role>,
    /// Name of the rack that it stands in.
    pub(crate) rack: Option<Text>,
    /// Its network interfaces; at least one.
    #[schemars(length(min = 1))]
    pub(crate) nics: At<Vec<Nic>>,
    /// Physical cores. Default: 8.
    pub(crate) cores: Option<Value<Count>>,
    /// Memory for guests. Default: no limit.
    pub(crate) memory: Option<Value<Bytes>>,
    /// Limit of incoming migration traffic: push, gather and faults together. Default: no limit.
    pub(crate) reception: Option<Value<Rate>>,
    /// Rate at which it frees memory for an arriving guest that does not fit. Default: that of the calibration.
    pub(crate) swap: Option<Value<Rate>>,
    /// What an intermediary can store and hand out per second, together. Default: no limit.
    pub(crate) service: Option<Value<Rate>>,
    /// What its disks read and write per second, together, for migrations. Default: no limit.
    pub(crate) storage: Option<Value<Rate>>,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// It runs guests.
    Host,
    /// It stages pages on their way.
    Intermediary,
    /// It keeps snapshots.
    Staging,
}

/// A full-duplex network interface.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nic {
    /// Line rate in each direction.
    pub(crate) rate: Value<Rate>,
    /// Share of the line rate that is left for payload. Default: that of the calibration.
    pub(crate) goodput: Option<Value<Fraction>>,
}

/// A virtual machine. A fleet with `count` or `table`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vm {
    /// Makes so many, numbered by `{i}` from 0.
    pub(crate) count: Option<At<u64>>,
    /// Makes one per row of this CSV file, whose columns are `{column}`.
    pub(crate) table: Option<At<String>>,
    /// Its name.
    pub(crate) name: Text,
    /// Name of the host on which it runs at the beginning.
    pub(crate) host: Text,
    /// Name of the host to which it migrates. Default: `migrate.to`.
    pub(crate) to: Option<Text>,
    /// Which hosts stage its pages. Default: `migrate.via`.
    pub(crate) via: Option<At<Via<Text>>>,
    /// Its memory; at most 2^50 bytes.
    pub(crate) memory: Value<Bytes>,
    /// Virtual CPUs. Default: 1.
    pub(crate) vcpus: Option<Value<Count>>,
    /// What it does with its memory. Default: `idle`.
    pub(crate) workload: Option<Workload>,
    /// Its traffic with the outside. Default: none.
    pub(crate) traffic: Option<Traffic>,
    /// Share of its memory that is pages of zeros. Default: 0.
    pub(crate) zero: Option<Value<Fraction>>,
    /// Size of its other pages once they are compressed, as a share. Default: that of the calibration.
    pub(crate) compressed: Option<Value<Fraction>>,
    /// What its memory has in common with that of other VMs. Default: nothing.
    pub(crate) content: Option<Content>,
    /// Its disk, which is moved with it. Default: none, or one on storage that both hosts reach.
    pub(crate) disk: Option<At<Disk>>,
}

/// What the memory of VMs has in common.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Content {
    /// Of the pages that are not zeros and that the workload does not write, the share that is equal to the page with the same number in the
    /// other VMs of the group.
    pub(crate) shared: Value<Fraction>,
    /// The name of the group. Default: one for all VMs that name none.
    pub(crate) group: Option<Text>,
}

/// A disk that is moved with its VM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disk {
    /// Its size; at most 2^50 bytes.
    pub(crate) size: Value<Bytes>,
    /// What the guest writes to it, in blocks of 4096 bytes (`pages/s`). Default: `idle`.
    pub(crate) workload: Option<Workload>,
    /// Share of it that is blocks of zeros. Default: 0.
    pub(crate) zero: Option<Value<Fraction>>,
    /// Size of its other blocks once they are compressed, as a share. Default: that of the calibration.
    pub(crate) compressed: Option<Value<Fraction>>,
}

/// Offered traffic of a guest with hosts outside of the scenario.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traffic {
    /// From the guest. Default: none.
    pub(crate) tx: Option<Value<Rate>>,
    /// To the guest. Default: none.
    pub(crate) rx: Option<Value<Rate>>,
}

/// Traffic from one end to another. A fleet with `count` or `table`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flow {
    /// Makes so many, numbered by `{i}` from 0.
    pub(crate) count: Option<At<u64>>,
    /// Makes one per row of this CSV file, whose columns are `{column}`.
    pub(crate) table: Option<At<String>>,
    /// Its name.
    pub(crate) name: Text,
    /// Where it comes from: a VM or a host (`vm:NAME` or `host:NAME` where both have the name), or `outside`.
    pub(crate) from: Text,
    /// Where it goes.
    pub(crate) to: Text,
    /// Offered rate. Default: whatever it gets, like a bulk TCP stream.
    pub(crate) rate: Option<Value<Rate>>,
    /// Weight against other traffic; a stream of a migration weighs 1. Default: 1.
    pub(crate) weight: Option<Value<Positive>>,
    /// For how long from the first request on its mean rate is taken. Default: until the last migration has ended.
    pub(crate) measured_for: Option<Value<Span>>,
}
