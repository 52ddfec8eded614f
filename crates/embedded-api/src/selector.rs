//! Label and field selectors.

use crate::{
    names::{key_problem, label_value_problem},
    object::Object,
    status::Failure,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// What a list or watch selects; the default selects everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    namespace: String,
    labels: Vec<(String, Test)>,
    name: Option<(bool, String)>,
    in_namespace: Option<(bool, String)>,
    /// Index among the kind's selectable fields, whether equal or different, the value.
    fields: Vec<(usize, bool, String)>,
}

/// The one requirement of a selector by which watchers are found without asking all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Handle {
    All,
    Name(String),
    Label(String, String),
    Field(usize, String),
}

impl Selector {
    /// Parses the query's `labelSelector` and `fieldSelector` for a kind with these selectable fields. An empty
    /// namespace means all of them.
    pub(crate) fn parse(
        namespace: &str,
        labels: &str,
        fields: &str,
        selectable: &[String],
        kind: &str,
    ) -> Result<Self, Failure> {
        let mut selector = Self {
            namespace: namespace.to_owned(),
            ..Self::default()
        };
        for requirement in split_outside_parentheses(labels) {
            selector.labels.push(parse_label(requirement.trim())?);
        }
        for requirement in fields.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            let (path, equal, value) = parse_field(requirement)?;
            let value = value.replace("\\,", ",").replace("\\=", "=");
            match path {
                "metadata.name" => selector.name = Some((equal, value)),
                "metadata.namespace" => selector.in_namespace = Some((equal, value)),
                _ => {
                    let index = selectable.iter().position(|s| s == path).ok_or_else(|| {
                        Failure::bad_request(format!("field label not supported: {path}"))
                            .with(serde_json::json!({"kind": kind}))
                    })?;
                    selector.fields.push((index, equal, value));
                }
            }
        }
        Ok(selector)
    }

    /// The namespace asked for; empty for all.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Only the object of this name.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = Some((true, name.to_owned()));
        self
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || *self.namespace == *object.key.namespace)
            && agrees(self.name.as_ref(), &object.key.name)
            && agrees(self.in_namespace.as_ref(), &object.key.namespace)
            && self.fields.iter().all(|(i, equal, value)| {
                object
                    .fields
                    .get(*i)
                    .is_some_and(|have| (**have == **value) == *equal)
            })
            && self.labels.iter().all(|(key, test)| {
                let have = object
                    .labels
                    .iter()
                    .find(|(k, _)| **k == **key)
                    .map(|(_, v)| &**v);
                test.passes(have)
            })
    }

    /// Whether it selects by name, label or field at all (beyond the namespace).
    pub(crate) fn is_narrow(&self) -> bool {
        self.name.is_some()
            || self.in_namespace.is_some()
            || !self.labels.is_empty()
            || !self.fields.is_empty()
    }

    /// The exact name asked for, if any.
    pub(crate) fn exact_name(&self) -> Option<&str> {
        self.name
            .as_ref()
            .filter(|(equal, _)| *equal)
            .map(|(_, name)| name.as_str())
    }

    pub(crate) fn handle(&self) -> Handle {
        if let Some(name) = self.exact_name() {
            return Handle::Name(name.to_owned());
        }
        if let Some((i, _, value)) = self.fields.iter().find(|(_, equal, _)| *equal) {
            return Handle::Field(*i, value.clone());
        }
        let one = self.labels.iter().find_map(|(key, test)| match test {
            Test::In(values) if values.len() == 1 => {
                Some(Handle::Label(key.clone(), values[0].clone()))
            }
            _ => None,
        });
        one.unwrap_or(Handle::All)
    }
}

fn agrees(wanted: Option<&(bool, String)>, have: &str) -> bool {
    wanted.is_none_or(|(equal, value)| (value == have) == *equal)
}

/// Every handle under which a watcher of this object may be registered, except [`Handle::All`].
pub(crate) fn handles_of(object: &Object, into: &mut Vec<Handle>) {
    let mut push = |handle: Handle| {
        if !into.contains(&handle) {
            into.push(handle);
        }
    };
    push(Handle::Name(object.key.name.to_string()));
    for (key, value) in &object.labels {
        push(Handle::Label(key.to_string(), value.to_string()));
    }
    for (i, value) in object.fields.iter().enumerate() {
        push(Handle::Field(i, value.to_string()));
    }
}

