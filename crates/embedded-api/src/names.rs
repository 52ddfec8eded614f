//! Names, labels and annotations: the rules of RFC 1123 as Kubernetes reads them.

use serde_json::Value;

use crate::status::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
'[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

fn is_label(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !s.is_empty() && s.bytes().all(inner) && !s.starts_with('-') && !s.ends_with('-')
}

fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

fn is_qualified_part(s: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    s.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(s.bytes().next())
        && edge(s.bytes().last())
}

/// Which rule an object's name follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// At most 253 characters in labels joined by dots.
    Subdomain,
    /// At most 63 characters without dots (namespaces, services).
    Label,
}

/// Why `name` cannot be an object's name, if it cannot.
pub(crate) fn name_problem(name: &str, rule: NameRule) -> Option<String> {
    match rule {
        NameRule::Subdomain if name.len() > 253 => Some("must be no more than 253 bytes".into()),
        NameRule::Subdomain if !is_subdomain(name) => Some(SUBDOMAIN.into()),
        NameRule::Label if name.len() > 63 => Some("must be no more than 63 bytes".into()),
        NameRule::Label if !is_label(name) => Some(LABEL.into()),
        _ => None,
    }
}

/// Why `key` cannot be a label's or annotation's key, if it cannot.
pub(crate) fn key_problem(key: &str) -> Option<String> {
    let name = match key.split_once('/') {
        None => key,
        Some((_, rest)) if rest.contains('/') => {
            return Some(format!(
                "a qualified name {}",
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
        Some(("", _)) => return Some("prefix part must be non-empty".into()),
        Some((prefix, _)) if prefix.len() > 253 => {
            return Some("prefix part must be no more than 253 bytes".into());
        }
        Some((prefix, _)) if !is_subdomain(prefix) => {
            return Some(format!("prefix part {SUBDOMAIN}"));
        }
        Some((_, name)) => name,
    };
    match name {
        "" => Some("name part must be non-empty".into()),
        n if n.len() > 63 => Some("name part must be no more than 63 bytes".into()),
        n if !is_qualified_part(n) => Some(QUALIFIED.into()),
        _ => None,
    }
}

/// Why `value` cannot be a label's value, if it cannot.
pub(crate) fn label_value_problem(value: &str) -> Option<String> {
    match value {
        "" => None,
        v if v.len() > 63 => Some("must be no more than 63 bytes".into()),
        v if !is_qualified_part(v) => Some(LABEL_VALUE.into()),
        _ => None,
    }
}

/// What is wrong with an object's metadata beyond its types.
pub(crate) fn metadata_causes(object: &Value, rule: NameRule) -> Vec<Cause> {
    let mut causes = Vec::new();
    let meta = &object["metadata"];
    match meta["name"].as_str() {
        None | Some("") => causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        )),
        Some(name) => {
            if let Some(why) = name_problem(name, rule) {
                causes.push(Cause::invalid("metadata.name", &meta["name"], why));
            }
        }
    }
    for (key, value) in meta["labels"].as_object().into_iter().flatten() {
        if let Some(why) = key_problem(key) {
            causes.push(Cause::invalid(
                "metadata.labels",
                &Value::from(key.as_str()),
                why,
            ));
        }
        if let Some(why) = value.as_str().and_then(label_value_problem) {
            causes.push(Cause::invalid("metadata.labels", value, why));
        }
    }
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(why) = key_problem(&key.to_lowercase()) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &Value::from(key.as_str()),
                why,
            ));
        }
    }
    if size > ANNOTATIONS_MAX {
        causes.push(Cause::too_long(
            "metadata.annotations",
            ANNOTATIONS_MAX as u64,
        ));
    }
    for (i, finalizer) in meta["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if let Some(why) = finalizer.as_str().and_then(key_problem) {
            causes.push(Cause::invalid(
                format!("metadata.finalizers[{i}]"),
                finalizer,
                why,
            ));
        }
    }
    owner_causes(&meta["ownerReferences"], &mut causes);
    causes
}

fn owner_causes(owners: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = 0;
    for owner in owners.as_array().into_iter().flatten() {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                // The real server does not say which reference.
                let path = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(path, &"".into(), why));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", owners, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "a-b.c", "0", &"a".repeat(253)] {
            assert_eq!(name_problem(good, NameRule::Subdomain), None, "{good}");
        }
        for bad in ["", "A", "-a", "a.", "a..b", "a_b", &"a".repeat(254)] {
            assert!(name_problem(bad, NameRule::Subdomain).is_some(), "{bad}");
        }
        assert!(name_problem("a.b", NameRule::Label).is_some());
    }

    #[test]
    fn label_keys_may_have_one_prefix() {
        for good in [
            "a",
            "A_b.c",
            "strand.dev/pool",
            "kubernetes.io/metadata.name",
        ] {
            assert_eq!(key_problem(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "UP.dev/a", "-a", &"a".repeat(64)] {
            assert!(key_problem(bad).is_some(), "{bad}");
        }
        assert!(label_value_problem("no spaces").is_some());
        assert!(label_value_problem("").is_none());
    }
}
