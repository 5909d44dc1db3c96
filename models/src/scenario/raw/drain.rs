//! Drains.

use super::{Strategy, Via};
use crate::scenario::value::{At, Constant};
use livemig_core::units::{Rate, Span};
use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;

/// Hosts to empty, in place of `migrate`: the drain chooses when each VM goes and where to.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// Name of the host, or a list of names, in the order of their turns; `*` stands for any text.
    pub(crate) host: At<Names>,
    /// When the drain is requested. Default: 0 s.
    pub(crate) at: Option<At<Constant<Span>>>,
    /// In which order the VMs of a host leave. Default: `as-listed`.
    pub(crate) order: Option<Order>,
    /// Names of hosts that VMs may be placed on, in the order in which they are tried; `*` stands for any text. A host that is being
    /// drained takes none. Default: every host with the role `host`.
    pub(crate) destinations: Option<At<Names>>,
    /// How a destination is chosen for VMs without `to`. Default: `first-fit`.
    pub(crate) placement: Option<Placement>,
    /// Hosts whose own turn is still to come may be destinations too, where there is no other; their VMs then move again.
    /// Default: false.
    pub(crate) onto_waiting: Option<bool>,
    /// Migrations at once from a host; at least 1. Default: 1.
    pub(crate) per_host: Option<At<u32>>,
    /// Migrations at once to a host; at least 1. Default: no limit.
    pub(crate) per_destination: Option<At<u32>>,
    /// Migrations at once in all; at least 1. Default: no limit.
    pub(crate) per_cluster: Option<At<u32>>,
    /// Hosts that are drained at once, or were drained and are not back yet if `returns_after` is given; at least 1.
    /// Default: no limit.
    pub(crate) hosts_at_once: Option<At<u32>>,
    /// How long after its last VM has left a host takes VMs again. Default: it does not.
    pub(crate) returns_after: Option<Constant<Span>>,
    /// How often a migration that failed is made again; at most 100. Default: 0.
    pub(crate) retries: Option<At<u32>>,
    /// Limit of what the migrations from one host send, shared equally by those under way. Default: no limit.
    pub(crate) rate_per_host: Option<At<Constant<Rate>>>,
    /// Presets, or tables over presets; each is run by itself. Default: every preset.
    pub(crate) strategies: Option<At<Vec<At<Strategy>>>>,
    /// Which hosts stage pages: their names, or `auto`: of the hosts with the role `intermediary` as many as the source's uplink and the
    /// VM's memory need. Default: all of them.
    pub(crate) via: Option<At<Via<At<String>>>>,
}

/// In which order the VMs of a host leave.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DrainOrder")]
pub(crate) enum Order {
    /// As listed in the scenario.
    #[default]
    AsListed,
    /// Least memory first.
    SmallestFirst,
    /// Most memory first.
    LargestFirst,
    /// First those that dirty the fewest bytes in the first second after a collection.
    LeastDirtyingFirst,
}

/// How a destination is chosen.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Placement {
    /// The first with room.
    #[default]
    FirstFit,
    /// The one with the most free memory.
    MostRoom,
    /// The one with room that receives least, with VMs on their way to it; rates are measured every 10 s.
    LeastTraffic,
}

/// One name, or a list of names.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Names {
    /// A name.
    One(String),
    /// Names.
    Many(Vec<At<String>>),
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name in quotes, or a list of names")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names::One(name.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names::Many(names))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl At<Names> {
    /// The names with their lines.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        let (one, many) = match &self.value {
            Names::One(name) => (Some((name.as_str(), self.line)), &[][..]),
            Names::Many(names) => (None, names.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|name| (name.value.as_str(), name.line)))
    }
}
