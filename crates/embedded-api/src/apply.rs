//! Server-side apply, and the record of who set which field that every write keeps.

use serde_json::{Value, json};

use crate::{
    fields::Fields,
    schema::Schema,
    status::Failure,
    typed::{compare, merge, paths, without},
};

/// Managers by update that an object remembers; beyond it the oldest are merged.
const UPDATERS_MAX: usize = 10;
/// Fields that the server sets or that identify the object: nobody owns them.
const UNOWNED: [&str; 8] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    /// `status`, or empty.
    pub(crate) subresource: &'a str,
    /// RFC 3339, in seconds.
    pub(crate) now: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    manager: String,
    applied: bool,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

impl Entry {
    fn of(writer: &Writer<'_>, applied: bool, fields: Fields) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            applied,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.now.to_owned(),
            fields,
        }
    }

    fn is_same_manager(&self, other: &Self) -> bool {
        (&self.manager, self.applied, &self.subresource)
            == (&other.manager, other.applied, &other.subresource)
            && (self.applied || self.api_version == other.api_version)
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": if self.applied { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if !self.time.is_empty() {
            entry["time"] = self.time.as_str().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }

    fn from_json(json: &Value) -> Result<Self, String> {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            manager: text("manager"),
            applied: json["operation"] == "Apply",
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: Fields::from_json(&json["fieldsV1"])?,
        })
    }

    /// As a conflict names it.
    fn shown(&self) -> String {
        let mut words = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            words += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.applied {
            words += &format!(" using {}", self.api_version);
            if !self.time.is_empty() {
                words += &format!(" at {}", self.time);
            }
        }
        words
    }
}

fn entries(object: &Value) -> Result<Vec<Entry>, Failure> {
    let all = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    all.filter(|e| e["fieldsV1"].is_object())
        .map(Entry::from_json)
        .collect::<Result<_, _>>()
        .map_err(|why| {
            Failure::bad_request(format!("metadata.managedFields cannot be read: {why}"))
        })
}

fn set_entries(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    // The real server's order: by operation, then time, then manager.
    entries.sort_by(|a, b| {
        (!a.applied, &a.time, &a.manager, &a.api_version).cmp(&(
            !b.applied,
            &b.time,
            &b.manager,
            &b.api_version,
        ))
    });
    let meta = &mut object["metadata"];
    if entries.is_empty() {
        meta.as_object_mut().map(|m| m.remove("managedFields"));
    } else {
        meta["managedFields"] = entries.iter().map(Entry::to_json).collect();
    }
}

/// Removes what nobody owns, and what the written part of the object does not hold.
fn owned(mut fields: Fields, subresource: &str, has_status: bool) -> Fields {
    fields.remove_field("apiVersion");
    fields.remove_field("kind");
    if let Some(mut meta) = fields.remove_field("metadata") {
        for name in UNOWNED {
            meta.remove_field(name);
        }
        fields.put_below(crate::fields::Step::Field("metadata".into()), meta);
    }
    match subresource {
        "status" => fields.only_field("status"),
        _ if has_status => {
            fields.remove_field("status");
        }
        _ => {}
    }
    fields
}

/// The object without its own record.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]
        .as_object_mut()
        .map(|m| m.remove("managedFields"));
    object
}

