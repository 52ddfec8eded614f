//! Strategic merge patch: JSON merge patch that knows how the built-in kinds' lists merge.
//!
//! Directives: `$patch: replace | delete` in objects and list items, `$deleteFromPrimitiveList/<field>`,
//! `$setElementOrder/<field>`, `$retainKeys`. Others are refused.

use serde_json::{Map, Value};

use crate::{
    schema::{Schema, Strategy},
    status::Failure,
};

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

fn refuse(why: impl std::fmt::Display) -> Failure {
    Failure::bad_request(format!("strategic merge patch: {why}"))
}

/// Applies `patch` to `object`, whose lists merge as `schema` says.
pub(crate) fn merge(object: &mut Value, patch: Value, schema: &Schema) -> Result<(), Failure> {
    let Value::Object(patch) = patch else {
        return Err(refuse("the patch must be an object"));
    };
    merge_map(object, patch, schema)
}

fn merge_map(
    object: &mut Value,
    mut patch: Map<String, Value>,
    schema: &Schema,
) -> Result<(), Failure> {
    match patch.remove("$patch").as_ref().and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *object = clean(Value::Object(patch));
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            return Err(refuse(format!(
                "unknown $patch directive {other:?}; use merge, replace or delete"
            )));
        }
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(map) = object.as_object_mut() else {
        return Ok(());
    };
    if let Some(keep) = patch.remove("$retainKeys") {
        let keep: Vec<&str> = keep
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        map.retain(|name, _| keep.contains(&name.as_str()));
    }
    let mut orders = Vec::new();
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if let Some(list) = name.strip_prefix(ORDER) {
            orders.push((list.to_owned(), value));
        } else if name.starts_with('$') {
            return Err(refuse(format!("unknown directive {name:?}")));
        } else if value.is_null() {
            map.remove(&name);
        } else {
            merge_value(
                map.entry(name.clone()).or_insert(Value::Null),
                value,
                schema.child(&name),
            )?;
        }
    }
    for (list, order) in orders {
        let strategy = &schema.child(&list).strategy;
        if let Some(items) = map.get_mut(&list).and_then(Value::as_array_mut) {
            let before: Vec<Value> = items.iter().map(|i| identity(i, strategy)).collect();
            let order = order.as_array().map(Vec::as_slice).unwrap_or_default();
            let named: Vec<Value> = order.iter().map(|o| identity(o, strategy)).collect();
            *items = interleave(std::mem::take(items), &named, &before, strategy);
        }
    }
    Ok(())
}

fn merge_value(target: &mut Value, patch: Value, schema: &Schema) -> Result<(), Failure> {
    match patch {
        Value::Object(map) => merge_map(target, map, schema),
        Value::Array(items) => merge_list(target, items, schema),
        scalar => {
            *target = scalar;
            Ok(())
        }
    }
}

fn merge_list(target: &mut Value, patch: Vec<Value>, schema: &Schema) -> Result<(), Failure> {
    let mut have = target
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    let before: Vec<Value> = have.iter().map(|i| identity(i, &schema.strategy)).collect();
    let mut named: Vec<Value> = Vec::new();
    match &schema.strategy {
        Strategy::Replace => have = patch.into_iter().map(clean).collect(),
        Strategy::Merge => {
            for item in patch {
                named.push(item.clone());
                if !have.contains(&item) {
                    have.push(item);
                }
            }
        }
        Strategy::MergeBy(key) => {
            if patch.iter().any(|i| i["$patch"] == "replace") {
                have.clear();
            }
            for mut item in patch {
                let directive = item
                    .get("$patch")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                if directive.as_deref() == Some("replace")
                    && item.as_object().is_some_and(|m| m.len() == 1)
                {
                    continue;
                }
                let Some(id) = item.get(key).cloned() else {
                    return Err(refuse(format!(
                        "map: {item} does not contain declared merge key: {key}"
                    )));
                };
                let at = have.iter().position(|h| h.get(key) == Some(&id));
                match (directive.as_deref(), at) {
                    (Some("delete"), at) => {
                        at.map(|i| have.remove(i));
                    }
                    (_, Some(i)) => merge_value(&mut have[i], item, schema.item())?,
                    (_, None) => {
                        item.as_object_mut().map(|m| m.remove("$patch"));
                        have.push(clean(item));
                    }
                }
                named.push(id);
            }
        }
    }
    *target = Value::Array(interleave(have, &named, &before, &schema.strategy));
    Ok(())
}

