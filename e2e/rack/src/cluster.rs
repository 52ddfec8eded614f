//! The Kubernetes API for a rack: the embedded API server and the operator, on the host, and node agents in the guests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use strand_api::{Drive, DriveOperation, DriveOperationSpec, MemoryPool, OperationPhase};
use strand_embedded_api as embedded;

use crate::csi::CsiNode;
use crate::guest::{Guest, SERVICE};
use crate::host::{self, Operator};
use crate::image::IN_GUEST;
use crate::rack::Rack;
use crate::wait;

/// Where guests find the host.
const HOST: &str = "10.0.2.2";
/// Port at which agents serve each other.
const PEERS: u16 = 9466;
/// Port of an endpoint's Redis clients in its guest.
const RESP: u16 = 6379;
/// The agents' key: all racks are this process's own.
const PEER_KEY: &str = "5f6b1d0c3a9e4827b1c05d7e90f2a6384c1e7b59d02f68ab93e4d5c7160f8a2b";

/// The API and the operator of one rack; gone when dropped.
pub struct Cluster {
    client: Client,
    /// None while it is away.
    server: Option<embedded::Server>,
    /// None while it is away.
    operator: Option<Operator>,
    kubeconfig: PathBuf,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts both, with a Node for each machine of the rack.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(rack: &Rack) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = serve(dir.path()).await?;
        let kubeconfig = dir.path().join("kubeconfig");
        server.write_kubeconfig(&kubeconfig)?;
        let config = Kubeconfig::from_yaml(&server.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;

        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in strand_api::crds() {
            definitions
                .create(&PostParams::default(), &definition)
                .await?;
        }
        let nodes: Api<Node> = Api::all(client.clone());
        for guest in rack.guests() {
            let node = serde_json::from_value(json!({"metadata": {"name": guest.name()}}))?;
            nodes.create(&PostParams::default(), &node).await?;
        }
        let operator = Operator::start(dir.path(), &kubeconfig)?;
        let cluster = Self {
            client,
            server: Some(server),
            operator: Some(operator),
            kubeconfig,
            dir,
        };
        for guest in rack.guests() {
            cluster.node_ready(guest, true).await?;
        }
        Ok(cluster)
    }

    /// Says of a machine's Node what Kubernetes would: whether its kubelet, which no machine here has, was heard of lately.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn node_ready(&self, guest: &Guest, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "Unknown" };
        let condition = json!({"type": "Ready", "status": status});
        let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes
            .patch_status(guest.name(), &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// A client of the API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the kubeconfig lies with which this machine reaches the API server.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs `strandctl` with these arguments, as whoever administers the rack; what it said.
    ///
    /// # Errors
    /// It does not end within the bound, or not with 0; with what it said.
    pub async fn strandctl(&self, arguments: &[&str], bound: Duration) -> Result<String> {
        host::strandctl(&self.kubeconfig, arguments, bound).await
    }

    /// Kills the operator.
    pub fn kill_operator(&mut self) {
        self.operator = None;
    }

    /// Starts another operator, in the place of one that is killed if it still runs.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_operator(&mut self) -> Result<()> {
        self.kill_operator();
        self.operator = Some(Operator::start(self.dir.path(), &self.kubeconfig)?);
        Ok(())
    }

    /// Takes the API server away from everybody, until [`serve_api`](Self::serve_api).
    pub async fn stop_api(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// Brings the API server back, at the same address and with all that it had.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn serve_api(&mut self) -> Result<()> {
        if self.server.is_none() {
            self.server = Some(serve(self.dir.path()).await?);
        }
        Ok(())
    }

