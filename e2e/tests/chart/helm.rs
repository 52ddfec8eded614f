//! Runs the pinned Helm.

use serde::Deserialize;
use serde_json::Value;
use std::{path::PathBuf, process::Command};

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The chart.
pub fn chart() -> PathBuf {
    root().join("charts/strand")
}

/// What Helm prints, or its complaint.
pub fn helm(args: &[&str]) -> Result<String, String> {
    let program = root().join(".cache/tools/helm");
    assert!(
        program.exists(),
        "helm is missing: run e2e/tools/build helm"
    );
    let home = std::env::temp_dir().join("strand-helm-home");
    let done = Command::new(program)
        .args(args)
        .env("HOME", &home)
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(home);
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// The objects that an installation makes.
pub fn render(args: &[&str]) -> Result<String, String> {
    let chart = chart();
    let fixed = [
        "template",
        "strand",
        chart.to_str().unwrap(),
        "--namespace",
        "strand-system",
    ];
    helm(&[&fixed, args].concat())
}

/// The cases in `values/`: name, and the file's path.
pub fn cases() -> Vec<(String, String)> {
    let dir = root().join("e2e/tests/chart/values");
    let mut cases: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, path.to_string_lossy().into_owned())
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 3);
    cases
}

/// The documents of a file.
pub fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).expect("rendered YAML"))
        .filter(|value| !value.is_null())
        .collect()
}

/// Kind and name of an object.
pub fn title(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{} {}",
        word(&object["kind"]),
        word(&object["metadata"]["name"])
    )
}

/// The containers of an object that has a pod, or is one.
pub fn containers(object: &Value) -> Vec<&Value> {
    let pod = match object["kind"].as_str() {
        Some("Pod") => &object["spec"],
        _ => &object["spec"]["template"]["spec"],
    };
    let list = |key: &str| pod[key].as_array().into_iter().flatten();
    list("initContainers").chain(list("containers")).collect()
}
