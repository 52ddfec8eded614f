//! The chart speaks of what the code has: programs, and the variables that they read.

use crate::helm::{cases, containers, documents, render, root, title};
use std::{collections::BTreeMap, fs, path::PathBuf};

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
