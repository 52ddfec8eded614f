//! An API server, the stand-in and the driver, in a directory that goes with all that was made in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use strand_api::{PoolSnapshot, PoolVolume};
use strand_csi::v1::controller_client::ControllerClient;
use strand_csi::v1::identity_client::IdentityClient;
use strand_csi::v1::node_client::NodeClient;
use strand_csi::v1::volume_capability::access_mode::Mode;
use strand_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use strand_csi::v1::*;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::stand_in::StandIn;

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// The node that the driver runs on.
pub const NODE: &str = "node-1";
/// How many volumes the node can have.
pub const MAX_VOLUMES: i64 = 20;
/// The pool.
pub const POOL: &str = "rack";

pub struct Bed {
    driver: Option<Child>,
    pub stand_in: StandIn,
    pub client: Client,
    _server: strand_embedded_api::Server,
    /// Last: everything in it has to be gone first.
    ground: Ground,
}

/// The directory; whatever of ours is mounted or attached in it goes with it, also when a test fails.
pub struct Ground(TempDir);

impl Ground {
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Mounts below it, and loop devices over files in it.
    pub fn left(&self) -> Vec<String> {
        let mounts = self
            .mounts()
            .into_iter()
            .map(|path| format!("mount {path}"));
        let loops = self
            .loops()
            .into_iter()
            .map(|(device, file)| format!("loop {device} {file}"));
        mounts.chain(loops).collect()
    }

    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("a table of mounts");
        let at = table.lines().filter_map(|line| line.split(' ').nth(4));
        let under = self.path().to_str().expect("a path").to_owned();
        // Blanks and backslashes are written as octal numbers (proc_pid_mountinfo(5)).
        at.filter(|at| at.starts_with(&under))
            .map(|at| at.replace("\\040", " ").replace("\\134", "\\"))
            .collect()
    }

    fn loops(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").expect("sysfs").flatten() {
            let file =
                fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if Path::new(file.trim()).starts_with(self.path()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.push((format!("/dev/{name}"), file.trim().to_owned()));
            }
        }
        found
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for at in self.mounts().iter().rev() {
            let _ = Command::new("umount")
                .arg(at)
                .stderr(Stdio::null())
                .status();
        }
        for (device, _) in self.loops() {
            let _ = Command::new("losetup").args(["-d", &device]).status();
        }
    }
}

