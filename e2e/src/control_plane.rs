//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler and the snapshot controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use crate::process::{Process, run};
use crate::tool;
use crate::wait::{self, PATIENCE};

/// Where the API server listens: the Service `kubernetes`.
const SERVER: &str = "https://10.96.0.1:443";
/// Also the API server's, and the nodes' way out.
pub const GATEWAY: &str = "10.255.0.1";

/// A control plane; its processes end with it.
pub struct ControlPlane {
    dir: PathBuf,
    /// In the order in which they end.
    processes: Vec<Process>,
}

impl ControlPlane {
    /// Starts it, with an empty etcd in `dir`. Tokens of the nodes' kubelets are their names.
    ///
    /// # Errors
    /// When a process does not start, or the API server is not ready in time.
    pub fn start(dir: &Path, nodes: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut plane = Self {
            dir: dir.to_owned(),
            processes: Vec::new(),
        };
        let mut tokens = String::from("admin,admin,admin,system:masters\n");
        for node in nodes {
            tokens += &format!("{node},system:node:{node},{node},system:nodes\n");
        }
        fs::write(plane.path("tokens.csv"), tokens)?;
        fs::write(plane.kubeconfig(), kubeconfig("admin"))?;
        run(Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(plane.path("sa.key")))?;

        plane.launch("etcd", &plane.etcd())?;
        plane.launch("kube-apiserver", &plane.api_server())?;
        wait::until("the API server is ready", PATIENCE, || {
            run(plane.kubectl().args(["get", "--raw", "/readyz"]))
                .map_err(|error| error.to_string())
        })?;
        let kubeconfig = format!("--kubeconfig={}", plane.kubeconfig().display());
        let once = ["--leader-elect=false", "--secure-port=0"].map(str::to_owned);
        let mut manager = once.to_vec();
        manager.extend([
            kubeconfig.clone(),
            plane.flag("service-account-private-key-file", "sa.key"),
            plane.flag("root-ca-file", "certs/apiserver.crt"),
        ]);
        plane.launch("kube-controller-manager", &manager)?;
        let mut scheduler = once.to_vec();
        scheduler.push(kubeconfig.clone());
        plane.launch("kube-scheduler", &scheduler)?;
        plane.snapshots(kubeconfig)?;
        Ok(plane)
    }

    /// Definitions and controller that a cluster has beside its CSI drivers.
    fn snapshots(&mut self, kubeconfig: String) -> Result<()> {
        let definitions = tool("snapshot-definitions");
        run(self.kubectl().args(["apply", "-k"]).arg(definitions))?;
        run(self.kubectl().args([
            "wait",
            "--for=condition=Established",
            "crd/volumesnapshots.snapshot.storage.k8s.io",
            "crd/volumesnapshotcontents.snapshot.storage.k8s.io",
            "--timeout=60s",
        ]))?;
        self.launch("snapshot-controller", &[kubeconfig])
    }

    fn etcd(&self) -> Vec<String> {
        [
            format!("--data-dir={}", self.path("etcd").display()),
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
            "--initial-cluster=default=http://127.0.0.1:2380".into(),
            "--unsafe-no-fsync".into(),
        ]
        .to_vec()
    }

    fn api_server(&self) -> Vec<String> {
        [
            "--etcd-servers=http://127.0.0.1:2379".into(),
            "--secure-port=443".into(),
            format!("--advertise-address={GATEWAY}"),
            self.flag("cert-dir", "certs"),
            self.flag("token-auth-file", "tokens.csv"),
            self.flag("service-account-key-file", "sa.key"),
            self.flag("service-account-signing-key-file", "sa.key"),
            "--service-account-issuer=https://strand".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--endpoint-reconciler-type=none".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            // Webhooks and kubelets are asked at their own addresses: nobody routes Services here, or knows nodes by name.
            "--enable-aggregator-routing=true".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
        ]
        .to_vec()
    }

    fn launch(&mut self, name: &str, flags: &[String]) -> Result<()> {
        let built = tool(name);
        let program = if built.exists() { built } else { name.into() };
        let mut command = Command::new(program);
        command.args(flags);
        let process = Process::start(&mut command, &self.path(&format!("{name}.log")))?;
        self.processes.insert(0, process);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.path(name).display())
    }

    /// Whose user may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// `kubectl` as that user.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(tool("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }
}

/// How to reach the API server with this token.
pub fn kubeconfig(token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bed",
        "clusters": [{"name": "bed", "cluster": {"server": SERVER, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "bed", "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
    })
    .to_string()
}
