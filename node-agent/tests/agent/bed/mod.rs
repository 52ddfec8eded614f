//! A node without hardware: simulated drives, the embedded API server, an agent, and an operator played by the test.
//!
//! Every wait is for a state, with a bound.

mod faulty;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use faulty::FaultyHost;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use node_agent::{Agent, AgentConfig, Handle};
use serde_json::{Value, json};
use strand_api::{
    ByteQuantity, Drive, DriveOperation, DriveOperationSpec, DrivePhase, DriveStatus, MemoryPool,
    OperationPhase, OperationType, PoolGrant, crds, names,
};
use strand_drives::{DriveHost, DriveKey};
use strand_embedded_api::{Config as ServerConfig, Server};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const NODE: &str = "gpu-1";
pub const POOL: &str = "rack";
pub const POOL_ID: &str = "0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11";
pub const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server with our definitions.
pub struct Cluster {
    pub server: Option<Server>,
    pub client: Client,
    dir: TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(ServerConfig::new(dir.path())).await.unwrap();
        let client = client(&server.kubeconfig()).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in crds() {
            definitions
                .create(&PostParams::default(), &crd)
                .await
                .unwrap();
        }
        Self {
            server: Some(server),
            client,
            dir,
        }
    }

    /// Takes the API away.
    pub async fn away(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    /// Brings it back as it was.
    pub async fn back(&mut self) {
        let config = ServerConfig::new(self.dir.path());
        self.server = Some(Server::start(config).await.unwrap());
    }

    pub fn drives(&self) -> Api<Drive> {
        Api::all(self.client.clone())
    }

    pub fn operations(&self) -> Api<DriveOperation> {
        Api::all(self.client.clone())
    }

    /// Writes answered so far, to drives and operations.
    pub fn writes(&self) -> u64 {
        let stats = self.server.as_ref().unwrap().stats();
        let reading = ["get", "list", "watch", "other"];
        stats
            .requests
            .iter()
            .filter(|(r, _)| !reading.contains(&r.verb) && r.resource.starts_with("drive"))
            .map(|(_, n)| n)
            .sum()
    }

    /// Waits until so many writes are answered, and sees that they are no more: an answer is counted just after it is given.
    pub async fn wrote(&self, writes: u64) {
        until("the writes to be counted", || async {
            (self.writes() >= writes).then_some(())
        })
        .await;
        assert_eq!(self.writes(), writes);
    }

    pub async fn pool(&self) {
        self.pool_with(POOL, POOL_ID, json!({})).await;
    }

    pub async fn pool_with(&self, name: &str, id: &str, more: Value) {
        let mut spec = json!({"poolID": id, "drives": {"models": ["*"]}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let pool = MemoryPool::new(name, serde_json::from_value(spec).unwrap());
        let pools: Api<MemoryPool> = Api::all(self.client.clone());
        pools.create(&PostParams::default(), &pool).await.unwrap();
    }

    /// Grants the pool to a namespace, with a share of its context memory.
    pub async fn grant(&self, namespace: &str, share: Value) {
        let grant: PoolGrant = serde_json::from_value(json!({
            "metadata": {"name": format!("{POOL}.{namespace}")},
            "spec": {"pool": POOL, "namespace": namespace, "contextMemory": share},
        }))
        .unwrap();
        let params = PostParams::default();
        self.grants().create(&params, &grant).await.unwrap();
    }

    pub async fn ungrant(&self, namespace: &str) {
        let name = format!("{POOL}.{namespace}");
        let params = DeleteParams::default();
        self.grants().delete(&name, &params).await.unwrap();
    }

    fn grants(&self) -> Api<PoolGrant> {
        Api::all(self.client.clone())
    }

    /// What the operator writes when it takes a drive or changes its carve.
    pub async fn claim(&self, drive: &str, context: u64) {
        self.apply_spec(drive, json!({"nodeName": NODE, "pool": POOL, "poolID": POOL_ID, "carve": {"contextMemory": ByteQuantity(context)}}), true).await;
    }

    /// What the operator writes when it takes its wish back.
    pub async fn disclaim(&self, drive: &str) {
        self.apply_spec(drive, json!({"nodeName": NODE}), false)
            .await;
    }

    async fn apply_spec(&self, drive: &str, spec: Value, hold: bool) {
        let finalizers = if hold {
            json!([names::FINALIZER])
        } else {
            json!([])
        };
        let patch = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "Drive",
            "metadata": {"name": drive, "finalizers": finalizers},
            "spec": spec,
        });
        let params = PatchParams::apply(names::OPERATOR_MANAGER).force();
        self.drives()
            .patch(drive, &params, &Patch::Apply(patch))
            .await
            .unwrap();
    }

    pub async fn cordon(&self, drive: &str, cordon: bool) {
        let patch = json!({"spec": {"cordon": cordon}});
        let params = PatchParams::default();
        self.drives()
            .patch(drive, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub async fn operation(&self, name: &str, type_: OperationType, drive: &str, serial: &str) {
        let spec = DriveOperationSpec {
            type_,
            drive: drive.into(),
            serial: serial.into(),
            rate: None,
        };
        let operation = DriveOperation::new(name, spec);
        self.operations()
            .create(&PostParams::default(), &operation)
            .await
            .unwrap();
    }

    /// Waits for an operation's end and returns its phase and message.
    pub async fn ended(&self, name: &str) -> (OperationPhase, String) {
        until("the operation to end", || async {
            let status = self.operations().get(name).await.ok()?.status?;
            let phase = status.phase.filter(|p| *p != OperationPhase::Running)?;
            Some((phase, status.message))
        })
        .await
    }

    pub async fn get(&self, drive: &str) -> Option<Drive> {
        self.drives().get_opt(drive).await.unwrap()
    }

    /// Waits until a drive's status is as asked, and returns the drive.
    pub async fn when(
        &self,
        drive: &str,
        what: &str,
        asked: impl Fn(&DriveStatus) -> bool,
    ) -> Drive {
        let last = std::sync::Mutex::new(None);
        let found = until_or(|| async {
            let object = self.drives().get_opt(drive).await.ok().flatten();
            *last.lock().unwrap() = object.clone();
            object.filter(|object| object.status.as_ref().is_some_and(&asked))
        })
        .await;
        found.unwrap_or_else(|| {
            panic!(
                "waited for {drive} to be {what}; it is {:#?}",
                last.lock().unwrap()
            )
        })
    }

    pub async fn phase(&self, drive: &str, phase: DrivePhase) -> Drive {
        self.when(drive, &format!("{phase:?}"), |status| {
            status.phase == Some(phase)
        })
        .await
    }

    pub async fn delete(&self, drive: &str) {
        self.drives()
            .delete(drive, &DeleteParams::default())
            .await
            .unwrap();
    }
}

pub async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// An agent that runs in the test's process.
pub struct Running {
    pub handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(cluster: &Cluster, host: Arc<dyn DriveHost>) -> Self {
        Self::with(cluster, host, config())
    }

    pub fn with(cluster: &Cluster, host: Arc<dyn DriveHost>, config: AgentConfig) -> Self {
        let agent = Agent::new(config, cluster.client.clone(), host).unwrap();
        let handle = agent.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(agent.run(async {
            let _ = stopped.await;
        }));
        Self { handle, stop, task }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    pub fn metric(&self, line: &str) -> Option<f64> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.handle.registry().gather())
            .unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line))?;
        found.trim().parse().ok()
    }
}

/// A quick agent: what the slow rescan would find after a minute it finds after a second.
pub fn config() -> AgentConfig {
    AgentConfig {
        rescan: Duration::from_secs(1),
        peer_address: Some("127.0.0.1:7420".into()),
        ..AgentConfig::new(NODE)
    }
}

pub fn host() -> Arc<FaultyHost> {
    Arc::new(FaultyHost::new(Duration::from_millis(50)))
}

/// Name of the object of a simulated drive.
pub fn object(key: &DriveKey) -> String {
    names::drive_name(NODE, &key.model, &key.serial, key.namespace)
}

/// Waits for something to be there.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    until_or(ask)
        .await
        .unwrap_or_else(|| panic!("waited for {what} in vain"))
}

async fn until_or<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> Option<T> {
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .ok()
}

/// The uid by which a test tells an object from one made anew.
pub fn uid(drive: &Drive) -> String {
    drive.uid().unwrap()
}
