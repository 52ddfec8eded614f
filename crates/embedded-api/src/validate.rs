//! Validating an object against its schema, in the real server's words.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::{
    schema::{Checks, ListType, Schema, Type},
    status::{Cause, type_name},
};

/// Everything in `object` that its schema forbids.
pub(crate) fn causes(object: &Value, schema: &Schema) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(object, schema, "", &mut causes);
    causes
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn has_type(value: &Value, wanted: Type) -> bool {
    match wanted {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Boolean => value.is_boolean(),
        Type::Number => value.is_number(),
        Type::Integer => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        Type::IntOrString => value.is_string() || value.is_i64() || value.is_u64(),
    }
}

fn type_word(wanted: Type) -> &'static str {
    match wanted {
        Type::Any => "any",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer,string",
    }
}

fn check(value: &Value, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !has_type(value, schema.kind) {
        let why = format!(
            "{} in body must be of type {}: \"{}\"",
            shown_path(path),
            type_word(schema.kind),
            type_name(value)
        );
        causes.push(Cause::type_invalid(path, value, why));
        return;
    }
    if let Value::Object(map) = value {
        for name in &schema.required {
            if !map.contains_key(name) {
                causes.push(Cause::required(join(path, name), ""));
            }
        }
        for (name, value) in map {
            if let Some(field) = schema.properties.get(name) {
                check(value, field, &join(path, name), causes);
            } else if let Some(field) = schema.additional.as_deref() {
                check(value, field, &join(path, name), causes);
            }
        }
        if schema.embedded {
            for name in ["apiVersion", "kind"] {
                if map
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .is_empty()
                {
                    causes.push(Cause::required(join(path, name), "must not be empty"));
                }
            }
        }
    }
    if let Value::Array(items) = value {
        for (i, value) in items.iter().enumerate() {
            check(value, schema.item(), &format!("{path}[{i}]"), causes);
        }
        duplicates(items, schema, path, causes);
    }
    if let Some(checks) = &schema.checks {
        restrict(value, checks, path, causes);
    }
}

