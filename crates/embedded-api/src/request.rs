//! Reading a request: what its path names and what its query asks.

use axum::http::Uri;

use crate::{
    status::Failure,
    write::{FieldValidation, WriteOptions},
};

/// A path under `/api` or `/apis` that names objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) plural: String,
    /// Empty for a collection.
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// The long deprecated `/watch/` form.
    pub(crate) watch: bool,
}

impl Path {
    /// Parses `/apis/G/V[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]` and its core form; `None` for anything else.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decoded: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let steps: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let (group, version, rest) = match steps.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (watch, rest) = match rest {
            ["watch", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (namespace, rest) = match rest {
            // A namespace itself, or its status.
            ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => {
                ("", rest)
            }
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, "", ""),
            [plural, name] => (plural, *name, ""),
            [plural, name, subresource] => (plural, *name, *subresource),
            _ => return None,
        };
        let own = str::to_owned;
        Some(Self {
            group: own(group),
            version: own(version),
            namespace: own(namespace),
            plural: own(plural),
            name: own(name),
            subresource: own(subresource),
            watch,
        })
    }
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// The query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let pairs = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (
                        decode(&name.replace('+', " ")),
                        decode(&value.replace('+', " ")),
                    )
                })
                .collect(),
        )
    }

    /// The value, empty when absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1" | "True")
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::bad_request(format!("{name} {text:?} is not a number"))),
        }
    }

    /// The options of a write. `apply`: the write is a server-side apply.
    pub(crate) fn write_options(
        &self,
        user_agent: &str,
        verb: &str,
        apply: bool,
    ) -> Result<WriteOptions, Failure> {
        let invalid = |why: &str| {
            let message = format!("{verb}Options.meta.k8s.io \"\" is invalid: {why}");
            Failure::new(422, "Invalid", message)
                .with(serde_json::json!({"group": "meta.k8s.io", "kind": format!("{verb}Options")}))
        };
        let dry_run = self.dry_run()?;
        let manager = self.get("fieldManager");
        if apply && manager.is_empty() {
            return Err(invalid(
                "fieldManager: Required value: is required for apply patch",
            ));
        }
        if manager.chars().count() > 128 {
            return Err(invalid(
                "fieldManager: Too long: may not be more than 128 bytes",
            ));
        }
        let force = self.flag("force");
        if !self.get("force").is_empty() && !apply {
            return Err(invalid(
                "force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        let validation = match self.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let why = format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                );
                return Err(invalid(&why));
            }
        };
        let agent = user_agent.split('/').next().unwrap_or_default();
        let manager = match (manager, agent) {
            ("", "") => "unknown",
            ("", agent) => agent,
            (manager, _) => manager,
        };
        Ok(WriteOptions {
            dry_run,
            manager: manager.chars().take(128).collect(),
            validation,
            force,
        })
    }

    pub(crate) fn dry_run(&self) -> Result<bool, Failure> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => {
                let why =
                    format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"");
                Err(Failure::new(
                    422,
                    "Invalid",
                    format!("Options.meta.k8s.io \"\" is invalid: {why}"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_name() {
        let parts = |p: &str| {
            let p = Path::parse(p).expect(p);
            [
                p.group,
                p.version,
                p.namespace,
                p.plural,
                p.name,
                p.subresource,
            ]
            .join("|")
        };
        assert_eq!(parts("/api/v1/nodes"), "|v1||nodes||");
        assert_eq!(parts("/api/v1/namespaces/a"), "|v1||namespaces|a|");
        assert_eq!(
            parts("/api/v1/namespaces/a/status"),
            "|v1||namespaces|a|status"
        );
        assert_eq!(parts("/api/v1/namespaces/a/pods/b/log"), "|v1|a|pods|b|log");
        assert_eq!(
            parts("/apis/strand.dev/v1alpha1/drives/a%3Ab/status"),
            "strand.dev|v1alpha1||drives|a:b|status"
        );
        assert_eq!(Path::parse("/metrics"), None);
        assert_eq!(Path::parse("/apis/strand.dev/v1alpha1"), None);
    }
}
