//! Replays the request corpus against an API server.
//!
//! A file is `needs`, what the server must have besides the API (`collector`, `certificates`…), and `steps`. A step
//! is a request (`method`, `path`, `headers`, `body`), what is expected (`code`, `body`, `header`, `events`), what to `save`
//! for later steps, and `until: true` when the answer may take a while. `<NAME>` stands for a saved value, `<ns>` for
//! the file's own namespace, `<id>` for a word that no other run uses.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use axum::http::Request;
use kube::client::{Body, Client};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a step with `until` may take.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(default)]
    pub needs: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    what: String,
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    /// Makes the body's string at this JSON pointer this many bytes long.
    #[serde(default)]
    fill: BTreeMap<String, usize>,
    expect: Expect,
    #[serde(default)]
    save: BTreeMap<String, String>,
    #[serde(default)]
    until: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    code: u16,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    header: BTreeMap<String, String>,
    /// The lines of a watch, in order; others may come between.
    #[serde(default)]
    events: Vec<Value>,
}

/// Runs one file; the error tells the step and the difference.
pub async fn replay(client: &Client, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file: File = serde_yaml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let ns = format!("corpus-{id}");
    let mut saved = BTreeMap::from([("id".to_owned(), id), ("ns".to_owned(), ns.clone())]);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}});
    let made = send(
        client,
        "POST",
        "/api/v1/namespaces",
        &BTreeMap::new(),
        namespace.to_string(),
    )
    .await?;
    let mut result = if made.0 == 201 {
        Ok(())
    } else {
        Err(format!("the namespace: {}", made.2))
    };
    for step in &file.steps {
        if result.is_ok() {
            result = run(client, step, &mut saved)
                .await
                .map_err(|e| format!("{}: {}: {e}", path.display(), step.what));
        }
    }
    send(
        client,
        "DELETE",
        &format!("/api/v1/namespaces/{ns}"),
        &BTreeMap::new(),
        String::new(),
    )
    .await?;
    result
}

async fn run(
    client: &Client,
    step: &Step,
    saved: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let fill = |text: &str| {
        saved.iter().fold(text.to_owned(), |t, (name, value)| {
            t.replace(&format!("<{name}>"), value)
        })
    };
    let mut body = step.body.clone();
    for (pointer, size) in &step.fill {
        *body.pointer_mut(pointer).ok_or("fill names nothing")? = "x".repeat(*size).into();
    }
    let body = match &body {
        Value::Null => String::new(),
        Value::String(text) => fill(text),
        other => fill(&other.to_string()),
    };
    let headers = step
        .headers
        .iter()
        .map(|(k, v)| (k.clone(), fill(v)))
        .collect();
    let wanted: Value =
        serde_json::from_str(&fill(&step.expect.body.to_string())).map_err(|e| e.to_string())?;
    let started = Instant::now();
    loop {
        let (code, head, text) = send(
            client,
            &step.method,
            &fill(&step.path),
            &headers,
            body.clone(),
        )
        .await?;
        let result = judge(step, &fill, code, &head, &text, &wanted);
        match result {
            Err(_) if step.until && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            Err(why) => {
                return Err(format!(
                    "{why}\n  got {code}: {}",
                    text.chars().take(3000).collect::<String>()
                ));
            }
            Ok(value) => {
                for (name, pointer) in &step.save {
                    let found = value
                        .pointer(pointer)
                        .ok_or_else(|| format!("nothing at {pointer} to save"))?;
                    saved.insert(
                        name.clone(),
                        found
                            .as_str()
                            .map_or_else(|| found.to_string(), str::to_owned),
                    );
                }
                return Ok(());
            }
        }
    }
}

fn judge(
    step: &Step,
    fill: &impl Fn(&str) -> String,
    code: u16,
    head: &BTreeMap<String, String>,
    text: &str,
    wanted: &Value,
) -> Result<Value, String> {
    if code != step.expect.code {
        return Err(format!("expected {}", step.expect.code));
    }
    for (name, part) in &step.expect.header {
        let have = head.get(name).cloned().unwrap_or_default();
        matches(&have.into(), &fill(part).into(), name)?;
    }
    if !step.expect.events.is_empty() {
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        let mut rest = lines.iter();
        for event in &step.expect.events {
            let event: Value =
                serde_json::from_str(&fill(&event.to_string())).map_err(|e| e.to_string())?;
            if !rest.any(|line| matches(line, &event, "").is_ok()) {
                return Err(format!("no such event (in this place): {event}"));
            }
        }
        return Ok(json!(lines));
    }
    let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
    if !wanted.is_null() {
        matches(&value, wanted, "")?;
    }
    Ok(value)
}

/// `wanted` is a part of `have`: objects may have more fields, lists are as long (but causes
/// may be more and come in any order), null means absent, and a string that
/// begins with `~` is a pattern.
fn matches(have: &Value, wanted: &Value, at: &str) -> Result<(), String> {
    match (have, wanted) {
        (Value::Object(have), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                matches(
                    have.get(name).unwrap_or(&Value::Null),
                    wanted,
                    &format!("{at}/{name}"),
                )?;
            }
            Ok(())
        }
        // The real server checks fields in no certain order.
        (Value::Array(have), Value::Array(wanted)) if at.ends_with("/causes") => {
            wanted.iter().try_for_each(|w| {
                let found = have.iter().any(|h| matches(h, w, "").is_ok());
                found.then_some(()).ok_or_else(|| format!("{at}: no {w}"))
            })
        }
        (Value::Array(have), Value::Array(wanted)) if have.len() == wanted.len() => have
            .iter()
            .zip(wanted)
            .enumerate()
            .try_for_each(|(i, (h, w))| matches(h, w, &format!("{at}/{i}"))),
        (Value::String(have), Value::String(wanted)) if wanted.starts_with('~') => {
            let pattern = regex::Regex::new(&wanted[1..]).map_err(|e| e.to_string())?;
            pattern
                .is_match(have)
                .then_some(())
                .ok_or_else(|| format!("{at}: {have:?} does not match {wanted:?}"))
        }
        (have, wanted) if have == wanted => Ok(()),
        _ => Err(format!("{at}: have {have}, want {wanted}")),
    }
}

async fn send(
    client: &Client,
    method: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
    body: String,
) -> Result<(u16, BTreeMap<String, String>, String), String> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let given = |name: &str| headers.keys().any(|h| h.eq_ignore_ascii_case(name));
    if !given("content-type") && !body.is_empty() {
        request = request.header("Content-Type", "application/json");
    }
    if !given("accept") {
        request = request.header("Accept", "application/json");
    }
    if !given("user-agent") {
        request = request.header("User-Agent", "corpus/1");
    }
    let request = request
        .body(Body::from(body.into_bytes()))
        .map_err(|e| e.to_string())?;
    let response = client
        .send(request)
        .await
        .map_err(|e| format!("{method} {path}: {e}"))?;
    let code = response.status().as_u16();
    let mut head: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in response.headers() {
        let value = value.to_str().unwrap_or_default();
        let entry = head.entry(name.as_str().to_owned()).or_default();
        *entry = if entry.is_empty() {
            value.to_owned()
        } else {
            format!("{entry}, {value}")
        };
    }
    let bytes = response
        .into_body()
        .collect_bytes()
        .await
        .map_err(|e| e.to_string())?;
    Ok((code, head, String::from_utf8_lossy(&bytes).into_owned()))
}
