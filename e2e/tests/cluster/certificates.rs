//! The webhook's certificates change while pods are made.

use std::process::Command;

use serde_json::{Value, json};
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};

use crate::rack::{NAMESPACE, Pod, Rack};

pub const OWN: &str = "strand-webhook";
/// What the API server calls the webhooks.
pub const NAME: &str = "strand-webhook.strand-system.svc";
/// Pods that are made at a time.
const PODS: usize = 20;

/// A certificate that ends, and a Secret that is deleted and made again, empty: operators renew them, and no pod is admitted without its
/// endpoint meanwhile.
pub fn they_are_renewed_while_pods_are_made(rack: &Rack) {
    rack.team("team-a");
    let mut made = 0;
    let first = secret(rack, OWN, "tls.crt");
    let mut until: Value = serde_json::from_str(&secret(rack, OWN, "until")).unwrap();
    until["certificate"] = json!("2026-01-01T00:00:00Z");
    let patch = json!({"stringData": {"until": until.to_string()}}).to_string();
    rack.kubectl(&["patch", "secret", OWN, "-n", NAMESPACE, "-p", &patch]);
    let second = changed(rack, OWN, &first, &mut made);

    let authorities = secret(rack, OWN, "ca.crt");
    rack.kubectl(&["delete", "secret", OWN, "-n", NAMESPACE]);
    made += injected(rack);
    rack.kubectl(&["create", "secret", "generic", OWN, "-n", NAMESPACE]);
    changed(rack, OWN, &second, &mut made);
    let now = secret(rack, OWN, "ca.crt");
    assert_ne!(line(&now), line(&authorities), "a new authority");
    assert!(
        now.contains(line(&authorities)),
        "the one before is still trusted"
    );
    println!("    {made} pods made meanwhile, all with an endpoint");
}

/// Makes pods until every operator serves another certificate than that, and returns it.
fn changed(rack: &Rack, name: &str, before: &str, made: &mut usize) -> String {
    wait::until("every operator serves a new certificate", PATIENCE, || {
        *made += injected(rack);
        let stored = rack
            .cluster
            .ask(&["get", "secret", name, "-n", NAMESPACE, "-o", "json"])?;
        let stored: Value = serde_json::from_str(&stored).map_err(|error| error.to_string())?;
        if stored["data"]["tls.crt"].is_null() {
            return Err("there is none".into());
        }
        let stored = secret(rack, name, "tls.crt");
        let all = served(rack);
        if stored != before && !all.is_empty() && all.iter().all(|one| stored.contains(one)) {
            Ok(stored)
        } else {
            Err(format!("{} operators, {all:?}", all.len()))
        }
    })
    .unwrap()
}

/// Has pods made, without keeping them, and sees to it that each has its endpoint.
pub fn injected(rack: &Rack) -> usize {
    let pods: Vec<String> = (0..PODS)
        .map(|n| {
            Pod::new("team-a", &format!("made-{n}"))
                .object()
                .to_string()
        })
        .collect();
    let path = "jsonpath={.spec.initContainers[*].name}{' '}";
    let args = ["create", "--dry-run=server", "-o", path, "-f", "-"];
    let said = rack
        .cluster
        .feed(&args, pods.join("\n").as_bytes())
        .unwrap();
    assert_eq!(said.split_whitespace().count(), PODS, "{said}");
    PODS
}

pub fn secret(rack: &Rack, name: &str, key: &str) -> String {
    let path = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
    rack.kubectl(&["get", "secret", name, "-n", NAMESPACE, "-o", &path])
}

/// The certificates that the operators' webhooks show, a line of each.
pub fn served(rack: &Rack) -> Vec<String> {
    let show = |ip: &str| {
        let line = format!(
            "openssl s_client -connect {ip}:9443 -servername {NAME} </dev/null 2>/dev/null | openssl x509"
        );
        run(Command::new("bash").args(["-c", &line])).unwrap_or_default()
    };
    let shown = operators(rack).into_iter();
    shown.map(|ip| line(&show(&ip)).to_owned()).collect()
}

/// The operators' addresses.
pub fn operators(rack: &Rack) -> Vec<String> {
    let label = "app.kubernetes.io/component=operator";
    let path = "jsonpath={.items[*].status.podIP}";
    let ips = rack.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", label, "-o", path]);
    ips.split_whitespace().map(str::to_owned).collect()
}

/// The first line of a certificate's bytes, in which its serial number is.
pub fn line(pem: &str) -> &str {
    pem.lines().nth(1).unwrap_or("nothing")
}
