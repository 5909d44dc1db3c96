//! The JSON Schema of the format. It describes types, keys and units; what refers to something else (names, files, patterns) is
//! checked when a scenario is read.

use super::quantity::{Form, Positive, Quantity};
use super::raw::Document;
use super::value::{At, Constant, Text};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The JSON Schema of a scenario (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<Document>().to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: a key that may be left out is not a key that may be null.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(keys) => {
            let null = json!({ "type": "null" });
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|t| t != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    keys.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(choices)) = keys.get("anyOf")
                && let [Value::Object(one), other] = choices.as_slice()
                && *other == null
            {
                let one = one.clone();
                keys.remove("anyOf");
                for (key, value) in one {
                    keys.entry(key).or_insert(value);
                }
            }
            keys.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

/// For enums whose variant stands in a key: no other keys than those listed, and the variant's name as text is short for a
/// table with that key alone.
pub(super) fn or_name_alone(schema: &mut Schema) {
    let Some(Value::Array(mut kinds)) = schema.remove("oneOf") else { return };
    let mut names = Vec::new();
    for kind in kinds.iter_mut().filter_map(Value::as_object_mut) {
        kind.entry("additionalProperties").or_insert(false.into());
        let required = kind.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        if let [Value::String(tag)] = required.as_slice() {
            names.extend(kind["properties"][tag].get("const").cloned());
        }
    }
    if !names.is_empty() {
        kinds.push(json!({ "enum": names, "description": "short for a table with this name and no options" }));
    }
    schema.insert("oneOf".to_owned(), Value::Array(kinds));
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
        Q::NAME.into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        match Q::FORM {
            Form::Text(pattern) => json_schema!({ "type": "string", "pattern": pattern, "description": Q::WHAT }),
            Form::Whole => json_schema!({ "type": "integer", "minimum": 0, "maximum": u32::MAX, "description": Q::WHAT }),
            Form::Share => json_schema!({ "type": "number", "minimum": 0, "maximum": 1, "description": Q::WHAT }),
            Form::AboveZero => json_schema!({ "type": "number", "exclusiveMinimum": 0, "description": Q::WHAT }),
        }
    }
}

impl<Q: Quantity> JsonSchema for super::value::Value<Q> {
    fn schema_name() -> Cow<'static, str> {
        format!("Fleet{}", Q::NAME).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let constant = generator.subschema_for::<Constant<Q>>();
        let lognormal = json_schema!({
            "type": "object",
            "description": "Median x exp(sigma x normal), within `min` and `max`.",
            "properties": {
                "median": constant,
                "sigma": generator.subschema_for::<Constant<Positive>>(),
                "min": constant,
                "max": constant
            },
            "required": ["median", "sigma"],
            "additionalProperties": false
        });
        let draw = |name: &str, schema: Value| json!({ "type": "object", "properties": { name: schema }, "required": [name], "additionalProperties": false });
        json_schema!({
            "description": format!("{}, a pattern, or a distribution from which each member of a fleet draws", Q::WHAT),
            "anyOf": [
                constant,
                { "type": "string", "pattern": "\\{", "description": "a pattern such as \"{4000 + 500*(i%7)} MB\"" },
                draw("uniform", json!({ "type": "array", "items": constant, "minItems": 2, "maxItems": 2 })),
                draw("choice", json!({ "type": "array", "items": constant, "minItems": 1 })),
                draw("lognormal", lognormal.to_value())
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
