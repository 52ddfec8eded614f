//! What goes on while nobody decides, and while nobody answers.

use std::thread::sleep;
use std::time::{Duration, Instant};

use strand_e2e::wait::{self, PATIENCE};

use crate::life::all_drives_serve;
use crate::rack::{NAMESPACE, Pod, Rack, seconds};
use crate::running::Running;

/// How long the operator is away.
const AWAY: Duration = Duration::from_secs(120);
/// How long the API server waits for the webhook of pods, as the chart has it by default.
const ANSWER: Duration = Duration::from_secs(2);

fn scale(rack: &Rack, replicas: &str) {
    let count = format!("--replicas={replicas}");
    let operator = "deployment/strand-operator";
    rack.kubectl(&["scale", operator, "-n", NAMESPACE, &count]);
}

fn leaves(rack: &Rack) {
    scale(rack, "0");
    let label = "app.kubernetes.io/component=operator";
    let pods = ["pods", "-n", NAMESPACE, "-l", label];
    rack.until(&pods, "{.items[*].metadata.name}", str::is_empty);
}

/// Without an operator pods are made as they are written, and a Drive that was deleted waits for one; its agent then tells of it again.
pub fn pods_are_made_without_one(rack: &Rack) {
    rack.team("team-a");
    leaves(rack);
    rack.apply(Pod::new("team-a", "alone").object());
    rack.ready("team-a", "alone");
    let pod = rack.cluster.get(&["pod", "alone", "-n", "team-a"]).unwrap();
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    let all = rack.kubectl(&["get", "drives", "-o", "name"]);
    let drive = all.lines().next().unwrap();
    rack.kubectl(&["delete", drive, "--wait=false"]);
    let going = |drive: &str, is: bool| {
        rack.until(&[drive], "{.metadata.deletionTimestamp}", |at| {
            at.is_empty() != is
        });
    };
    going(drive, true);
    scale(rack, "2");
    rack.team("team-a");
    going(drive, false);
    all_drives_serve(rack, 8);
    rack.delete("team-a", "pod/alone");
}

/// It is away for two minutes: pods of both nodes read and write as before, and `helm test` says what is wrong until it is back.
pub fn pods_go_on_without_one(rack: &Rack) {
    let running = ["node-1", "node-2"].map(|node| Running::start(rack, "team-a", node, node));
    leaves(rack);
    let begun = Instant::now();
    let test = ["test", "strand", "-n", NAMESPACE, "--timeout", "150s"];
    rack.cluster.helm(&test).unwrap_err();
    let said = rack.kubectl(&["logs", "strand-test", "-n", NAMESPACE]);
    let lacks = "Deployment strand-operator: none of its pods is wanted";
    assert!(said.contains(lacks), "{said}");
    sleep(AWAY.saturating_sub(begun.elapsed()));
    for pod in &running {
        pod.goes_on();
        let seen = pod.seen();
        println!("    client, operator away: {seen:?}");
        seen.is_unharmed();
    }
    scale(rack, "2");
    wait::until("helm test passes again", PATIENCE, || {
        let said = rack.cluster.helm(&test);
        said.map_err(|error| format!("{error:#}"))
    })
    .unwrap();
    running.into_iter().for_each(Running::end);
}

/// It is there and does not answer: a pod is made all the same, without an endpoint, once the time-out of the chart has passed.
pub fn a_pod_waits_no_longer_than_its_timeout(rack: &Rack) {
    rack.team("team-a");
    let timeout = format!("injection.timeoutSeconds={}", ANSWER.as_secs());
    rack.helm("upgrade", &["--set", &timeout]);
    rack.team("team-a");
    let signal = |name: &str| {
        let line = format!("for p in $(pidof operator || true); do kill -{name} $p; done");
        for node in rack.cluster.nodes() {
            node.sh(&line).unwrap();
        }
    };
    // Again, if the API server had not taken up the time-out yet.
    let took = wait::until("a pod is admitted in time", PATIENCE, || {
        rack.delete("team-a", "pod/bare");
        signal("STOP");
        let begun = Instant::now();
        let made = rack
            .cluster
            .apply(&Pod::new("team-a", "bare").object().to_string());
        let took = begun.elapsed();
        signal("CONT");
        made.map_err(|error| format!("{error:#}"))?;
        match (ANSWER..5 * ANSWER).contains(&took) {
            true => Ok(took),
            false => Err(seconds(took)),
        }
    });
    println!("    admitted in {}", seconds(took.unwrap()));
    let pod = rack.cluster.get(&["pod", "bare", "-n", "team-a"]).unwrap();
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    rack.delete("team-a", "pod/bare");
    rack.helm("upgrade", &[]);
    rack.team("team-a");
}
