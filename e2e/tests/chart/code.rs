//! The chart speaks of what the code has: programs, variables, metrics, the driver's name.

use crate::helm::{cases, chart, containers, documents, render, root, title};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// All of a program's source, and that of the parts whose flags it takes over.
fn source(dirs: &[&str]) -> String {
    let mut text = String::new();
    let mut waiting: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|e| e == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

#[test]
fn every_variable_is_one_that_its_program_reads() {
    let flags = |dir: &str| source(&[&format!("{dir}/src/main.rs"), "crates/process/src"]);
    let programs: BTreeMap<&str, String> = [
        ("/usr/bin/operator", flags("operator")),
        ("/usr/bin/node-agent", flags("node-agent")),
        ("/usr/bin/csi-driver", flags("csi-driver")),
    ]
    .into();
    for (case, values) in cases() {
        for object in documents(&render(&["--values", &values]).unwrap()) {
            for container in containers(&object) {
                let Some(program) = container["command"][0].as_str() else {
                    continue;
                };
                let Some(source) = programs.get(program) else {
                    assert_eq!(program, "/usr/bin/strandctl");
                    continue;
                };
                for variable in container["env"].as_array().into_iter().flatten() {
                    let name = variable["name"].as_str().unwrap();
                    assert!(
                        name == "ADDRESS" || source.contains(&format!("env = \"{name}\"")),
                        "{case}: {}: {program} does not read {name}",
                        title(&object)
                    );
                }
            }
        }
    }
}

#[test]
fn the_image_has_every_program() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    for program in [
        "operator",
        "node-agent",
        "csi-driver",
        "kv-endpoint",
        "strandctl",
    ] {
        assert!(
            dockerfile.contains(program),
            "{program} is not in the Dockerfile"
        );
    }
}

#[test]
fn alerts_and_dashboard_speak_of_metrics_that_there_are() {
    let source = source(&[
        "operator/src",
        "node-agent/src",
        "csi-driver/src",
        "kv-endpoint/src",
        "crates",
    ]);
    let runbooks = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = fs::read_to_string(chart().join("files").join(file)).unwrap();
        for metric in metrics(&text) {
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end))
                .unwrap_or(&metric);
            // Some names are put together in the code from a prefix.
            let prefixed = ["strand_kv_endpoint_", "strand_context_door_"]
                .iter()
                .find_map(|prefix| base.strip_prefix(prefix))
                .unwrap_or(base);
            assert!(
                source.contains(&format!("\"{base}\""))
                    || source.contains(&format!("\"{prefixed}\"")),
                "{file}: no metric {metric}"
            );
        }
    }
    let alerts: serde_json::Value = serde_yaml::from_str(
        &fs::read_to_string(Path::new(&chart()).join("files/alerts.yaml")).unwrap(),
    )
    .unwrap();
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            runbooks.contains(name),
            "docs/operations.md has no runbook for {name}"
        );
    }
}

fn metrics(text: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|part| part.starts_with("strand_"))
        .map(str::to_owned)
        .collect()
}
