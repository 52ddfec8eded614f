//! Giving an object its schema's shape: unknown fields out, defaults in.

use serde_json::Value;

use crate::schema::{Schema, Type};

/// Removes what the schema does not know and returns the paths of it, as the real server words them.
pub(crate) fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(object, schema, "", true, &mut unknown);
    unknown
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn prune_at(value: &mut Value, schema: &Schema, path: &str, root: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if schema.kind == Type::Any && schema.open && schema.properties.is_empty() {
                return;
            }
            let whole = root || schema.embedded;
            map.retain(|name, value| {
                if whole
                    && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
                    && !(root && name == "metadata")
                {
                    return true;
                }
                match schema.field(name) {
                    Some(field) => {
                        prune_at(value, field, &join(path, name), false, unknown);
                        true
                    }
                    None if schema.open => true,
                    None => {
                        unknown.push(join(path, name));
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            if let Some(item) = schema.items.as_deref() {
                for (i, value) in items.iter_mut().enumerate() {
                    prune_at(value, item, &format!("{path}[{i}]"), false, unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the schema's defaults; a null where null is not allowed gives way to the default.
pub(crate) fn fill_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.properties {
                if let Some(default) = &field.default {
                    let replace = match map.get(name) {
                        None => true,
                        Some(Value::Null) => !field.nullable,
                        Some(_) => false,
                    };
                    if replace {
                        map.insert(name.clone(), default.clone());
                    }
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    fill_defaults(value, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = schema.items.as_deref() {
                items.iter_mut().for_each(|v| fill_defaults(v, item));
            }
        }
        _ => {}
    }
}

/// Drops nulls from objects where the schema does not allow them: to clients null and absent are the same there.
pub(crate) fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| !value.is_null() || schema.child(name).nullable);
            for (name, value) in map.iter_mut() {
                drop_nulls(value, schema.child(name));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| drop_nulls(v, schema.item())),
        _ => {}
    }
}
