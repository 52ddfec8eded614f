//! Values under a schema: which paths they hold, how two differ, how they merge, how paths are taken out.
//!
//! The rules are those of sigs.k8s.io/structured-merge-diff: objects merge field by field unless they are atomic, lists
//! merge by key or value when the schema says so and are atomic otherwise.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    fields::{Fields, Step},
    schema::{ListType, Schema},
};

/// How the items of a list are told apart; `None` when the list is one value, or an item has no key.
fn item_steps(items: &[Value], schema: &Schema) -> Option<Vec<Step>> {
    match &schema.list {
        ListType::Atomic => None,
        ListType::Set => Some(items.iter().map(|i| Step::Item(i.to_string())).collect()),
        ListType::Map(keys) => items
            .iter()
            .map(|item| item_key(item, keys, schema.item()))
            .collect(),
    }
}

fn item_key(item: &Value, keys: &[String], schema: &Schema) -> Option<Step> {
    let object = item.as_object()?;
    let mut key = Map::new();
    for name in keys {
        let value = object
            .get(name)
            .cloned()
            .or_else(|| schema.child(name).default.clone());
        if let Some(value) = value {
            key.insert(name.clone(), value);
        }
    }
    (!key.is_empty()).then(|| Step::Key(Value::Object(key).to_string()))
}

/// The paths that a value holds.
pub(crate) fn paths(value: &Value, schema: &Schema) -> Fields {
    let mut fields = Fields::default();
    match value {
        Value::Object(map) if !schema.atomic => {
            for (name, value) in map {
                let child = schema.child(name);
                let step = Step::Field(name.clone());
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if is_leaf(value, child) || empty || !schema.properties.contains_key(name) {
                    fields.own(step.clone());
                }
                fields.put_below(step, paths(value, child));
            }
        }
        Value::Array(items) => {
            for (step, item) in item_steps(items, schema).into_iter().flatten().zip(items) {
                fields.own(step.clone());
                fields.put_below(step, paths(item, schema.item()));
            }
        }
        _ => {}
    }
    fields
}

/// Whether the value is owned as one.
fn is_leaf(value: &Value, schema: &Schema) -> bool {
    match value {
        Value::Object(_) => schema.atomic,
        Value::Array(items) => item_steps(items, schema).is_none(),
        _ => true,
    }
}

/// How two values differ.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) added: Fields,
    pub(crate) modified: Fields,
    pub(crate) removed: Fields,
}

impl Difference {
    fn put_below(&mut self, step: &Step, other: Self) {
        self.added.put_below(step.clone(), other.added);
        self.modified.put_below(step.clone(), other.modified);
        self.removed.put_below(step.clone(), other.removed);
    }
}

/// What changed from `old` to `new`, which are both objects or both lists.
pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, schema: &Schema) -> Difference {
    let mut difference = Difference::default();
    if old == new {
        return difference;
    }
    let parts = |value: Option<&Value>| -> Vec<(Step, Value)> {
        match value {
            Some(Value::Object(map)) if !schema.atomic => map
                .iter()
                .map(|(name, v)| (Step::Field(name.clone()), v.clone()))
                .collect(),
            Some(Value::Array(items)) => item_steps(items, schema)
                .into_iter()
                .flatten()
                .zip(items.iter().cloned())
                .collect(),
            _ => Vec::new(),
        }
    };
    let mut pairs: BTreeMap<Step, (Option<Value>, Option<Value>)> = BTreeMap::new();
    for (step, value) in parts(old) {
        pairs.entry(step).or_default().0 = Some(value);
    }
    for (step, value) in parts(new) {
        pairs.entry(step).or_default().1 = Some(value);
    }
    for (step, (old, new)) in &pairs {
        let child = match step {
            Step::Field(name) => schema.child(name),
            _ => schema.item(),
        };
        match (old, new) {
            (None, Some(new)) => {
                difference.added.own(step.clone());
                if !is_leaf(new, child) {
                    difference.put_below(step, compare(None, Some(new), child));
                }
            }
            (Some(old), None) => {
                difference.removed.own(step.clone());
                if !is_leaf(old, child) {
                    difference.put_below(step, compare(Some(old), None, child));
                }
            }
            (Some(old), Some(new)) if old != new => {
                if is_leaf(old, child) || is_leaf(new, child) || is_empty(old) && is_empty(new) {
                    difference.modified.own(step.clone());
                } else {
                    difference.put_below(step, compare(Some(old), Some(new), child));
                }
            }
            _ => {}
        }
    }
    difference
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value.as_object().is_some_and(Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

/// `live` with `config` laid over it.
pub(crate) fn merge(live: &Value, config: &Value, schema: &Schema) -> Result<Value, String> {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !schema.atomic => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = match live.get(name) {
                    Some(live) => {
                        merge(live, value, schema.child(name)).map_err(|e| format!(".{name}{e}"))?
                    }
                    None => merge(&Value::Null, value, schema.child(name))
                        .map_err(|e| format!(".{name}{e}"))?,
                };
                merged.insert(name.clone(), value);
            }
            Ok(Value::Object(merged))
        }
        (_, Value::Array(config)) => merge_list(live, config, schema),
        _ => Ok(config.clone()),
    }
}

fn merge_list(live: &Value, config: &[Value], schema: &Schema) -> Result<Value, String> {
    let live = live.as_array().map(Vec::as_slice).unwrap_or_default();
    if schema.list == ListType::Atomic {
        return Ok(Value::from(config));
    }
    let Some(right) = item_steps(config, schema) else {
        return Err(format!(
            ": an item of the list has none of its keys {:?}",
            schema.list
        ));
    };
    for (i, step) in right.iter().enumerate() {
        if right[..i].contains(step) {
            return Err(format!(": duplicate entries for key {step}"));
        }
    }
    let Some(left) = item_steps(live, schema) else {
        return Ok(Value::from(config));
    };
    let merged = |r: usize| -> Result<Value, String> {
        match left.iter().position(|s| *s == right[r]) {
            Some(l) => {
                merge(&live[l], &config[r], schema.item()).map_err(|e| format!("{}{e}", right[r]))
            }
            None => Ok(config[r].clone()),
        }
    };
    // Items that only `live` has keep their place between the shared ones, which come in the order of `config`.
    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut next = 0;
    for (l, step) in left.iter().enumerate() {
        match right.iter().position(|s| s == step) {
            None => out.push(live[l].clone()),
            Some(r) => {
                while next <= r {
                    out.push(merged(next)?);
                    next += 1;
                }
            }
        }
    }
    for r in next..right.len() {
        out.push(merged(r)?);
    }
    Ok(Value::Array(out))
}

/// `value` without the paths in `gone`; `None` when nothing is left of it.
pub(crate) fn without(value: &Value, gone: &Fields, schema: &Schema) -> Option<Value> {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut kept = Map::new();
            for (name, value) in map {
                let step = Step::Field(name.clone());
                if gone.owns(&step) {
                    continue;
                }
                let value = match gone.below(&step) {
                    Some(below) => without(value, below, schema.child(name)),
                    None => Some(value.clone()),
                };
                if let Some(value) = value {
                    kept.insert(name.clone(), value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) if !items.is_empty() => {
            let Some(steps) = item_steps(items, schema) else {
                return Some(value.clone());
            };
            let mut kept = Vec::new();
            for (step, item) in steps.iter().zip(items) {
                if gone.owns(step) {
                    continue;
                }
                kept.extend(match gone.below(step) {
                    Some(below) => without(item, below, schema.item()),
                    None => Some(item.clone()),
                });
            }
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other.clone()),
    }
}
