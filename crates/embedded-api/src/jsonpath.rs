//! The part of JSONPath that printer columns use: fields, indexes, `[*]` and `[?(@.a=="b")]`.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose value at the path equals (or differs from) the literal.
    Filter(Vec<Step>, bool, Value),
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Parses `.status.conditions[?(@.type=="Ready")].status`, with or without braces around it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        steps(text.trim_start_matches('$')).map(Self)
    }

    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        walk(&self.0, vec![value])
    }
}

fn walk<'a>(steps: &[Step], mut found: Vec<&'a Value>) -> Vec<&'a Value> {
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| -> Vec<&'a Value> {
                match step {
                    Step::Field(name) => value.get(name).into_iter().collect(),
                    Step::Index(i) => {
                        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                        let i = if *i < 0 { items.len() as i64 + i } else { *i };
                        usize::try_from(i)
                            .ok()
                            .and_then(|i| items.get(i))
                            .into_iter()
                            .collect()
                    }
                    Step::All => match value {
                        Value::Array(items) => items.iter().collect(),
                        Value::Object(map) => map.values().collect(),
                        _ => Vec::new(),
                    },
                    Step::Filter(path, equal, literal) => {
                        let items = value.as_array().into_iter().flatten();
                        items
                            .filter(|item| {
                                walk(path, vec![item])
                                    .first()
                                    .is_some_and(|v| (**v == *literal) == *equal)
                            })
                            .collect()
                    }
                }
            })
            .collect();
    }
    found
}

fn steps(mut text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('.') {
            let (name, rest) = field(rest);
            if !name.is_empty() {
                steps.push(if name == "*" {
                    Step::All
                } else {
                    Step::Field(name)
                });
            }
            text = rest;
        } else if let Some(rest) = text.strip_prefix('[') {
            let end = closing(rest)?;
            steps.push(bracket(&rest[..end])?);
            text = &rest[end + 1..];
        } else if steps.is_empty() {
            let (name, rest) = field(text);
            steps.push(Step::Field(name));
            text = rest;
        } else {
            return None;
        }
    }
    Some(steps)
}

/// A field's name up to the next `.` or `[`; a backslash takes the next character as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[i..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (path, equal, literal) = match condition.split_once("==") {
            Some((path, literal)) => (path, true, literal),
            None => condition
                .split_once("!=")
                .map(|(path, literal)| (path, false, literal))?,
        };
        let path = steps(path.trim().strip_prefix('@')?)?;
        return Some(Step::Filter(path, equal, literal_value(literal.trim())?));
    }
    match unquote(text) {
        Some(name) => Some(Step::Field(name.to_owned())),
        None => text.parse().ok().map(Step::Index),
    }
}

fn unquote(text: &str) -> Option<&str> {
    ['"', '\'']
        .into_iter()
        .find_map(|q| text.strip_prefix(q)?.strip_suffix(q))
}

fn literal_value(text: &str) -> Option<Value> {
    match unquote(text) {
        Some(string) => Some(string.into()),
        None => serde_json::from_str(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let value = json!({
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}], "n": [1, 2]},
            "metadata": {"labels": {"strand.dev/pool": "a"}},
        });
        for (path, found) in [
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                vec![json!("True")],
            ),
            (
                r#"{.status.conditions[?(@.type!='Ready')].status}"#,
                vec![json!("False")],
            ),
            (".status.n[1]", vec![json!(2)]),
            (".status.n[-1]", vec![json!(2)]),
            (".status.n[*]", vec![json!(1), json!(2)]),
            (r".metadata.labels.strand\.dev/pool", vec![json!("a")]),
            (".metadata.labels['strand.dev/pool']", vec![json!("a")]),
            (".status.missing.x", vec![]),
        ] {
            let parsed = JsonPath::parse(path).expect(path);
            assert_eq!(
                parsed.find(&value).into_iter().cloned().collect::<Vec<_>>(),
                found,
                "{path}"
            );
        }
        assert_eq!(JsonPath::parse(".a[1"), None);
    }
}
