//! etcd and kube-apiserver on this machine, for one test; everything is gone when it is dropped.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, Secret, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Config, ResourceExt,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Not 127/8, which the API server takes for nobody's endpoint.
const ADDRESS: &str = "10.255.77.1";
const NAMESPACE: &str = "strand-system";
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for a state.
pub async fn within<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address on `lo` that goes with its owner.
struct Address;

impl Address {
    fn add() -> Self {
        let _ = Self::change("del");
        assert!(
            Self::change("add"),
            "an address cannot be put on lo: this test needs root"
        );
        Self
    }

    fn change(what: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["address", what, &format!("{ADDRESS}/32"), "dev", "lo"]);
        command
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        Self::change("del");
    }
}

/// A control plane. Fields are dropped in this order.
pub struct Bed {
    _operator: Option<Process>,
    _api: Process,
    _etcd: Process,
    _address: Address,
    dir: tempfile::TempDir,
    port: u16,
    admin: Client,
}

impl Bed {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let address = Address::add();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let log = |name: &str| Stdio::from(fs::File::create(at(name)).unwrap());
        let etcd = Command::new("etcd")
            .arg("--data-dir")
            .arg(at("etcd"))
            .args([
                "--listen-client-urls",
                &url(client),
                "--advertise-client-urls",
                &url(client),
            ])
            .args([
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
            ])
            .args([
                "--initial-cluster",
                &format!("default={}", url(peer)),
                "--unsafe-no-fsync",
            ])
            .stdout(Stdio::null())
            .stderr(log("etcd.log"))
            .spawn()
            .expect("etcd is installed");
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(at("sa.key"))
            .output()
            .unwrap();
        assert!(made.status.success());
        fs::write(at("tokens.csv"), "admin,admin,1,system:masters\n").unwrap();
        let path = |flag: &str, name: &str| format!("--{flag}={}", at(name).display());
        let api = Command::new(root().join(".cache/tools/kube-apiserver"))
            .args([
                &path("cert-dir", "certs"),
                &path("token-auth-file", "tokens.csv"),
                &path("service-account-key-file", "sa.key"),
                &path("service-account-signing-key-file", "sa.key"),
                &format!("--etcd-servers={}", url(client)),
                &format!("--secure-port={port}"),
                &format!("--advertise-address={ADDRESS}"),
            ])
            .args([
                "--bind-address=127.0.0.1",
                "--authorization-mode=Node,RBAC",
                "--service-account-issuer=https://strand",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=none",
                // Webhooks are asked at their endpoints: nobody routes the addresses of Services here.
                "--enable-aggregator-routing=true",
                "--allow-privileged=true",
            ])
            .stdout(Stdio::null())
            .stderr(log("api.log"))
            .spawn()
            .expect("kube-apiserver is built: e2e/tools/build kube-apiserver");
        let admin = connect(port, "admin").await;
        let bed = Self {
            _operator: None,
            _api: Process(api),
            _etcd: Process(etcd),
            _address: address,
            dir,
            port,
            admin,
        };
        fs::write(bed.path("admin"), kubeconfig(port, "admin")).unwrap();
        within("the API server is ready", || async {
            bed.admin.apiserver_version().await.is_ok()
        })
        .await;
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn chart(&self) -> String {
        root().join("charts/strand").to_string_lossy().into_owned()
    }

    pub fn helm(&self, args: &[&str]) -> String {
        let done = Command::new(root().join(".cache/tools/helm"))
            .args(args)
            .env("KUBECONFIG", self.path("admin"))
            .env("HOME", self.dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "helm {args:?}: {said}");
        String::from_utf8_lossy(&done.stdout).into_owned() + &said
    }

    pub fn install(&self) {
        self.helm(&[
            "install",
            "strand",
            &self.chart(),
            "-n",
            NAMESPACE,
            "--create-namespace",
        ]);
    }

    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    pub async fn node(&self, name: &str) {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(self.admin())
            .create(&PostParams::default(), &node)
            .await
            .unwrap();
    }

    /// As the agent of a node.
    pub async fn agent(&self, node: &str) -> Client {
        self.token("strand-node", Some(node)).await
    }

    /// Under a service account; its token is bound to the node, as the kubelet has it done.
    pub async fn token(&self, account: &str, node: Option<&str>) -> Client {
        connect(self.port, &self.raw_token(account, node).await).await
    }