    /// Makes a pool of this name and specification.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn pool(&self, name: &str, spec: serde_json::Value) -> Result<()> {
        let pool = serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool",
            "metadata": {"name": name}, "spec": spec,
        }))?;
        let pools: Api<MemoryPool> = Api::all(self.client.clone());
        pools.create(&PostParams::default(), &pool).await?;
        Ok(())
    }

    /// Waits until the Drives are as they shall be: `look` answers whether they are.
    ///
    /// # Errors
    /// All drives as they are, when they are not so within `bound`.
    pub async fn drives(
        &self,
        what: &str,
        bound: Duration,
        look: impl Fn(&[Drive]) -> bool,
    ) -> Result<Vec<Drive>> {
        let api: Api<Drive> = Api::all(self.client.clone());
        wait::until(what, bound, || async {
            match api.list(&ListParams::default()).await {
                Ok(list) if look(&list.items) => Ok(list.items),
                Ok(list) => Err(list.items.iter().map(words).collect::<Vec<_>>().join("; ")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Waits until a pool is as it shall be.
    ///
    /// # Errors
    /// The pool's status, when it is not so within `bound`.
    pub async fn pool_until(
        &self,
        name: &str,
        bound: Duration,
        look: impl Fn(&MemoryPool) -> bool,
    ) -> Result<MemoryPool> {
        let api: Api<MemoryPool> = Api::all(self.client.clone());
        wait::until(&format!("pool {name}"), bound, || async {
            match api.get(name).await {
                Ok(pool) if look(&pool) => Ok(pool),
                Ok(pool) => Err(json!(pool.status).to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Asks for an operation on a drive, and waits until it has ended like this.
    ///
    /// # Errors
    /// When it does not within the bound.
    pub async fn operate(
        &self,
        name: &str,
        spec: DriveOperationSpec,
        bound: Duration,
        end: OperationPhase,
    ) -> Result<()> {
        let api: Api<DriveOperation> = Api::all(self.client.clone());
        let operation = DriveOperation::new(name, spec);
        api.create(&PostParams::default(), &operation).await?;
        wait::until(&format!("{name} ends as {end:?}"), bound, || async {
            let operation = api.get(name).await.map_err(|error| error.to_string())?;
            let status = operation.status.unwrap_or_default();
            (status.phase == Some(end))
                .then_some(())
                .ok_or_else(|| format!("{:?}: {}", status.phase, status.message))
        })
        .await
    }

    /// Starts the node agent in a guest, on its real drives; returns its process id there.
    ///
    /// # Errors
    /// When the guest does not do as it is told.
    pub async fn start_agent(&self, guest: &Guest) -> Result<u32> {
        self.agent(guest, IN_GUEST, "").await
    }

    /// The same, for a guest that has volumes too: its kernel gets the modules that these need.
    ///
    /// # Errors
    /// When the guest does not do as it is told.
    pub async fn start_agent_with_volumes(&self, guest: &Guest) -> Result<u32> {
        self.agent_with_volumes(guest, IN_GUEST).await
    }

    /// The same, with the agent of the revision that `e2e/rack/previous` names.
    ///
    /// # Errors
    /// When its program is not there, or the guest does not do as it is told.
    pub async fn start_previous_agent_with_volumes(&self, guest: &Guest) -> Result<u32> {
        let program = host::previous("node-agent")?;
        let directory = "/run/rack/previous";
        guest
            .write(&format!("{directory}/node-agent"), &program)
            .await?;
        guest
            .sh(&format!("chmod 755 {directory}/node-agent"))
            .await?;
        self.agent_with_volumes(guest, directory).await
    }

    async fn agent_with_volumes(&self, guest: &Guest, programs: &str) -> Result<u32> {
        guest
            .sh(
                "for module in loop xfs nvmet-tcp nvme-tcp; do modprobe $module || exit 1; done
                 grep -q ' /sys/kernel/debug ' /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug",
            )
            .await?;
        self.agent(guest, programs, "--volumes-dir /run/volumes")
            .await
    }

    /// Starts the CSI driver's node part in a guest, for the volumes of a pool.
    ///
    /// # Errors
    /// When it does not answer within two minutes.
    pub async fn start_csi(&self, guest: &Guest, pool: &str) -> Result<CsiNode> {
        guest.sh("modprobe ext4").await?;
        let socket = "/run/strand/csi.sock";
        let command = format!(
            "{IN_GUEST}/csi-driver --mode node --endpoint unix://{socket} --node-name {} --fabric {pool} --listen 127.0.0.1:9467",
            guest.name()
        );
        guest.start(&command).await?;
        let bound = Duration::from_secs(120);
        let there = format!("[ -S {socket} ]");
        guest.until("the CSI driver listens", bound, &there).await?;
        let relay = format!("socat TCP-LISTEN:{SERVICE},fork,reuseaddr UNIX-CONNECT:{socket}");
        guest.start(&relay).await?;
        CsiNode::connect(guest, bound).await
    }

    async fn agent(&self, guest: &Guest, programs: &str, more: &str) -> Result<u32> {
        let kubeconfig = self.kubeconfig_for_guests()?;
        guest
            .write("/run/rack/kubeconfig", kubeconfig.as_bytes())
            .await?;
        guest
            .write("/run/rack/peer.key", PEER_KEY.as_bytes())
            .await?;
        guest.sh("chmod 600 /run/rack/peer.key").await?;
        let command = format!(
            "{programs}/node-agent --node-name {} --kubeconfig /run/rack/kubeconfig \
             --peer-key-file /run/rack/peer.key --peer-address {}:{PEERS} --arena-mib 96 --rescan-seconds 10 {more}",
            guest.name(),
            guest.address()
        );
        guest.start(&command).await
    }

    /// Opens the door of a pod in a guest, and starts the endpoint behind which its Redis clients are.
    ///
    /// # Errors
    /// When the agent does not open the door within two minutes.
    pub async fn start_pod(&self, guest: &Guest, pool: &str) -> Result<()> {
        let body = json!({"pool": pool, "namespace": "default", "directory": "/run/rack/pod"});
        let body = body.to_string();
        let request = format!(
            "PUT /doors/pod HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        guest
            .write("/run/rack/door-request", request.as_bytes())
            .await?;
        let ask = "mkdir -p /run/rack/pod && socat -t 10 - UNIX-CONNECT:/run/strand/agent.sock \
                   </run/rack/door-request | tee /run/rack/door-answer | grep -q '^HTTP/1.[01] 200' \
                   || { cat /run/rack/door-answer; false; }";
        let bound = Duration::from_secs(120);
        guest.until("the pod's door is open", bound, ask).await?;
        guest
            .start(&format!(
                "{IN_GUEST}/kv-endpoint --door /run/rack/pod/door.sock --resp 127.0.0.1:{RESP} --listen 127.0.0.1:9470"
            ))
            .await?;
        let listens = format!("socat -u /dev/null TCP:127.0.0.1:{RESP}");
        guest.until("the endpoint listens", bound, &listens).await?;
        Ok(())
    }

    /// The API server's certificate is for the host's own addresses, not for the one that guests see.
    fn kubeconfig_for_guests(&self) -> Result<String> {
        let lines = std::fs::read_to_string(&self.kubeconfig)?;
        let url = lines
            .lines()
            .find_map(|line| line.trim().strip_prefix("server: "));
        let url = url.context("the kubeconfig names no server")?;
        let port = url.rsplit(':').next().unwrap_or_default();
        Ok(lines.replace(
            &format!("server: {url}"),
            &format!("server: https://{HOST}:{port}\n    tls-server-name: 127.0.0.1"),
        ))
    }
}

/// Writes or reads a block as a Redis client of the guest's pod does; returns what the endpoint answers, the protocol's marks
/// included.
///
/// # Errors
/// When the guest does not do as it is told.
pub async fn redis(guest: &Guest, command: &[&[u8]]) -> Result<Vec<u8>> {
    let mut request = Vec::new();
    for words in [command, &[&b"QUIT"[..]]] {
        request.extend(format!("*{}\r\n", words.len()).into_bytes());
        for word in words {
            request.extend(format!("${}\r\n", word.len()).into_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
    }
    let said = guest
        .feed(&format!("socat -t 30 - TCP:127.0.0.1:{RESP}"), &request)
        .await?;
    ensure!(said.status == 0, "the endpoint of {}: {said}", guest.name());
    // The answer to QUIT.
    let answer = said.output.strip_suffix(b"+OK\r\n");
    answer.map(<[u8]>::to_vec).with_context(|| {
        format!(
            "the endpoint of {} did not answer to the end: {said}",
            guest.name()
        )
    })
}

async fn serve(dir: &Path) -> Result<embedded::Server> {
    let config = embedded::Config::new(dir.join("api"));
    Ok(embedded::Server::start(config).await?)
}

/// A drive in a line.
fn words(drive: &Drive) -> String {
    let status = drive.status.as_ref();
    let identity = status.and_then(|status| status.identity.as_ref());
    format!(
        "{} {}: {:?} {:?} {}",
        drive.spec.node_name,
        identity.map_or("?", |identity| &identity.serial),
        status.and_then(|status| status.verdict),
        status.and_then(|status| status.phase),
        status.map_or("", |status| &status.display_reasons),
    )
}
