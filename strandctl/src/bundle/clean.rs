//! What is taken out of objects and logs before they are passed on.

use serde_json::Value;

/// In the place of what was taken out.
const OUT: &str = "(removed)";
/// Parts of names of variables and flags whose values nobody else shall see.
const SECRET: [&str; 6] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "credential",
];
/// Annotations that repeat the whole object, and with it what is taken out elsewhere.
const REPEATS: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];

/// Takes out of an object the values of variables, flags and labels that are named like secrets, and what only makes it long.
pub fn object(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            for annotation in REPEATS {
                fields.remove(annotation);
            }
            let named = fields
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(is_secret);
            if named && let Some(value) = fields.get_mut("value").filter(|value| value.is_string())
            {
                *value = OUT.into();
            }
            for (name, value) in fields {
                // What refers to a secret (secretRef, secretName) is an object, or no secret itself.
                let refers = name.ends_with("Name") || name.ends_with("Namespace");
                match value {
                    Value::String(text) if is_secret(name) && !refers => *text = OUT.into(),
                    other => object(other),
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                match value {
                    Value::String(flag) => *flag = argument(flag),
                    other => object(other),
                }
            }
        }
        _ => {}
    }
}

/// A flag of the form `--some-password=VALUE` without its value.
fn argument(flag: &str) -> String {
    match flag.split_once('=') {
        Some((name, _)) if name.starts_with('-') && is_secret(name) && !name.ends_with("-file") => {
            format!("{name}={OUT}")
        }
        _ => flag.to_owned(),
    }
}

fn is_secret(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET.iter().any(|part| plain.contains(part))
}

/// A log without keys of NVMe authentication, bearer tokens and private keys, should anything ever have written one.
pub fn log(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut inside_key = false;
    for line in text.lines() {
        inside_key |= line.contains("-----BEGIN") && line.contains("PRIVATE KEY-----");
        if inside_key {
            inside_key = !line.contains("-----END");
            continue;
        }
        let mut line = line.to_owned();
        for mark in ["DHHC-1:", "Bearer "] {
            line = without(&line, mark);
        }
        clean.push_str(&line);
        clean.push('\n');
    }
    clean
}

/// A line without the words that follow a mark.
fn without(line: &str, mark: &str) -> String {
    let mut parts = line.split(mark);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([' ', '"', '\'', ',', '}']).unwrap_or(part.len());
        clean.push_str(mark);
        clean.push_str(OUT);
        clean.push_str(&part[end..]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let mut pod = json!({
            "metadata": {
                "name": "p",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"hunter2\"}", "strand.dev/pool": "rack"}
            },
            "spec": {
                "containers": [{
                    "name": "c",
                    "args": ["--password=hunter2", "--password-file=/etc/p", "--pool=rack"],
                    "env": [
                        {"name": "DB_PASSWORD", "value": "hunter2"},
                        {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                        {"name": "STRAND_KV_URL", "value": "redis://127.0.0.1"}
                    ]
                }],
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}]
            },
            "data": {"password": "hunter2"}
        });
        object(&mut pod);
        let text = pod.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains("managedFields"),
            "{text}"
        );
        for kept in [
            "--password-file=/etc/p",
            "--pool=rack",
            "redis://",
            "\"secretName\":\"s\"",
            "\"key\":\"k\"",
            "rack",
        ] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
    }

    #[test]
    fn logs_lose_keys() {
        let text = "a Bearer abc.def, b\nkey \"DHHC-1:00:xyz:\" end\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nlast\n";
        assert_eq!(
            log(text),
            "a Bearer (removed), b\nkey \"DHHC-1:(removed)\" end\nlast\n"
        );
    }
}
