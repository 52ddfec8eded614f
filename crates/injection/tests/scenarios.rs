//! Pods in, pods out: `scenarios/NAME.yaml` has a pod, `scenarios/NAME.out.yaml` what becomes of it. After a change that is
//! meant: `UPDATE_GOLDEN=1 cargo test -p strand-injection`, and read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets what it did not expect stops there"
)]

mod bed;

use bed::{Known, apply, config};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use std::{collections::BTreeSet, fs, path::Path};
use strand_injection::{Answer, decide};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    what: String,
    #[serde(default, rename = "namespacePool")]
    namespace_pool: Option<String>,
    pod: serde_json::Value,
}

#[test]
fn pods_become_what_was_reviewed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    let mut reasons = BTreeSet::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name
            .strip_suffix(".yaml")
            .filter(|name| !name.ends_with(".out"))
        else {
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let scenario: Scenario =
            serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!scenario.what.is_empty());
        let pod: Pod = serde_json::from_value(scenario.pod).unwrap();
        let pool = scenario.namespace_pool.as_deref();
        let answer = decide(&pod, "team-a", pool, &Known, &config());
        if let Answer::Skip { why, .. } = &answer {
            reasons.insert(why.code());
        }
        let after = apply(&pod, &answer);
        // Decided again, as a webhook that is called a second time does: nothing more.
        match decide(&after, "team-a", pool, &Known, &config()) {
            Answer::Leave | Answer::Skip { patch: None, .. } => {}
            more => panic!("{name}: changed again: {more:?}"),
        }
        let out = dir.join(format!("{name}.out.yaml"));
        let yaml = serde_yaml::to_string(&after).unwrap();
        if update {
            fs::write(&out, &yaml).unwrap();
        }
        if fs::read_to_string(&out).unwrap_or_default() != yaml {
            different.push(name.to_owned());
        }
    }
    assert!(different.is_empty(), "became something else: {different:?}");
    let all = [
        "Annotation",
        "HostNetwork",
        "NameTaken",
        "NoContainer",
        "NoPool",
        "NotGranted",
        "OptedOut",
        "Windows",
    ];
    assert_eq!(
        reasons.into_iter().collect::<Vec<_>>(),
        all,
        "a reason has no scenario"
    );
}
