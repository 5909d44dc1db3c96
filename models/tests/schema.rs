//! The JSON Schema and the documentation against scenarios. The validator knows the keywords that the schema uses.

use livemig_models::scenario::{parse, schema};
use serde_json::{Value, json};
use std::path::Path;

/// Whether `value` satisfies `schema`; patterns are only asked whether they want a brace.
fn valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Some(keys) = schema.as_object() else { return schema == true };
    keys.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$ref" => {
            let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            valid(value, &root["$defs"][name], root)
        }
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_i64(),
            other => panic!("type {other}"),
        },
        "properties" => rule.as_object().unwrap().iter().all(|(k, s)| value.get(k).is_none_or(|v| valid(v, s, root))),
        "required" => rule.as_array().unwrap().iter().all(|k| value.get(k.as_str().unwrap()).is_some()),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = |k: &String| schema.get("properties").is_some_and(|p| p.get(k).is_some());
            object.iter().all(|(k, v)| known(k) || valid(v, rule, root))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|v| valid(v, rule, root))),
        "anyOf" => rule.as_array().unwrap().iter().any(|s| valid(value, s, root)),
        "oneOf" => rule.as_array().unwrap().iter().filter(|s| valid(value, s, root)).count() == 1,
        "enum" => rule.as_array().unwrap().contains(value),
        "const" => value == rule,
        "minItems" => value.as_array().is_none_or(|a| a.len() as u64 >= rule.as_u64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|a| a.len() as u64 <= rule.as_u64().unwrap()),
        "minimum" => value.as_f64().is_none_or(|x| x >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|x| x <= rule.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|x| x > rule.as_f64().unwrap()),
        "pattern" => value.as_str().is_none_or(|text| text.contains('{') == (rule == "\\{")),
        "$schema" | "$defs" | "title" | "description" | "format" => true,
        other => panic!("keyword {other}"),
    })
}

fn json(toml: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(toml).unwrap()).unwrap()
}

#[test]
fn the_examples_satisfy_the_schema() {
    let schema = schema();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(valid(&json(&text), &schema, &schema), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4);
}

#[test]
fn what_is_wrong_does_not_satisfy_it() {
    let schema = schema();
    let right = concat!(
        "schema = 1\ncalibration = { base = 'ideal', latency = '1 us' }\n",
        "[[vm]]\nname = 'v'\nhost = 'a'\nmemory = { uniform = ['1 GiB', '2 GiB'] }\nvcpus = '{1 + i%4}'\n",
        "workload = { kind = 'phases', phases = [{ for = '1 s', kind = 'uniform', writes = '1 B/s' }, { kind = 'idle' }] }\n",
        "[migrate]\nstrategies = ['pre-copy', { preset = 'pre-copy', stop = 'clark' }, { preset = 'hybrid', prepaging = { bubbling = 7 } }]\n"
    );
    assert!(valid(&json(right), &schema, &schema));
    for (from, to) in [
        ("schema = 1", "schema = 2"),
        ("schema = 1\n", ""),
        ("latency", "latncy"),
        ("host = 'a'\n", ""),
        ("uniform = [", "unifrm = ["),
        ("['1 GiB', '2 GiB']", "['1 GiB']"),
        ("'{1 + i%4}'", "-1"),
        ("kind = 'idle'", "kind = 'idl'"),
        ("kind = 'idle'", "kind = 'idle', writes = '1 B/s'"),
        ("kind = 'uniform', writes", "kind = 'uniform', wrtes"),
        ("stop = 'clark'", "stop = 'fixed-rounds'"),
        ("bubbling = 7", "bubbling = 'x'"),
    ] {
        assert_eq!(right.matches(from).count(), 1, "{from}");
        assert!(!valid(&json(&right.replace(from, to)), &schema, &schema), "{to}");
    }
}

/// Every object of the schema, with its path.
fn walk<'v>(value: &'v Value, path: &str, visit: &mut impl FnMut(&str, &'v Value)) {
    visit(path, value);
    match value {
        Value::Object(keys) => keys.iter().for_each(|(k, v)| walk(v, &format!("{path}/{k}"), visit)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, v)| walk(v, &format!("{path}/{n}"), visit)),
        _ => {}
    }
}

#[test]
fn every_key_is_described_and_nothing_is_null() {
    let schema = schema();
    let mut described = 0;
    walk(&schema, "", &mut |path, value| {
        assert_ne!(value, &json!("null"), "{path}");
        let Some(properties) = value.get("properties").and_then(Value::as_object) else { return };
        assert_eq!(value.get("additionalProperties"), Some(&json!(false)), "{path}");
        for (key, property) in properties {
            let drawn = path.contains("/anyOf/") || path.contains("/lognormal");
            let tag = property.get("const").is_some();
            let variant = path.contains("/oneOf/") && properties.len() == 1;
            assert!(drawn || tag || variant || property.get("description").is_some(), "{path}/{key}");
            described += 1;
        }
    });
    assert!(described > 80, "{described}");
}

#[test]
fn the_reference_names_every_key() {
    let schema = schema();
    walk(&schema, "", &mut |path, value| {
        for key in value.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
            assert!(DOCUMENTATION.contains(&format!("`{key}`")), "docs/SCENARIO.md does not name `{key}` ({path})");
        }
    });
}

const DOCUMENTATION: &str = include_str!("../../docs/SCENARIO.md");

#[test]
fn whole_scenarios_in_the_documentation_are_read() {
    let blocks = DOCUMENTATION.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let whole: Vec<&str> = blocks.filter(|text| text.starts_with("schema = 1")).collect();
    assert_eq!(whole.len(), 2);
    for text in whole {
        parse(text, Path::new(""), "documentation.toml").unwrap();
    }
}

#[test]
fn messages_in_the_documentation_are_what_users_see() {
    let first = include_str!("../../scenarios/examples/first.toml");
    for (from, to) in [("hot_writes", "hot_writs"), ("to = \"dst\"", "to = \"dts\"")] {
        assert_eq!(first.matches(from).count(), 1);
        let message = parse(&first.replace(from, to), Path::new(""), "first.toml").unwrap_err().to_string();
        assert!(DOCUMENTATION.contains(&message), "{message}");
    }
}