fn shown_path(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn duplicates(items: &[Value], schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    match &schema.list {
        ListType::Atomic => {}
        ListType::Set => {
            for (i, item) in items.iter().enumerate() {
                if items[..i].contains(item) {
                    causes.push(Cause::duplicate(format!("{path}[{i}]"), item));
                }
            }
        }
        ListType::Map(keys) => {
            let key_of = |item: &Value| -> Value {
                let item_schema = schema.item();
                let part = |k: &String| {
                    item.get(k)
                        .cloned()
                        .or_else(|| item_schema.child(k).default.clone())
                };
                keys.iter()
                    .filter_map(|k| part(k).map(|v| (k.clone(), v)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            };
            let all: Vec<Value> = items.iter().map(key_of).collect();
            for (i, key) in all.iter().enumerate() {
                if all[..i].contains(key) {
                    causes.push(Cause::duplicate(format!("{path}[{i}]"), key));
                }
            }
        }
    }
}

fn restrict(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    let at = shown_path(path);
    if !checks.one_of_values.is_empty() && !checks.one_of_values.contains(value) {
        causes.push(Cause::unsupported(path, value, &checks.one_of_values));
    }
    match value {
        Value::String(text) => strings(value, text, checks, path, causes),
        Value::Number(number) => {
            let n = number.as_f64().unwrap_or_default();
            if let Some((min, exclusive)) = checks.minimum
                && (n < min || (exclusive && n == min))
            {
                let word = if exclusive {
                    "greater than"
                } else {
                    "greater than or equal to"
                };
                causes.push(Cause::invalid(
                    path,
                    value,
                    format!("{at} in body should be {word} {min}"),
                ));
            }
            if let Some((max, exclusive)) = checks.maximum
                && (n > max || (exclusive && n == max))
            {
                let word = if exclusive {
                    "less than"
                } else {
                    "less than or equal to"
                };
                causes.push(Cause::invalid(
                    path,
                    value,
                    format!("{at} in body should be {word} {max}"),
                ));
            }
            if let Some(step) = checks.multiple_of
                && (n / step).fract() != 0.0
            {
                causes.push(Cause::invalid(
                    path,
                    value,
                    format!("{at} in body should be a multiple of {step}"),
                ));
            }
        }
        Value::Array(items) => {
            if let Some(max) = checks.items.1.filter(|m| items.len() as u64 > *m) {
                causes.push(Cause::too_many(path, items.len(), max));
            }
            if let Some(min) = checks.items.0.filter(|m| (items.len() as u64) < *m) {
                causes.push(Cause::invalid(
                    path,
                    &items.len().into(),
                    format!("{at} in body should have at least {min} items"),
                ));
            }
            if checks.unique_items
                && items
                    .iter()
                    .enumerate()
                    .any(|(i, v)| items[..i].contains(v))
            {
                causes.push(Cause::invalid(
                    path,
                    value,
                    format!("{at} in body shouldn't contain duplicates"),
                ));
            }
        }
        Value::Object(map) => {
            if let Some(max) = checks.properties.1.filter(|m| map.len() as u64 > *m) {
                causes.push(Cause::too_many(path, map.len(), max));
            }
            if let Some(min) = checks.properties.0.filter(|m| (map.len() as u64) < *m) {
                causes.push(Cause::invalid(
                    path,
                    &map.len().into(),
                    format!("{at} in body should have at least {min} properties"),
                ));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    combine(value, checks, path, causes);
}

/// The first thing wrong with a string: the real server says no more than one.
fn strings(value: &Value, text: &str, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    let at = shown_path(path);
    let length = text.chars().count() as u64;
    let cause = if let Some(max) = checks.length.1.filter(|m| length > *m) {
        Cause::too_long(path, max)
    } else if let Some(min) = checks.length.0.filter(|m| length < *m) {
        Cause::invalid(
            path,
            value,
            format!("{at} in body should be at least {min} chars long"),
        )
    } else if let Some((pattern, _)) = checks
        .pattern
        .as_ref()
        .filter(|(_, regex)| !regex.is_match(text))
    {
        Cause::invalid(
            path,
            value,
            format!("{at} in body should match '{pattern}'"),
        )
    } else if !has_format(text, &checks.format) {
        Cause::invalid(
            path,
            value,
            format!("{at} in body must be of type {}: {value}", checks.format),
        )
    } else {
        return;
    };
    causes.push(cause);
}

/// The formats that the real server checks (and that anybody here uses); unknown ones pass.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<k8s_openapi::jiff::Timestamp>().is_ok(),
        "date" => text.parse::<k8s_openapi::jiff::civil::Date>().is_ok(),
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(ip, bits)| {
            let max = if ip.parse::<Ipv4Addr>().is_ok() {
                32
            } else if ip.parse::<Ipv6Addr>().is_ok() {
                128
            } else {
                return false;
            };
            bits.parse::<u32>().is_ok_and(|b| b <= max)
        }),
        "mac" => {
            text.split([':', '-']).count() == 6
                && text
                    .split([':', '-'])
                    .all(|p| p.len() == 2 && u8::from_str_radix(p, 16).is_ok())
        }
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).is_ok(),
        _ => true,
    }
}

fn combine(value: &Value, checks: &Checks, path: &str, causes: &mut Vec<Cause>) {
    let at = shown_path(path);
    for schema in &checks.all_of {
        check(value, schema, path, causes);
    }
    let passing = |schemas: &[Schema]| {
        schemas
            .iter()
            .filter(|s| {
                let mut found = Vec::new();
                check(value, s, path, &mut found);
                found.is_empty()
            })
            .count()
    };
    if !checks.any_of.is_empty() && passing(&checks.any_of) == 0 {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{at} in body must validate at least one schema (anyOf)"),
        ));
    }
    if !checks.one_of.is_empty() {
        let passed = passing(&checks.one_of);
        if passed != 1 {
            let found = if passed == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {passed} valid alternatives")
            };
            causes.push(Cause::invalid(
                path,
                value,
                format!("{at} in body must validate one and only one schema (oneOf). {found}"),
            ));
        }
    }
    if let Some(not) = &checks.not {
        let mut found = Vec::new();
        check(value, not, path, &mut found);
        if found.is_empty() {
            causes.push(Cause::invalid(
                path,
                value,
                format!("{at} in body must not validate the schema (not)"),
            ));
        }
    }
}
