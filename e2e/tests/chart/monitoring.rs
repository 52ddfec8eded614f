//! Alerts and dashboard, as Prometheus reads them (`e2e/tools/promql`): they ask for metrics that there are, and each alert has a runbook.

use crate::helm::{chart, root};
use crate::reference;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use strand_e2e::tool;

/// The metrics that a file of rules asks for, or Prometheus's complaint.
fn asked(rules: &str) -> Result<BTreeSet<String>, String> {
    let program = tool("promql");
    assert!(
        program.exists(),
        "promql is missing: run e2e/tools/build promql"
    );
    let mut reader = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = reader.stdin.take().unwrap();
    to.write_all(rules.as_bytes()).unwrap();
    drop(to);
    let done = reader.wait_with_output().unwrap();
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

fn file(name: &str) -> String {
    fs::read_to_string(chart().join("files").join(name)).unwrap()
}

/// What the dashboard asks for, as rules. Its variable `$pool` is within quotes, where PromQL takes it as it is.
fn dashboard() -> String {
    let dashboard: Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut rules = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            rules.push(json!({"record": "panel", "expr": target["expr"]}));
        }
    }
    for variable in list(&dashboard["templating"]["list"]) {
        // Grafana's own function, with the metric in front.
        let query = variable["query"].as_str().unwrap();
        if let Some((metric, _)) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.split_once(','))
        {
            rules.push(json!({"record": "variable", "expr": metric}));
        }
    }
    json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    // Prometheus's own, of whether it reaches what it reads.
    let mut there = BTreeSet::from(["up".to_owned()]);
    let page = reference::metrics();
    for row in page.lines().filter_map(|row| row.strip_prefix("| `")) {
        let (name, _) = row.split_once('`').unwrap();
        if name.ends_with("_seconds") && name != reference::GAUGE {
            there.extend(["_bucket", "_count", "_sum"].map(|end| format!("{name}{end}")));
        } else {
            there.insert(name.to_owned());
        }
    }
    for (name, rules) in [
        ("alerts.yaml", file("alerts.yaml")),
        ("dashboard.json", dashboard()),
    ] {
        let asked = asked(&rules).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(!asked.is_empty());
        let unknown: Vec<_> = asked.difference(&there).collect();
        assert!(unknown.is_empty(), "{name}: no metrics {unknown:?}");
    }
}

#[test]
fn what_prometheus_does_not_take_is_found() {
    let alerts = file("alerts.yaml");
    for (right, wrong, words) in [
        ("sum by (node)", "sum by (node", "parse error"),
        ("increase(", "increases(", "unknown function"),
        ("[15m]", "", "expected type range vector"),
        ("humanizePercentage", "humanize_percentage", "not defined"),
        ("for: 5m", "for: soon", "not a valid duration"),
        ("annotations:", "annotation:", "not found in type"),
    ] {
        let broken = alerts.replacen(right, wrong, 1);
        let why = asked(&broken).expect_err(wrong);
        assert!(why.contains(words), "{wrong}: {why}");
    }
}

#[test]
fn every_alert_has_a_runbook() {
    let runbooks = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let alerts: Value = serde_yaml::from_str(&file("alerts.yaml")).unwrap();
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            runbooks.contains(name),
            "docs/operations.md has no runbook for {name}"
        );
    }
}
