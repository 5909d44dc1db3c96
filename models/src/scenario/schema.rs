//! The JSON Schema of the format. It describes types, keys and units; what refers to something else (names, files, patterns) is
//! checked when a scenario is read.

use super::quantity::Quantity;
use super::raw::Document;
use super::value::{At, Constant, Text, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// The JSON Schema of a scenario (draft 2020-12).
#[must_use]
pub fn schema() -> serde_json::Value {
    SchemaGenerator::default().into_root_schema_for::<Document>().to_value()
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<Q: Quantity> JsonSchema for Constant<Q> {
    fn schema_name() -> Cow<'static, str> {
        format!("Constant: {}", Q::WHAT).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        match Q::PATTERN {
            Some(pattern) => json_schema!({ "type": "string", "pattern": pattern, "title": Q::WHAT }),
            None => json_schema!({ "type": "number", "title": Q::WHAT }),
        }
    }
}

impl<Q: Quantity> JsonSchema for Value<Q> {
    fn schema_name() -> Cow<'static, str> {
        format!("Value: {}", Q::WHAT).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let constant = Constant::<Q>::json_schema(generator);
        let lognormal = json_schema!({
            "type": "object",
            "description": "Median x exp(sigma x normal), within `min` and `max`.",
            "properties": {
                "median": constant,
                "sigma": { "type": "number", "exclusiveMinimum": 0 },
                "min": constant,
                "max": constant
            },
            "required": ["median", "sigma"],
            "additionalProperties": false
        });
        json_schema!({
            "description": format!("{}, a pattern, or a distribution from which each member of a fleet draws", Q::WHAT),
            "anyOf": [
                constant,
                { "type": "string", "pattern": "\\{", "description": "a pattern such as \"{1 + i%4}\"" },
                { "type": "object", "properties": { "uniform": { "type": "array", "items": constant, "minItems": 2, "maxItems": 2 } },
                  "required": ["uniform"], "additionalProperties": false },
                { "type": "object", "properties": { "choice": { "type": "array", "items": constant, "minItems": 1 } },
                  "required": ["choice"], "additionalProperties": false },
                { "type": "object", "properties": { "lognormal": lognormal }, "required": ["lognormal"], "additionalProperties": false }
            ]
        })
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
