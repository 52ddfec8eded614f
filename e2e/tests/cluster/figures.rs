//! What Strand costs on a node, and what it adds to the admission of a pod: printed, and held only against bounds that no busy machine
//! reaches.

use std::thread::sleep;
use std::time::Duration;

use crate::rack::{NAMESPACE, Pod, Rack};

/// Resident memory and processor time of a node's agent and driver while nobody asks for anything.
pub fn what_an_idle_node_costs(rack: &Rack) {
    rack.clear();
    let node = &rack.cluster.nodes()[0];
    let look = "for p in $(pidof node-agent csi-driver); do \
                awk -v p=$p '/^Name/{n=$2} /^VmRSS/{print n, $2}' /proc/$p/status; \
                awk '{print $14 + $15}' /proc/$p/stat; done";
    let span = Duration::from_secs(20);
    let before = node.sh(look).unwrap();
    sleep(span);
    let after = node.sh(look).unwrap();
    let read = |text: &str| -> Vec<(String, u64, u64)> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |at: usize| words[at].parse().unwrap();
        let all = (0..words.len()).step_by(3);
        all.map(|at| (words[at].to_owned(), number(at + 1), number(at + 2)))
            .collect()
    };
    let (before, after) = (read(&before), read(&after));
    let mut resident = 0;
    for ((name, _, then), (_, kib, now)) in before.iter().zip(&after) {
        // Of 100 ticks a second.
        let percent = (now - then) as f64 / span.as_secs_f64();
        println!(
            "    {name} on node-1, idle: {} MiB, {percent:.1} % of a core",
            kib / 1024
        );
        resident += kib / 1024;
    }
    assert!(resident < 300, "{resident} MiB");
}

/// How long the operator takes to decide about a pod.
pub fn how_long_admission_takes(rack: &Rack) {
    rack.team("team-a");
    let pods: Vec<String> = (0..200)
        .map(|n| Pod::new("team-a", &format!("p{n}")).object().to_string())
        .collect();
    let list = pods.join("\n");
    rack.cluster
        .feed(&["create", "--dry-run=server", "-f", "-"], list.as_bytes())
        .unwrap();
    let mut counts: Vec<(f64, u64)> = Vec::new();
    let names = rack.kubectl(&[
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/component=operator",
        "-o",
        "name",
    ]);
    for pod in names.lines() {
        let name = pod.trim_start_matches("pod/");
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:9464/proxy/metrics");
        let metrics = rack.kubectl(&["get", "--raw", &path]);
        for line in metrics.lines().filter(|line| {
            line.starts_with("strand_webhook_seconds_bucket") && line.contains("inject")
        }) {
            let bound = line
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .unwrap();
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            match counts.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => counts.push((bound, count)),
            }
        }
    }
    counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = counts.last().map_or(0, |(_, count)| *count);
    let below = |share: u64| {
        counts
            .iter()
            .find(|(_, count)| count * 100 >= all * share)
            .map(|(bound, _)| bound * 1000.0)
    };
    println!(
        "    webhook, of {all} pods: p50 at most {:?} ms, p99 at most {:?} ms",
        below(50),
        below(99)
    );
    assert!(all >= 200, "{counts:?}");
}