/// What tells an item from the others of its list.
fn identity(item: &Value, strategy: &Strategy) -> Value {
    match strategy {
        Strategy::MergeBy(key) => item.get(key).cloned().unwrap_or_default(),
        Strategy::Replace | Strategy::Merge => item.clone(),
    }
}

/// The order of a merged list: items that the request names come in its order, the others in theirs; of one of each the
/// former comes first unless the list had them the other way round.
fn interleave(
    items: Vec<Value>,
    named: &[Value],
    before: &[Value],
    strategy: &Strategy,
) -> Vec<Value> {
    let place =
        |list: &[Value], item: &Value| list.iter().position(|v| *v == identity(item, strategy));
    let (mut first, second): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|i| place(named, i).is_some());
    first.sort_by_key(|i| place(named, i));
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let other_first =
            matches!((place(before, a), place(before, b)), (Some(a), Some(b)) if b < a);
        merged.extend(if other_first {
            second.next()
        } else {
            first.next()
        });
    }
    merged.extend(first);
    merged.extend(second);
    merged
}

/// What remains of new content when its directives and nulls are taken out.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .into_iter()
                .filter(|(k, v)| !v.is_null() && !k.starts_with('$'));
            Value::Object(kept.map(|(k, v)| (k, clean(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(clean).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        let json = json!({"type": "object", "properties": {
            "env": {"type": "array", "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "finalizers": {"type": "array", "x-kubernetes-patch-strategy": "merge", "items": {"type": "string"}},
            "args": {"type": "array", "items": {"type": "string"}},
        }});
        Schema::compile(&json, &Map::new()).expect("compiles")
    }

    fn patched(mut object: Value, patch: Value) -> Value {
        merge(&mut object, patch, &schema()).expect("merges");
        object
    }

    #[test]
    fn lists_merge_by_key_by_value_or_not_at_all() {
        let object = json!({"env": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}], "finalizers": ["x"], "args": ["1"]});
        let got = patched(
            object.clone(),
            json!({"env": [{"name": "b", "value": "3"}, {"name": "c"}], "finalizers": ["x", "y"], "args": ["2"]}),
        );
        let want = json!({"env": [{"name": "a", "value": "1"}, {"name": "b", "value": "3"}, {"name": "c"}], "finalizers": ["x", "y"], "args": ["2"]});
        assert_eq!(got, want);
        let got = patched(
            object,
            json!({"env": [{"$patch": "delete", "name": "a"}], "$deleteFromPrimitiveList/finalizers": ["x"], "args": null}),
        );
        assert_eq!(
            got,
            json!({"env": [{"name": "b", "value": "2"}], "finalizers": []})
        );
    }

    #[test]
    fn order_and_replacement_are_followed() {
        let object = json!({"env": [{"name": "a"}, {"name": "b"}]});
        let got = patched(
            object.clone(),
            json!({"env": [{"name": "c"}], "$setElementOrder/env": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}),
        );
        assert_eq!(
            got,
            json!({"env": [{"name": "c"}, {"name": "b"}, {"name": "a"}]})
        );
        let got = patched(
            object.clone(),
            json!({"env": [{"$patch": "replace"}, {"name": "z"}]}),
        );
        assert_eq!(got, json!({"env": [{"name": "z"}]}));
        assert!(
            merge(
                &mut object.clone(),
                json!({"env": [{"value": "1"}]}),
                &schema()
            )
            .is_err()
        );
        assert!(merge(&mut object.clone(), json!({"$other": 1}), &schema()).is_err());
    }
}
