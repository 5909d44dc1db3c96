//! What guests do with their memory.

use crate::scenario::deserializer::SPLIT;
use crate::scenario::quantity::{PageRate, Positive};
use crate::scenario::schema::or_name_alone;
use crate::scenario::value::{At, Constant, Text, Value};
use livemig_core::units::{Bytes, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A guest's accesses to its memory, by kind.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(tag = "kind", transform = or_name_alone)]
pub(crate) enum Workload {
    /// No accesses.
    Idle,
    /// Accesses at random, each page of the working set alike.
    Uniform(Accesses),
    /// Accesses in address order, again and again.
    Sequential(Accesses),
    /// Random accesses, many to a hot part and few to the rest of memory.
    HotCold(HotCold),
    /// Random accesses; the page of rank k is accessed in proportion to k^-exponent.
    Zipf(Zipf),
    /// One workload after the other.
    Phases(Phases),
    /// Dirtying as measured: distinct pages dirtied against time since collection.
    Curve(Curve),
    /// Uniform accesses as recorded over time.
    Trace(Trace),
}

/// A workload that does not change.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(tag = "kind")]
pub(crate) enum Steady {
    /// No accesses.
    Idle,
    /// Accesses at random, each page of the working set alike.
    Uniform(Accesses),
    /// Accesses in address order, again and again.
    Sequential(Accesses),
    /// Random accesses, many to a hot part and few to the rest of memory.
    HotCold(HotCold),
    /// Random accesses; the page of rank k is accessed in proportion to k^-exponent.
    Zipf(Zipf),
    /// Dirtying as measured: distinct pages dirtied against time since collection.
    Curve(Curve),
}

/// Accesses to a working set.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accesses {
    /// How much memory is accessed. Default: all of it.
    pub(crate) working_set: Option<Value<Bytes>>,
    /// Pages written per second, over all vCPUs. Default: none.
    pub(crate) writes: Option<Value<PageRate>>,
    /// Pages read per second, over all vCPUs. Default: none.
    pub(crate) reads: Option<Value<PageRate>>,
}

/// A hot and a cold part.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HotCold {
    /// Size of the hot part.
    pub(crate) hot: Value<Bytes>,
    /// Pages written per second in the hot part. Default: none.
    pub(crate) hot_writes: Option<Value<PageRate>>,
    /// Pages read per second in the hot part. Default: none.
    pub(crate) hot_reads: Option<Value<PageRate>>,
    /// Pages written per second in the rest of memory. Default: none.
    pub(crate) cold_writes: Option<Value<PageRate>>,
    /// Pages read per second in the rest of memory. Default: none.
    pub(crate) cold_reads: Option<Value<PageRate>>,
}

/// Accesses by Zipf's law.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Zipf {
    /// How much memory is accessed. Default: all of it.
    pub(crate) working_set: Option<Value<Bytes>>,
    /// The exponent; above 0, at most 100.
    pub(crate) exponent: Value<Positive>,
    /// Pages written per second, over all vCPUs. Default: none.
    pub(crate) writes: Option<Value<PageRate>>,
    /// Pages read per second, over all vCPUs. Default: none.
    pub(crate) reads: Option<Value<PageRate>>,
}

/// A sequence of workloads.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phases {
    /// The workloads with their durations; the last one stays.
    #[schemars(length(min = 1))]
    pub(crate) phases: At<Vec<Phase>>,
}

/// A measured curve.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Curve {
    /// CSV file with the columns `seconds` (since collection) and `pages` (distinct pages dirtied).
    pub(crate) file: Text,
    /// Pages read per second, over the memory that the curve reaches at most. Default: none.
    pub(crate) reads: Option<Value<PageRate>>,
}

/// A recorded load.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trace {
    /// CSV file with the columns `seconds`, `writes_per_s`, `reads_per_s` (pages per second) and `working_set_pages`; each row
    /// holds until the next one, and the last one stays.
    pub(crate) file: Text,
}

/// A workload for a time.
#[derive(Debug)]
pub(crate) struct Phase {
    /// How long; the last phase may leave it out.
    pub(crate) duration: Option<At<Constant<Span>>>,
    pub(crate) workload: At<Steady>,
}

impl<'de> Deserialize<'de> for Phase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Phase;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with `for` and the keys of a workload")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Phase, A::Error> {
                let duration = parts.next_element()?.ok_or_else(|| de::Error::missing_field("for"))?;
                let workload = parts.next_element()?.ok_or_else(|| de::Error::missing_field("kind"))?;
                Ok(Phase { duration, workload })
            }
        }
        deserializer.deserialize_tuple_struct(SPLIT, 2, Parts)
    }
}

impl JsonSchema for Phase {
    fn schema_name() -> Cow<'static, str> {
        "Phase".into()
    }

    /// A steady workload whose every kind also has the key `for`.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut duration = generator.subschema_for::<Constant<Span>>();
        duration.insert("description".to_owned(), "How long; the last phase may leave it out and stays.".into());
        let mut schema = Steady::json_schema(generator);
        if let Some(kinds) = schema.get_mut("oneOf").and_then(serde_json::Value::as_array_mut) {
            for kind in kinds {
                if let Some(kind) = kind.as_object_mut() {
                    kind.insert("additionalProperties".to_owned(), false.into());
                }
                if let Some(properties) = kind.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
                    properties.insert("for".to_owned(), duration.clone().to_value());
                }
            }
        }
        schema
    }
}
