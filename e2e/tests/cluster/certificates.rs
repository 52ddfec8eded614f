//! The webhook's certificates change while pods are made.

use std::process::Command;

use serde_json::{Value, json};
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};

use crate::rack::{NAMESPACE, Pod, Rack};

const OWN: &str = "strand-webhook";
/// The Secret that cert-manager fills.
const GIVEN: &str = "strand-webhook-cert-manager";
/// What the API server calls the webhooks.
const NAME: &str = "strand-webhook.strand-system.svc";
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
fn injected(rack: &Rack) -> usize {
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

fn secret(rack: &Rack, name: &str, key: &str) -> String {
    let path = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
    rack.kubectl(&["get", "secret", name, "-n", NAMESPACE, "-o", &path])
}

/// The certificates that the operators' webhooks show, a line of each.
fn served(rack: &Rack) -> Vec<String> {
    let label = "app.kubernetes.io/component=operator";
    let path = "jsonpath={.items[*].status.podIP}";
    let pods = rack.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", label, "-o", path]);
    let show = |ip: &str| {
        let line = format!(
            "openssl s_client -connect {ip}:9443 -servername {NAME} </dev/null 2>/dev/null | openssl x509"
        );
        run(Command::new("bash").args(["-c", &line])).unwrap_or_default()
    };
    pods.split_whitespace()
        .map(|ip| line(&show(ip)).to_owned())
        .collect()
}

/// The first line of a certificate's bytes, in which its serial number is.
fn line(pem: &str) -> &str {
    pem.lines().nth(1).unwrap_or("nothing")
}

/// cert-manager, played by hand, since it cannot be had here: its definitions, and what it and its CA injector would write.
pub mod cert_manager {
    use super::*;

    /// The definitions, by which the chart sees that it is there.
    pub fn comes(rack: &Rack) {
        for (kind, plural) in [("Issuer", "issuers"), ("Certificate", "certificates")] {
            rack.apply(json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.cert-manager.io")},
                "spec": {
                    "group": "cert-manager.io", "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    }}}],
                },
            }));
        }
        let ours = [
            "crd/issuers.cert-manager.io",
            "crd/certificates.cert-manager.io",
        ];
        rack.kubectl(
            &[
                &["wait", "--for=condition=Established", "--timeout=30s"][..],
                &ours,
            ]
            .concat(),
        );
    }

    /// Does what the chart's Certificate and annotations ask for, and sees that pods are injected by that.
    pub fn issues(rack: &Rack) {
        let asked = rack
            .cluster
            .get(&["certificate.cert-manager.io", OWN, "-n", NAMESPACE])
            .unwrap();
        assert_eq!(asked["spec"]["secretName"], GIVEN, "{asked}");
        assert_eq!(asked["spec"]["dnsNames"], json!([NAME]), "{asked}");
        let dir = rack.cluster.dir().join("cert-manager");
        std::fs::create_dir_all(&dir).unwrap();
        let line = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=strand \
             -addext subjectAltName=DNS:{NAME} -keyout tls.key -out tls.crt 2>&1"
        );
        run(Command::new("bash").args(["-euc", &line]).current_dir(&dir)).unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
        let (certificate, key) = (read("tls.crt"), read("tls.key"));
        rack.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"namespace": NAMESPACE, "name": GIVEN},
            "stringData": {"ca.crt": certificate, "tls.crt": certificate, "tls.key": key},
        }));
        let bundle = rack.kubectl(&[
            "get",
            "secret",
            GIVEN,
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.data.ca\\.crt}",
        ]);
        for kind in [
            "mutatingwebhookconfiguration",
            "validatingwebhookconfiguration",
        ] {
            let mut hooks = rack.cluster.get(&[kind, "strand"]).unwrap();
            let from = &hooks["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
            assert_eq!(*from, json!(format!("{NAMESPACE}/{OWN}")));
            for hook in hooks["webhooks"].as_array_mut().unwrap() {
                hook["clientConfig"]["caBundle"] = json!(bundle);
            }
            rack.cluster
                .feed(&["replace", "-f", "-"], hooks.to_string().as_bytes())
                .unwrap();
        }
        wait::until(
            "every operator serves what it was given",
            2 * PATIENCE,
            || {
                let all = served(rack);
                if !all.is_empty() && all.iter().all(|one| certificate.contains(one)) {
                    Ok(())
                } else {
                    Err(format!("{all:?}"))
                }
            },
        )
        .unwrap();
        rack.team("team-a");
    }

    /// Its definitions go, and what it made stays, as it would.
    pub fn goes(rack: &Rack) {
        rack.kubectl(&[
            "delete",
            "crd",
            "issuers.cert-manager.io",
            "certificates.cert-manager.io",
            "--timeout=60s",
        ]);
    }
}
