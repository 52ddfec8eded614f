//! Helm, one MemoryPool, and the rack is there.

use std::time::{Duration, Instant};

use crate::rack::{NAMESPACE, Rack, seconds};
use strand_e2e::wait::PATIENCE;

/// `helm install` and one MemoryPool: all drives of both nodes serve.
pub fn a_pool_is_ready_after_helm_install(rack: &Rack) {
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
    // The goal is 60 s.
    assert!(begun.elapsed() < Duration::from_secs(120));
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
}