    async fn raw_token(&self, account: &str, node: Option<&str>) -> String {
        let bound = match node {
            Some(name) => {
                let node: Node = Api::all(self.admin()).get(name).await.unwrap();
                Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Node".into()),
                    name: Some(name.into()),
                    uid: node.uid(),
                })
            }
            None => None,
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                bound_object_ref: bound,
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), NAMESPACE);
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        answer.unwrap().status.unwrap().token.unwrap()
    }

    /// Runs the operator under its service account, with the flags that the chart gives it, as the webhooks' endpoint.
    pub fn operator(&mut self) -> Operator {
        let (http, webhook) = (free_port(), free_port());
        let log = self.path("operator.log");
        let token = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let slice: EndpointSlice = serde_json::from_value(json!({
                    "metadata": {"name": "strand-webhook", "labels": {"kubernetes.io/service-name": "strand-webhook"}},
                    "addressType": "IPv4", "ports": [{"name": "webhook", "port": webhook, "protocol": "TCP"}],
                    "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}],
                }))
                .unwrap();
                let slices: Api<EndpointSlice> = Api::namespaced(self.admin(), NAMESPACE);
                slices.create(&PostParams::default(), &slice).await.unwrap();
                self.raw_token("strand-operator", None).await
            })
        });
        fs::write(self.path("operator"), kubeconfig(self.port, &token)).unwrap();
        fs::write(
            self.path("injection.yaml"),
            "image: strand:0.1.0\nport: 6379\n",
        )
        .unwrap();
        let child = Command::new(root().join("target/debug/operator"))
            .arg("--kubeconfig")
            .arg(self.path("operator"))
            .env("STRAND_LISTEN", format!("127.0.0.1:{http}"))
            .env("STRAND_WEBHOOK_LISTEN", format!("{ADDRESS}:{webhook}"))
            .env("STRAND_PEER_KEY_SECRET", "strand-peer-key")
            .env("STRAND_INJECTION_CONFIG", self.path("injection.yaml"))
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("the operator is built: cargo build -p operator");
        self._operator = Some(Process(child));
        Operator { http, log }
    }

    pub async fn secret(&self, name: &str, key: &str) -> Vec<u8> {
        let secrets: Api<Secret> = Api::namespaced(self.admin(), NAMESPACE);
        let mut secret = secrets.get(name).await.unwrap();
        secret
            .data
            .as_mut()
            .and_then(|data| data.remove(key))
            .map_or_else(Vec::new, |bytes| bytes.0)
    }

    /// What the API server trusts, by webhook.
    pub async fn bundles(&self) -> Vec<Vec<u8>> {
        let mutating: MutatingWebhookConfiguration =
            Api::all(self.admin()).get("strand").await.unwrap();
        let validating: ValidatingWebhookConfiguration =
            Api::all(self.admin()).get("strand").await.unwrap();
        let mutating = mutating
            .webhooks
            .into_iter()
            .flatten()
            .map(|hook| hook.client_config);
        let validating = validating
            .webhooks
            .into_iter()
            .flatten()
            .map(|hook| hook.client_config);
        let all = mutating.chain(validating);
        all.map(|config| config.ca_bundle.map_or_else(Vec::new, |bundle| bundle.0))
            .collect()
    }
}

/// A running operator.
pub struct Operator {
    http: u16,
    log: PathBuf,
}

impl Operator {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:{}{path}", self.http);
        let done = Command::new("curl")
            .args(["-sf", "-m", "5", &url])
            .output()
            .unwrap();
        done.status
            .success()
            .then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    }

    pub async fn ready(&self) -> bool {
        self.get("/readyz").await.is_some()
    }

    pub async fn failed_actions(&self) -> Vec<String> {
        let metrics = self.get("/metrics").await.expect("metrics");
        let failed = metrics
            .lines()
            .filter(|line| line.contains("result=\"error\""))
            // Of an operation that is deleted together with its drive, the drive's end may be heard of first.
            .filter(|line| !line.contains("kind=\"deny\""));
        failed.map(str::to_owned).collect()
    }
}

fn kubeconfig(port: u16, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bed",
        "clusters": [{"name": "bed", "cluster": {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "bed", "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
    })
    .to_string()
}

async fn connect(port: u16, token: &str) -> Client {
    let config = Kubeconfig::from_yaml(&kubeconfig(port, token)).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}
