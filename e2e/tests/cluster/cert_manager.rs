//! cert-manager comes to the cluster, issues the webhook's certificate, renews it, and goes: its own controllers for self-signed
//! certificates and its own CA injector (`e2e/tools/cert-manager`), beside the control plane.

use std::process::Command;

use serde_json::json;
use strand_e2e::process::Process;
use strand_e2e::tool;
use strand_e2e::wait::{self, PATIENCE};

use crate::certificates::{NAME, OWN, injected, line, served};
use crate::rack::{NAMESPACE, Rack};

/// The Secret that it fills.
const GIVEN: &str = "strand-webhook-cert-manager";

/// cert-manager while it runs.
pub struct CertManager(Process);

impl CertManager {
    /// Its definitions, by which the chart sees that it is there, and its controllers.
    pub fn comes(rack: &Rack) -> Self {
        let definitions = definitions();
        rack.kubectl(&["apply", "--server-side", "-f", &definitions]);
        rack.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "-f",
            &definitions,
        ]);
        let mut command = Command::new(tool("cert-manager"));
        command.env("KUBECONFIG", rack.cluster.kubeconfig());
        let log = rack.cluster.dir().join("control-plane/cert-manager.log");
        Self(Process::start(&mut command, &log).unwrap())
    }

    /// Waits until it has done what the chart's Certificate and annotations ask for, and sees that pods are injected by that, and by what it
    /// issues when that is gone.
    pub fn issues(&mut self, rack: &Rack) {
        let asked = ["certificate.cert-manager.io", OWN, "-n", NAMESPACE];
        let ready = "{.status.conditions[?(@.type=='Ready')].status}";
        rack.until(&asked, ready, |status| status == "True");
        let asked = rack.cluster.get(&asked).unwrap();
        assert_eq!(asked["spec"]["secretName"], GIVEN, "{asked}");
        assert_eq!(asked["spec"]["dnsNames"], json!([NAME]), "{asked}");
        rack.team("team-a");
        let first = self.is_served(rack, "");
        rack.kubectl(&["delete", "secret", GIVEN, "-n", NAMESPACE]);
        self.is_served(rack, &first);
        assert!(self.0.runs().unwrap(), "cert-manager has ended");
    }

    /// Waits until another certificate than that is what operators serve and what the API server trusts.
    fn is_served(&self, rack: &Rack, before: &str) -> String {
        let found = wait::until("the operators serve what is trusted", 4 * PATIENCE, || {
            let certificate = stored(rack, "tls.crt")?;
            if line(&certificate) == line(before) {
                return Err("it is as it was".into());
            }
            let all = served(rack);
            if all.is_empty() || !all.iter().all(|one| certificate.contains(one)) {
                return Err(format!("served: {all:?}"));
            }
            let authority = stored(rack, "ca.crt")?;
            let trusted = trusted(rack)?;
            // Beside it stays what was trusted before.
            match trusted.iter().all(|one| one.contains(line(&authority))) {
                true => Ok(certificate),
                false => Err(format!("trusted: {trusted:?}")),
            }
        });
        let found = found.unwrap();
        // The API server trusts what is written a moment later.
        rack.team("team-a");
        injected(rack);
        found
    }

    /// It goes, with its definitions; what it made stays.
    pub fn goes(self, rack: &Rack) {
        drop(self.0);
        rack.kubectl(&["delete", "-f", &definitions(), "--timeout=60s"]);
    }
}

fn definitions() -> String {
    tool("cert-manager-definitions").display().to_string()
}

/// A part of the Secret; an error while it is not there.
fn stored(rack: &Rack, key: &str) -> Result<String, String> {
    let path = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
    let args = ["get", "secret", GIVEN, "-n", NAMESPACE, "-o", &path];
    rack.cluster.ask(&args)
}

/// The authorities by which the API server asks the webhooks.
fn trusted(rack: &Rack) -> Result<Vec<String>, String> {
    let path = "go-template={{range .webhooks}}{{.clientConfig.caBundle | base64decode}}{{\"\\x00\"}}{{end}}";
    let mut all = Vec::new();
    for kind in [
        "mutatingwebhookconfiguration",
        "validatingwebhookconfiguration",
    ] {
        let said = rack.cluster.ask(&["get", kind, "strand", "-o", path])?;
        all.extend(said.split('\0').map(str::to_owned));
    }
    all.retain(|one| !one.is_empty());
    Ok(all)
}
