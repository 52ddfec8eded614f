//! Helm, one MemoryPool, and the rack is there.

use std::time::{Duration, Instant};

use crate::figures::against_goal;
use crate::rack::{NAMESPACE, Rack, seconds};
use serde_json::Value;
use strand_e2e::repository;
use strand_e2e::wait::PATIENCE;

/// `helm install` and one MemoryPool: all drives of both nodes serve.
pub fn a_pool_is_ready_after_helm_install(rack: &Rack) {
    nodes_are_fit(rack);
    let begun = Instant::now();
    rack.helm("install", &["--create-namespace"]);
    rack.pool();
    rack.cluster
        .until(
            &["mpool", "rack"],
            "{.status.conditions[?(@.type=='Ready')].status}",
            2 * PATIENCE,
            |ready| ready == "True",
        )
        .unwrap();
    println!(
        "    pool Ready {} after helm install began",
        seconds(begun.elapsed())
    );
    let took = begun.elapsed().as_secs_f64();
    against_goal("helm install to pool Ready", took, 60.0, "s");
    assert!(took < 120.0);
    rack.until(&["drives"], "{.items[*].status.phase}", |phases| {
        phases.split(' ').filter(|phase| *phase == "Ready").count() == 8
    });
    println!("    all 8 drives {}", seconds(begun.elapsed()));
    for what in [
        "daemonset/strand-node",
        "deployment/strand-operator",
        "deployment/strand-csi-controller",
    ] {
        rack.kubectl(&["rollout", "status", "-n", NAMESPACE, what, "--timeout=120s"]);
    }
    println!(
        "    all of Strand's pods ready {}",
        seconds(begun.elapsed())
    );
    assert!(begun.elapsed() < Duration::from_secs(240));
}

/// What an administrator runs on a node before anything is there.
fn nodes_are_fit(rack: &Rack) {
    let strandctl = repository().canonicalize().unwrap();
    let strandctl = strandctl.join("target/debug/strandctl");
    for node in rack.cluster.nodes() {
        let said = node.sh(&format!("{} preflight -o json", strandctl.display()));
        let said = said.unwrap();
        let checks: Value = serde_json::from_str(&said).unwrap();
        for what in ["privileges", "ports", "volumes"] {
            let mut all = checks.as_array().unwrap().iter();
            let check = all.find(|check| check["what"] == what);
            assert_eq!(check.unwrap()["mark"], "good", "{}: {said}", node.name());
        }
    }
}

/// What README and the chart's notes say to apply is taken as it is.
pub fn what_readme_and_notes_say_to_apply_is_taken(rack: &Rack) {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let notes = rack
        .cluster
        .helm(&["get", "notes", "strand", "-n", NAMESPACE])
        .unwrap();
    let between = |text: &str, from: &str, to: &str| -> Vec<String> {
        let parts = text.split(from).skip(1);
        parts
            .map(|part| part.split(to).next().unwrap().to_owned())
            .collect()
    };
    let mut objects = between(&readme, "<<<'", "'\n");
    objects.extend(between(&readme, "```yaml\n", "```"));
    objects.extend(between(&notes, "<<'POOL'\n", "POOL\n"));
    assert_eq!(objects.len(), 4, "{objects:?}");
    for object in objects {
        let args = ["create", "--dry-run=server", "-n", "default", "-f", "-"];
        let taken = rack.cluster.feed(&args, object.as_bytes());
        // The bed has one of that name.
        if let Err(error) = taken {
            let said = format!("{error:#}");
            assert!(said.contains("\"rack\" already exists"), "{said}");
        }
    }
}

/// What an administrator runs to see whether an installation is sound.
pub fn helm_test_passes(rack: &Rack) {
    let said = rack
        .cluster
        .helm(&["test", "strand", "-n", NAMESPACE, "--timeout", "90s"])
        .unwrap();
    assert!(said.contains("Succeeded"), "{said}");
}

/// The image has, for each of its programs, a bill of what is in it; and its user is nobody in particular.
pub fn the_image_says_what_is_in_it(rack: &Rack) {
    let look = "id -u; cd /usr/share/sbom; for bill in *.cdx.json; do echo $bill $(grep -c '\"purl\"' $bill); done";
    let operator = "deployment/strand-operator";
    let said = rack.kubectl(&["exec", "-n", NAMESPACE, operator, "--", "sh", "-euc", look]);
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("65532"), "{said}");
    let bills: Vec<(&str, u32)> = lines
        .map(|line| line.split_once(".cdx.json ").unwrap())
        .map(|(program, crates)| (program, crates.parse().unwrap()))
        .collect();
    println!("    crates in each: {bills:?}");
    assert!(bills.iter().all(|(_, crates)| *crates > 50), "{said}");
    let programs: Vec<&str> = bills.iter().map(|(program, _)| *program).collect();
    let built = [
        "csi-driver",
        "kv-endpoint",
        "node-agent",
        "operator",
        "strandctl",
    ];
    assert_eq!(programs, built);
    let archive = repository().join(".cache/e2e/images/strand-e2e.tar");
    let size = std::fs::metadata(archive).unwrap().len() >> 20;
    println!("    {size} MiB, with programs of the dev profile");
    assert!(size < 400);
}