/// Records in `new` that `writer` made it out of `old` by create, replace or patch.
pub(crate) fn record(
    old: Option<&Value>,
    new: &mut Value,
    schema: &Schema,
    has_status: bool,
    writer: &Writer<'_>,
) -> Result<(), Failure> {
    // Sending one empty entry clears the record.
    let cleared = new["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|m| !m.is_empty() && m.iter().all(|e| *e == json!({})));
    if cleared {
        set_entries(new, Vec::new());
        return Ok(());
    }
    let sent = new["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|m| !m.is_empty());
    let mut all = match (sent, old) {
        (true, _) => entries(new)?,
        (false, Some(old)) => entries(old)?,
        (false, None) => Vec::new(),
    };
    let before = old.map(bare);
    let empty = json!({});
    let after = bare(new);
    let difference = compare(
        Some(before.as_ref().unwrap_or(&empty)),
        Some(&after),
        schema,
    );
    let changed = difference.added.union(difference.modified);
    let mine = Entry::of(writer, false, Fields::default());
    for entry in all.iter_mut() {
        if !entry.is_same_manager(&mine) {
            entry.fields = entry
                .fields
                .difference(&changed)
                .difference(&difference.removed);
        }
    }
    let at = all.iter().position(|e| e.is_same_manager(&mine));
    let had = at.map(|i| all.remove(i));
    let fields = had.as_ref().map(|e| e.fields.clone()).unwrap_or_default();
    let fields = owned(
        fields.difference(&difference.removed).union(changed),
        writer.subresource,
        has_status,
    );
    let time = match had {
        Some(had) if had.fields == fields => had.time,
        _ => writer.now.to_owned(),
    };
    all.push(Entry {
        time,
        fields,
        ..mine
    });
    cap(&mut all);
    set_entries(new, all);
    Ok(())
}

/// Merges the oldest updaters of one version until there are few enough.
fn cap(all: &mut Vec<Entry>) {
    while all.iter().filter(|e| !e.applied).count() > UPDATERS_MAX {
        all.sort_by(|a, b| (a.applied, &a.time).cmp(&(b.applied, &b.time)));
        let first = all.remove(0);
        let Some(next) = all
            .iter_mut()
            .find(|e| !e.applied && e.api_version == first.api_version)
        else {
            return;
        };
        next.fields = std::mem::take(&mut next.fields).union(first.fields);
        next.manager = "ancient-changes".into();
        next.subresource = String::new();
    }
}

/// Applies `config` to `live` (an object without content when it is to be created).
///
/// # Errors
/// 409 with every conflicting field when others own what changes and `force` is not given.
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    schema: &Schema,
    has_status: bool,
    force: bool,
    writer: &Writer<'_>,
) -> Result<Value, Failure> {
    let mut all = entries(live)?;
    let live_bare = bare(live);
    if all.is_empty() && live["metadata"]["uid"].is_string() {
        let fields = owned(paths(&live_bare, schema), "", has_status);
        let writer = Writer {
            manager: "before-first-apply",
            subresource: "",
            ..writer.clone()
        };
        all.push(Entry::of(&writer, false, fields));
    }
    let merged = merge(&live_bare, config, schema).map_err(|why| {
        Failure::bad_request(format!("failed to create typed patch object: {why}"))
    })?;
    let fields = owned(paths(config, schema), writer.subresource, has_status);
    let mut mine = Entry::of(writer, true, fields);
    let last = all
        .iter()
        .position(|e| e.is_same_manager(&mine))
        .map(|i| all.remove(i));
    let mut new = match &last {
        Some(last) => prune(&merged, &last.fields, &all, &mine.fields, schema),
        None => merged,
    };

    let difference = compare(Some(&live_bare), Some(&new), schema);
    let changed = difference.added.union(difference.modified);
    let conflicts: Vec<(Entry, Fields)> = all
        .iter()
        .map(|e| (e.clone(), e.fields.intersection(&changed)))
        .filter(|(_, f)| !f.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    for entry in all.iter_mut() {
        entry.fields = entry
            .fields
            .difference(&changed)
            .difference(&difference.removed);
    }
    if let Some(last) =
        last.filter(|l| l.fields == mine.fields && l.api_version == mine.api_version)
    {
        mine.time = last.time;
    }
    all.push(mine);
    set_entries(&mut new, all);
    Ok(new)
}

/// Takes out what this manager applied before, does not apply now, and nobody else owns.
fn prune(merged: &Value, last: &Fields, others: &[Entry], mine: &Fields, schema: &Schema) -> Value {
    let named = last.with_named_parents(schema);
    let pruned = without(merged, &named, schema).unwrap_or_else(|| json!({}));
    let kept = others
        .iter()
        .fold(mine.clone(), |all, e| all.union(e.fields.clone()))
        .with_named_parents(schema);
    let full = paths(merged, schema).with_named_parents(schema);
    let left = paths(&pruned, schema)
        .with_named_parents(schema)
        .union(kept);
    let pruned = without(merged, &full.difference(&left), schema).unwrap_or_else(|| json!({}));
    // Only what this manager had may go: what hangs below it and belongs to nobody stays.
    let left = paths(&pruned, schema).with_named_parents(schema);
    // A parent goes only by becoming empty: metadata holds fields that nobody ever owns.
    without(merged, &full.difference(&left).intersection(last), schema).unwrap_or_else(|| json!({}))
}

fn conflict(conflicts: &[(Entry, Fields)]) -> Failure {
    let mut listed: Vec<(String, Vec<String>)> = conflicts
        .iter()
        .map(|(e, f)| (e.shown(), f.paths()))
        .collect();
    listed.sort();
    let count: usize = listed.iter().map(|(_, paths)| paths.len()).sum();
    let message = match listed.as_slice() {
        [(manager, paths)] if paths.len() == 1 => {
            format!(
                "Apply failed with 1 conflict: conflict with {manager}: {}",
                paths[0]
            )
        }
        many => {
            let lines = many.iter().flat_map(|(manager, paths)| {
                std::iter::once(format!("conflicts with {manager}:"))
                    .chain(paths.iter().map(|p| format!("- {p}")))
            });
            format!(
                "Apply failed with {count} conflicts: {}",
                lines.collect::<Vec<_>>().join("\n")
            )
        }
    };
    let causes: Vec<Value> = listed
        .iter()
        .flat_map(|(manager, paths)| {
            paths.iter().map(move |p| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": p}))
        })
        .collect();
    Failure::new(409, "Conflict", message).with(json!({"causes": causes}))
}