impl Bed {
    pub async fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "mounts need root");
        let ground = Ground(tempfile::tempdir().expect("a directory"));
        let config = strand_embedded_api::Config::new(ground.path().join("api"));
        let server = strand_embedded_api::Server::start(config)
            .await
            .expect("an API server");
        server
            .write_kubeconfig(&ground.path().join("kubeconfig"))
            .expect("written");
        let client = client(&server.kubeconfig()).await;
        for crd in strand_api::crds() {
            let api = Api::<CustomResourceDefinition>::all(client.clone());
            api.create(&PostParams::default(), &crd)
                .await
                .expect("defined");
        }
        make::<k8s_openapi::api::core::v1::Node>(&client, json!({"metadata": {"name": NODE}}))
            .await;
        make_pool(&client).await;
        let stand_in = StandIn::start(ground.path(), client.clone()).await;
        let mut bed = Self {
            driver: None,
            stand_in,
            client,
            _server: server,
            ground,
        };
        bed.start_driver().await;
        bed
    }

    pub fn path(&self) -> &Path {
        self.ground.path()
    }

    pub fn left(&self) -> Vec<String> {
        self.ground.left()
    }

    pub fn mounts(&self) -> Vec<String> {
        self.ground.mounts()
    }

    /// How many volumes and snapshots there are.
    pub async fn objects(&self) -> (usize, usize) {
        let all = ListParams::default();
        let volumes = Api::<PoolVolume>::all(self.client.clone()).list(&all).await;
        let snapshots = Api::<PoolSnapshot>::all(self.client.clone());
        let snapshots = snapshots.list(&all).await.expect("listed");
        (volumes.expect("listed").items.len(), snapshots.items.len())
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("csi.sock")
    }

    /// What the driver has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("driver.log")).unwrap_or_default()
    }

    pub async fn start_driver(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path().join("driver.log"));
        let log = log.expect("a log");
        let under = |name: &str| self.path().join(name).into_os_string();
        let child = Command::new(env!("CARGO_BIN_EXE_csi-driver"))
            .args([
                "--mode",
                "all",
                "--node-name",
                NODE,
                "--listen",
                "127.0.0.1:0",
            ])
            .args(["--max-volumes", &MAX_VOLUMES.to_string()])
            .args(["--log-level", "info,csi_driver=debug"])
            .arg("--endpoint")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--agent-socket".into(), under("agent.sock")])
            .args(["--doors-dir".into(), under("doors")])
            .args(["--kubeconfig".into(), under("kubeconfig")])
            .stderr(log)
            .spawn();
        self.driver = Some(child.expect("the driver starts"));
        let start = Instant::now();
        while IdentityClient::new(self.channel())
            .probe(ProbeRequest {})
            .await
            .is_err()
        {
            assert!(
                start.elapsed() < PATIENCE,
                "the driver does not serve:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the driver without a word.
    pub fn kill_driver(&mut self) {
        if let Some(mut child) = self.driver.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    pub fn channel(&self) -> Channel {
        let address = format!("unix://{}", self.socket().display());
        Endpoint::from_shared(address)
            .expect("an address")
            .connect_lazy()
    }

    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel())
    }

    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel())
    }

    /// Paths of a volume.
    pub fn staging(&self, volume: &str) -> String {
        self.place("staging", volume)
    }

    pub fn target(&self, pod: &str) -> String {
        self.place("pods", pod)
    }

    fn place(&self, kind: &str, name: &str) -> String {
        let path = self.path().join(kind).join(name);
        path.to_str().expect("a path").to_owned()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.kill_driver();
        if std::thread::panicking() {
            eprintln!("the driver's log:\n{}", self.log());
        }
        self.stand_in.stop();
    }
}

/// Whether a mounted ext4 can grow here: the kernel asks for CAP_SYS_RESOURCE (bit 24), which some roots lack.
pub fn can_grow_mounted(fs: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities =
        u64::from_str_radix(line.expect("capabilities").trim(), 16).expect("a number");
    fs != "ext4" || capabilities >> 24 & 1 == 1
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

pub async fn make_pool(client: &Client) {
    let pool = json!({"metadata": {"name": POOL}, "spec": {"drives": {"models": ["*"]}}});
    make::<strand_api::MemoryPool>(client, pool).await;
}

/// Makes the pool one that is granted.
pub async fn grant_the_pool(client: &Client) {
    let granted = Patch::Merge(json!({"spec": {"access": "Granted"}}));
    let pools = Api::<strand_api::MemoryPool>::all(client.clone());
    let patched = pools.patch(POOL, &PatchParams::default(), &granted).await;
    patched.expect("patched");
}

/// Grants the pool to a namespace.
pub async fn grant(client: &Client, namespace: &str) {
    let grant = json!({
        "metadata": {"name": format!("{POOL}.{namespace}")}, "spec": {"pool": POOL, "namespace": namespace},
    });
    make::<strand_api::PoolGrant>(client, grant).await;
}

async fn make<K>(client: &Client, object: serde_json::Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object");
    let made = Api::<K>::all(client.clone())
        .create(&PostParams::default(), &object)
        .await;
    made.expect("made");
}

/// A capability: a file system, or raw blocks with an empty `fs`.
pub fn capability(fs: &str, mode: Mode) -> VolumeCapability {
    let access_type = match fs {
        "" => AccessType::Block(BlockVolume {}),
        fs => AccessType::Mount(MountVolume {
            fs_type: fs.into(),
            ..MountVolume::default()
        }),
    };
    VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub fn writer(fs: &str) -> VolumeCapability {
    capability(fs, Mode::SingleNodeWriter)
}

pub fn bytes(required: i64) -> CapacityRange {
    CapacityRange {
        required_bytes: required,
        limit_bytes: 0,
    }
}