impl Test {
    fn passes(&self, have: Option<&str>) -> bool {
        match (self, have) {
            (Self::In(values), Some(have)) => values.iter().any(|v| v == have),
            (Self::NotIn(values), Some(have)) => values.iter().all(|v| v != have),
            (Self::NotIn(_) | Self::Missing, None) | (Self::Exists, Some(_)) => true,
            (Self::Greater(than), Some(have)) => have.parse::<i64>().is_ok_and(|n| n > *than),
            (Self::Less(than), Some(have)) => have.parse::<i64>().is_ok_and(|n| n < *than),
            (Self::In(_) | Self::Exists | Self::Greater(_) | Self::Less(_), None)
            | (Self::Missing, Some(_)) => false,
        }
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|p| !p.trim().is_empty());
    parts
}

fn parse_label(text: &str) -> Result<(String, Test), Failure> {
    let refuse = |why: String| Failure::bad_request(format!("unable to parse requirement: {why}"));
    let checked = |key: &str, test: Test| {
        let key = key.trim();
        if let Some(why) = key_problem(key) {
            return Err(refuse(format!("<nil>: Invalid value: \"{key}\": {why}")));
        }
        if let Test::In(values) | Test::NotIn(values) = &test {
            for value in values {
                if let Some(why) = label_value_problem(value) {
                    return Err(refuse(format!(
                        "values[0][{key}]: Invalid value: \"{value}\": {why}"
                    )));
                }
            }
        }
        Ok((key.to_owned(), test))
    };
    if let Some((head, list)) = text.split_once('(') {
        let Some(list) = list.trim_end().strip_suffix(')') else {
            return Err(refuse(format!("found '{text}', expected: ',' or ')'")));
        };
        let values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => checked(key, Test::In(values)),
            (Some(key), Some("notin"), None) => checked(key, Test::NotIn(values)),
            _ => Err(refuse(format!(
                "found '{head}', expected: in, notin, =, ==, !=, gt, lt"
            ))),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return checked(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return checked(key, Test::In(vec![value.trim().to_owned()]));
    }
    for (sign, build) in [('>', Test::Greater as fn(i64) -> Test), ('<', Test::Less)] {
        if let Some((key, value)) = text.split_once(sign) {
            let value = value.trim();
            let number = value.parse().map_err(|_| {
                refuse(format!("values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"))
            })?;
            return checked(key, build(number));
        }
    }
    match text.strip_prefix('!') {
        Some(key) => checked(key, Test::Missing),
        None => checked(text, Test::Exists),
    }
}

fn parse_field(text: &str) -> Result<(&str, bool, &str), Failure> {
    let parts = text.split_once("!=").map(|(k, v)| (k, false, v));
    let parts = parts.or_else(|| text.split_once("==").map(|(k, v)| (k, true, v)));
    let parts = parts.or_else(|| text.split_once('=').map(|(k, v)| (k, true, v)));
    parts.ok_or_else(|| {
        Failure::bad_request(format!(
            "invalid selector: '{text}'; can't understand '{text}'"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Object {
        let value = json!({"metadata": {"name": "a", "namespace": "n", "labels": {"app": "x", "size": "5"}}, "spec": {"nodeName": "w"}});
        Object::new(&value, 1, &["spec.nodeName".to_owned()])
    }

    fn selects(labels: &str, fields: &str) -> bool {
        Selector::parse("", labels, fields, &["spec.nodeName".to_owned()], "Pod")
            .expect(labels)
            .matches(&object())
    }

    #[test]
    fn selectors_match_like_kubernetes() {
        for (labels, fields) in [
            ("", ""),
            ("app=x", ""),
            ("app==x,size", ""),
            ("app in (y, x)", "metadata.name=a"),
            ("other!=1", "metadata.namespace!=m"),
            ("other notin (1,2),!other", "spec.nodeName=w"),
            ("size>4,size<6", "spec.nodeName!="),
        ] {
            assert!(selects(labels, fields), "{labels} {fields}");
        }
        for (labels, fields) in [
            ("app=y", ""),
            ("!app", ""),
            ("app notin (x)", ""),
            ("other", ""),
            ("other in (x)", ""),
            ("size>5", ""),
            ("", "metadata.name!=a"),
            ("", "spec.nodeName=v"),
        ] {
            assert!(!selects(labels, fields), "{labels} {fields}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (labels, fields) in [
            ("a in (b", ""),
            ("a is (b)", ""),
            ("-=x", ""),
            ("", "spec.other=1"),
            ("", "name"),
        ] {
            assert!(
                Selector::parse("", labels, fields, &[], "Pod").is_err(),
                "{labels} {fields}"
            );
        }
    }
}
