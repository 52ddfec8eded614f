//! Sets of field paths: the `fieldsV1` of managedFields, and the arithmetic that server-side apply does on them.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

use crate::schema::Schema;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A field of an object: `f:name`.
    Field(String),
    /// An item of a keyed list, by its keys as JSON: `k:{"name":"a"}`.
    Key(String),
    /// An item of a set, as JSON: `v:"a"`.
    Item(String),
    /// An item by position: `i:0`. Only read, never made.
    Index(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    owned: bool,
    below: Fields,
}

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeMap<Step, Node>);

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the path `[step]` itself.
    pub(crate) fn own(&mut self, step: Step) {
        self.0.entry(step).or_default().owned = true;
    }

    /// Adds paths below `step`.
    pub(crate) fn put_below(&mut self, step: Step, below: Self) {
        if !below.is_empty() {
            let node = self.0.entry(step).or_default();
            node.below = std::mem::take(&mut node.below).union(below);
        }
    }

    pub(crate) fn owns(&self, step: &Step) -> bool {
        self.0.get(step).is_some_and(|n| n.owned)
    }

    pub(crate) fn below(&self, step: &Step) -> Option<&Self> {
        self.0.get(step).map(|n| &n.below).filter(|b| !b.is_empty())
    }

    pub(crate) fn union(mut self, other: Self) -> Self {
        for (step, node) in other.0 {
            let mine = self.0.entry(step).or_default();
            mine.owned |= node.owned;
            mine.below = std::mem::take(&mut mine.below).union(node.below);
        }
        self
    }

    /// The paths of `self` that are not paths of `other`.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && !theirs)
    }

    /// The paths in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && theirs)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        static NOTHING: Node = Node {
            owned: false,
            below: Fields(BTreeMap::new()),
        };
        let mut result = Self::default();
        for (step, mine) in &self.0 {
            let theirs = other.0.get(step).unwrap_or(&NOTHING);
            let node = Node {
                owned: keep(mine.owned, theirs.owned),
                below: mine.below.combine(&theirs.below, keep),
            };
            if node.owned || !node.below.is_empty() {
                result.0.insert(step.clone(), node);
            }
        }
        result
    }

    /// Makes every declared field on the way to a path a path itself.
    pub(crate) fn with_named_parents(&self, schema: &Schema) -> Self {
        let mut result = Self::default();
        for (step, node) in &self.0 {
            let declared = match step {
                Step::Field(name) => schema.properties.get(name),
                _ => None,
            };
            let below = match step {
                Step::Field(name) => node.below.with_named_parents(schema.child(name)),
                _ => node.below.with_named_parents(schema.item()),
            };
            result.0.insert(
                step.clone(),
                Node {
                    owned: node.owned || declared.is_some(),
                    below,
                },
            );
        }
        result
    }

    /// Takes out a top-level field with all below it.
    pub(crate) fn remove_field(&mut self, name: &str) -> Option<Self> {
        self.0
            .remove(&Step::Field(name.to_owned()))
            .map(|n| n.below)
    }

    /// Leaves only this top-level field and what is below it.
    pub(crate) fn only_field(&mut self, name: &str) {
        self.0
            .retain(|step, _| matches!(step, Step::Field(f) if f == name));
    }

    /// Every path, as messages print it: `.spec.items[name="a"].value`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        // Paths of this depth come before deeper ones, as in the real server's messages.
        for (step, node) in &self.0 {
            if node.owned {
                paths.push(format!("{prefix}{step}"));
            }
        }
        for (step, node) in &self.0 {
            node.below.collect(&format!("{prefix}{step}"), paths);
        }
    }

    /// The `fieldsV1` form.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (step, node) in &self.0 {
            let name = match step {
                Step::Field(s) => format!("f:{s}"),
                Step::Key(s) => format!("k:{s}"),
                Step::Item(s) => format!("v:{s}"),
                Step::Index(s) => format!("i:{s}"),
            };
            let mut below = node.below.to_json();
            if node.owned && !node.below.is_empty() {
                below["."] = Value::Object(Map::new());
            }
            map.insert(name, below);
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`; says what it cannot read.
    pub(crate) fn from_json(json: &Value) -> Result<Self, String> {
        let mut fields = Self::default();
        for (name, below) in json.as_object().into_iter().flatten() {
            if name == "." {
                continue;
            }
            let canonical = |s: &str| -> Result<String, String> {
                serde_json::from_str::<Value>(s)
                    .map(|v| v.to_string())
                    .map_err(|e| format!("{name:?} is no path element: {e}"))
            };
            let step = match name.split_once(':') {
                Some(("f", s)) => Step::Field(s.to_owned()),
                Some(("k", s)) => Step::Key(canonical(s)?),
                Some(("v", s)) => Step::Item(canonical(s)?),
                Some(("i", s)) => Step::Index(s.to_owned()),
                _ => return Err(format!("{name:?} is no path element")),
            };
            let deeper = Self::from_json(below)?;
            let owned = deeper.is_empty() || below.get(".").is_some();
            fields.0.insert(
                step,
                Node {
                    owned,
                    below: deeper,
                },
            );
        }
        Ok(fields)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(json) => {
                let keys: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let words: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", words.join(","))
            }
            Self::Item(json) => write!(f, "[={json}]"),
            Self::Index(i) => write!(f, "[{i}]"),
        }
    }
}
