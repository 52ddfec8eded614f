//! What Strand costs on a node, and what it adds to the admission of a pod: printed, and held to the goals of docs/figures.md where a
//! busy machine makes no difference; to bounds that none should reach where it does.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use strand_e2e::process::run;

use crate::certificates;
use crate::rack::{NAMESPACE, Pod, Rack};

/// Tells whether a goal of docs/figures.md was reached in this run.
pub fn against_goal(what: &str, measured: f64, goal: f64, unit: &str) {
    let reached = if measured <= goal {
        "reached"
    } else {
        "missed"
    };
    println!("    figure: {what}: {measured:.1} {unit}, goal {goal} {unit}: {reached}");
}

/// Resident memory and processor time of a node's agent and driver while nobody asks for anything.
pub fn what_an_idle_node_costs(rack: &Rack) {
    rack.clear();
    let node = &rack.cluster.nodes()[0];
    // The controllers that run there are none of the node's.
    let look = "for p in $(pidof node-agent csi-driver); do \
                ! grep -q MODE=controller /proc/$p/environ || continue; \
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
    assert_eq!(before.len(), 2, "the agent, and the node's driver");
    let (mut resident, mut busy) = (0, 0.0);
    for ((name, _, then), (_, kib, now)) in before.iter().zip(&after) {
        // Of 100 ticks a second.
        let percent = (now - then) as f64 / span.as_secs_f64();
        println!(
            "    {name} on node-1, idle: {} MiB, {percent:.1} % of a core",
            kib / 1024
        );
        resident += kib / 1024;
        busy += percent;
    }
    against_goal("an idle node, memory", resident as f64, 100.0, "MiB");
    against_goal("an idle node, of a core", busy, 2.0, "%");
    assert!(resident <= 100, "{resident} MiB");
    assert!(busy <= 4.0, "{busy} % of a core");
}

/// How long the operator takes to decide about a pod, and how long the API server waits for that.
pub fn how_long_admission_takes(rack: &Rack) {
    rack.team("team-a");
    let waited = || Histogram::of(&rack.kubectl(&["get", "--raw", "/metrics"]), WAITED, HOOK);
    let before = waited();
    let pods: Vec<String> = (0..500)
        .map(|n| {
            Pod::new("team-a", &format!("asked-{n}"))
                .object()
                .to_string()
        })
        .collect();
    let list = pods.join("\n");
    rack.cluster
        .feed(&["create", "--dry-run=server", "-f", "-"], list.as_bytes())
        .unwrap();
    let waited = waited().since(&before);
    let mut decided = Histogram::default();
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
        decided.add(&Histogram::of(&metrics, DECIDED, "inject"));
    }
    println!("    webhook, in the operator: {decided}");
    println!("    webhook, as the API server waits for it: {waited}");
    assert!(decided.count() >= 500 && waited.count() >= 500);
    let decided_in = decided.about(99) * 1000.0;
    against_goal("webhook in the operator, p99", decided_in, 20.0, "ms");
    assert!(decided.about(99) <= 0.04, "{decided}");
    for ip in certificates::operators(rack) {
        let mut waits = asked_as_the_api_server_asks(rack, &ip);
        waits.sort_by(f64::total_cmp);
        let of = |percent: usize| waits[(waits.len() * percent).div_ceil(100) - 1] * 1000.0;
        println!(
            "    webhook at {ip}, as a client over one connection waits for it, {} times: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
            waits.len(),
            of(50),
            of(99),
            of(100),
        );
        against_goal("webhook as a client waits, p99", of(99), 20.0, "ms");
        assert!(of(99) <= 100.0, "{waits:?}");
    }
}

/// Seconds until each answer was there, the first with its handshake: what the API server's own histogram has no fine enough buckets for.
fn asked_as_the_api_server_asks(rack: &Rack, ip: &str) -> Vec<f64> {
    const TIMES: usize = 500;
    let write = |name: &str, text: &str| {
        let path = rack.cluster.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let review = write("review.json", &review().to_string());
    let authority = certificates::secret(rack, certificates::OWN, "ca.crt");
    let authority = write("webhook-ca.crt", &authority);
    let answer = rack.cluster.dir().join("answer.json");
    let name = certificates::NAME;
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let said = run(Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "60"])
        .args(["--cacert", &text(&authority), "--output", &text(&answer)])
        .args(["--resolve", &format!("{name}:9443:{ip}")])
        .args(["--header", "content-type: application/json"])
        .args(["--data-binary", &format!("@{}", text(&review))])
        .args(["--write-out", "%{time_total}\\n"])
        .arg(format!("https://{name}:9443/inject?time=[1-{TIMES}]")))
    .unwrap();
    let answer: Value = serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap();
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    assert!(answer["response"]["patch"].is_string(), "{answer}");
    let waits: Vec<f64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(waits.len(), TIMES, "{said}");
    waits
}

/// What the API server sends of a pod that is made.
fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "6d2a3b0e-3c3f-4b7e-9b44-0c8a4ce5a3d1", "operation": "CREATE", "namespace": "team-a",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": Pod::new("team-a", "asked").object(),
        },
    })
}

const HOOK: &str = "inject.strand.dev";
const WAITED: &str = "apiserver_admission_webhook_admission_duration_seconds_bucket";
const DECIDED: &str = "strand_webhook_seconds_bucket";

/// Counts by upper bound in seconds, as Prometheus writes them: each bucket has those of the smaller ones too.
#[derive(Default)]
struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    /// Sum of the series of a metric in whose labels `part` is.
    fn of(metrics: &str, metric: &str, part: &str) -> Self {
        let mut sum = Self::default();
        let lines = metrics.lines().filter(|line| line.starts_with(metric));
        for line in lines.filter(|line| line.contains(part)) {
            let bound = line.split("le=\"").nth(1).unwrap();
            let bound = bound.split('"').next().unwrap();
            let count = line.rsplit(' ').next().unwrap().parse().unwrap();
            sum.put(bound.parse().unwrap_or(f64::INFINITY), count);
        }
        sum.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        sum
    }

    fn put(&mut self, bound: f64, count: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((bound, count)),
        }
    }

    fn add(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            self.put(*bound, *count);
        }
    }

    fn since(mut self, before: &Self) -> Self {
        for (bound, count) in &before.0 {
            let now = self.0.iter_mut().find(|(known, _)| known == bound);
            now.unwrap().1 -= count;
        }
        self
    }

    fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// The bound in seconds below which this percentage is.
    fn most(&self, percent: u64) -> f64 {
        let enough = |(_, count): &&(f64, u64)| count * 100 >= self.count() * percent;
        self.0.iter().find(enough).map_or(0.0, |(bound, _)| *bound)
    }

    /// An estimate of it in seconds: as Prometheus' `histogram_quantile`, which takes a bucket's for evenly spread.
    fn about(&self, percent: u64) -> f64 {
        let rank = self.count() as f64 * percent as f64 / 100.0;
        let (mut from, mut below) = (0.0, 0);
        for (bound, count) in &self.0 {
            if *count as f64 >= rank {
                let part = (rank - below as f64) / (*count - below).max(1) as f64;
                return from + (bound - from) * part;
            }
            (from, below) = (*bound, *count);
        }
        from
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = |percent| self.most(percent) * 1000.0;
        let (half, most) = (most(50), most(99));
        write!(
            f,
            "of {} pods p50 at most {half} ms, p99 at most {most} ms (about {:.1} ms)",
            self.count(),
            self.about(99) * 1000.0
        )
    }
}
