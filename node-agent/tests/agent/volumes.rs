//! Volumes on stand-in files: real file systems and loop devices, legs asked for as the operator asks. Needs root.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use node_agent::AgentConfig;
use node_agent::volumes::{AttachError, AttachRequest, FabricConfig, Volumes, VolumesConfig};
use serde_json::json;
use strand_api::{
    DrivePhase, LegPhase, OperationPhase, OperationType, PartitionRole, PoolLeg, PoolLegSpec,
    PoolLegStatus, condition, names,
};
use strand_arrays::Host;
use strand_drives::{HostConfig, KernelHost, WatchTimes};
use strand_volumes::Throttle;

use crate::bed::{Cluster, NODE, Running, until};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 768 * MIB;
const CONTEXT: u64 = 256 * MIB;

/// A directory; what is mounted or attached below it goes with it, however the test ends.
pub struct Ground(tempfile::TempDir);

impl Ground {
    pub fn new() -> Self {
        assert!(
            fs::metadata("/dev/loop-control").is_ok(),
            "this test needs root and loop devices"
        );
        let ground = Self(
            tempfile::Builder::new()
                .prefix("strand-agent-")
                .tempdir()
                .unwrap(),
        );
        for folder in ["drives", "state"] {
            fs::create_dir(ground.path(folder)).unwrap();
        }
        ground
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Plugs a drive in; the name of its object.
    pub fn plug(&self, serial: &str) -> String {
        let image = self.path(&format!("{serial}.img"));
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        fs::rename(image, self.path(&format!("drives/{serial}.img"))).unwrap();
        names::drive_name(NODE, "strand stand-in", serial, 1)
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at = table.lines().filter_map(|line| line.split(' ').nth(4));
        at.filter(|at| Path::new(at).starts_with(self.0.path()))
            .map(str::to_owned)
            .collect()
    }

    fn loops(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let file =
                fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if Path::new(file.trim()).starts_with(self.0.path()) {
                found.push(format!("/dev/{}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for _ in 0..3 {
            for at in self.mounts().iter().rev() {
                let _ = Command::new("umount")
                    .arg(at)
                    .stderr(Stdio::null())
                    .status();
            }
            // What goes by itself is given the time, or its number might be somebody else's device meanwhile.
            std::thread::sleep(Duration::from_millis(20));
            for device in self.loops() {
                let _ = Command::new("losetup")
                    .args(["-d", &device])
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

fn agent(cluster: &Cluster, ground: &Ground) -> Running {
    agent_with(cluster, ground, Throttle::ROOT.as_ref())
}

/// An agent that limits I/O by the control groups at a path.
pub fn agent_with(cluster: &Cluster, ground: &Ground, control_groups: &Path) -> Running {
    let host = KernelHost::start(HostConfig {
        watch: WatchTimes {
            nvme: Duration::from_secs(60),
            stand_in: Duration::from_millis(50),
        },
        ..HostConfig::stand_ins([ground.path("drives")])
    });
    let config = AgentConfig {
        state_dir: Some(ground.path("state")),
        rescan: Duration::from_secs(1),
        volumes: Some(VolumesConfig {
            root: ground.path("volumes"),
            control_groups: control_groups.into(),
            fabric: FabricConfig {
                listen: Some(([127, 0, 0, 1], 4420).into()),
                key: None,
            },
            // The machine's own udev is told nothing.
            arrays: Host {
                udev: ground.path("udev"),
                ..Host::new(ground.path("run"))
            },
        }),
        ..AgentConfig::new(NODE)
    };
    Running::with(cluster, Arc::new(host), config)
}

pub fn volumes(agent: &Running) -> &Volumes {
    agent.handle.volumes().unwrap()
}

fn legs(cluster: &Cluster) -> Api<PoolLeg> {
    Api::all(cluster.client.clone())
}

/// Has a drive taken into the pool, and waits until its storage side is told; how many bytes it is told to have.
pub async fn taken(cluster: &Cluster, drive: &str) -> u64 {
    cluster.phase(drive, DrivePhase::Available).await;
    cluster.claim(drive, CONTEXT).await;
    let told = cluster
        .when(drive, "told with its usable bytes", |status| {
            status.phase == Some(DrivePhase::Ready) && usable(status).is_some()
        })
        .await;
    usable(&told.status.unwrap()).unwrap()
}

fn usable(status: &strand_api::DriveStatus) -> Option<u64> {
    let storage = |p: &&strand_api::PartitionStatus| p.role == PartitionRole::Storage;
    let storage = status.partitions.iter().find(storage)?;
    storage.usable.map(|bytes| bytes.0)
}

pub fn spec(volume: &str, drive: &str, mib: u64) -> PoolLegSpec {
    let spec = json!({
        "volume": volume, "ownerUID": "u1", "nodeName": NODE, "drive": drive, "index": 0, "size": format!("{mib}Mi"),
    });
    serde_json::from_value(spec).unwrap()
}

pub async fn ask(cluster: &Cluster, name: &str, spec: PoolLegSpec) {
    let params = PostParams::default();
    legs(cluster)
        .create(&params, &PoolLeg::new(name, spec))
        .await
        .unwrap();
}

pub async fn amend(cluster: &Cluster, name: &str, spec: serde_json::Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    legs(cluster)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

pub async fn when(
    cluster: &Cluster,
    name: &str,
    what: &str,
    asked: impl Fn(&PoolLegStatus) -> bool,
) -> PoolLegStatus {
    let said = std::sync::Mutex::new(None);
    let found = tokio::time::timeout(
        Duration::from_secs(60),
        until(what, || async {
            let status = legs(cluster).get_opt(name).await.ok()??.status;
            said.lock().unwrap().clone_from(&status);
            status.filter(&asked)
        }),
    );
    found
        .await
        .unwrap_or_else(|_| panic!("leg {name} is not {what}: {:?}", said.lock()))
}

pub async fn phase(cluster: &Cluster, name: &str, phase: LegPhase) -> PoolLegStatus {
    when(cluster, name, &format!("{phase:?}"), |s| {
        s.phase == Some(phase)
    })
    .await
}

pub fn reason(status: &PoolLegStatus, type_: &str) -> Option<String> {
    condition::find(&status.conditions, type_).map(|c| c.reason.clone())
}

pub fn request(generation: u64) -> AttachRequest {
    AttachRequest {
        generation,
        read_only: false,
    }
}

fn write(device: &Path, bytes: &[u8]) {
    let device = File::options().write(true).open(device).unwrap();
    device.write_all_at(bytes, 0).unwrap();
    device.sync_all().unwrap();
}

fn read(device: &Path, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open(device)
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_attached_copied_grown_and_deleted() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent(&cluster, &ground);
    let drive = ground.plug("S1");
    let usable = taken(&cluster, &drive).await;
    assert!((380 * MIB..SIZE - CONTEXT).contains(&usable), "{usable}");

    ask(&cluster, "v-0", spec("v", &drive, 32)).await;
    let made = phase(&cluster, "v-0", LegPhase::Ready).await;
    assert_eq!((made.size.0, made.conditions.len()), (32 * MIB, 0));
    let version = legs(&cluster).get("v-0").await.unwrap().resource_version();

    let device = volumes(&agent)
        .attach("v", request(3))
        .await
        .unwrap()
        .device;
    write(&device, b"before");
    assert_eq!(
        volumes(&agent)
            .attach("v", request(3))
            .await
            .unwrap()
            .device,
        device
    );
    let gone = volumes(&agent).attach("w", request(1)).await.unwrap_err();
    assert!(matches!(gone, AttachError::NotHere { .. }), "{gone}");

    // A snapshot under a writer, and a clone of it.
    let mut snapshot = spec("v", &drive, 32);
    snapshot.snapshot = Some("s".into());
    snapshot.source = Some("v-0".into());
    ask(&cluster, "s-s0", snapshot).await;
    assert!(
        phase(&cluster, "s-s0", LegPhase::Ready)
            .await
            .taken_at
            .is_some()
    );
    write(&device, b"after!");
    let mut clone = spec("c", &drive, 48);
    clone.source = Some("s-s0".into());
    ask(&cluster, "c-0", clone).await;
    phase(&cluster, "c-0", LegPhase::Ready).await;
    let cloned = volumes(&agent)
        .attach("c", request(1))
        .await
        .unwrap()
        .device;
    assert_eq!(
        (read(&cloned, 6), read(&device, 6)),
        (b"before".to_vec(), b"after!".to_vec())
    );

    amend(&cluster, "v-0", json!({"size": "64Mi"})).await;
    when(&cluster, "v-0", "grown", |s| s.size.0 == 64 * MIB).await;
    let name = device.file_name().unwrap().to_str().unwrap();
    let sectors = fs::read_to_string(format!("/sys/block/{name}/size")).unwrap();
    assert_eq!(sectors.trim(), (64 * MIB / 512).to_string());

    // Marked while it is attached: it stays, and says why, until it is detached.
    amend(&cluster, "v-0", json!({"deletionMark": true})).await;
    let kept = when(&cluster, "v-0", "kept", |s| {
        reason(s, names::READY).is_some()
    })
    .await;
    assert_eq!(reason(&kept, names::READY).as_deref(), Some("InUse"));
    let refused = volumes(&agent).attach("v", request(4)).await.unwrap_err();
    assert!(
        refused.to_string().contains("marked for deletion"),
        "{refused}"
    );
    assert_eq!(read(&device, 6), b"after!");
    volumes(&agent).detach("v").await.unwrap();
    phase(&cluster, "v-0", LegPhase::Deleted).await;
    assert!(matches!(
        volumes(&agent).detach("v").await,
        Err(AttachError::NotHere { .. })
    ));
    assert_eq!(volumes(&agent).report().await.unwrap().len(), 2);
    volumes(&agent).detach("c").await.unwrap();
    assert_ne!(
        version,
        legs(&cluster).get("v-0").await.unwrap().resource_version()
    );
    agent.stop().await;
    assert_eq!(ground.mounts().len(), 1, "volumes outlive their agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_says_why_and_leaves_nothing() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent(&cluster, &ground);
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    ask(&cluster, "big-0", spec("big", &drive, 4096)).await;
    let failed = phase(&cluster, "big-0", LegPhase::Failed).await;
    assert_eq!(
        (reason(&failed, names::READY).as_deref(), failed.uuid),
        (Some(names::NO_SPACE), None)
    );
    ask(&cluster, "v-0", spec("v", &drive, 16)).await;
    phase(&cluster, "v-0", LegPhase::Ready).await;
    let mut thin = spec("t", &drive, 16);
    thin.provisioning = strand_api::Provisioning::Thin;
    ask(&cluster, "t-0", thin).await;
    let failed = phase(&cluster, "t-0", LegPhase::Failed).await;
    assert_eq!(
        reason(&failed, names::READY).as_deref(),
        Some(names::NO_SPACE)
    );
    let mut lost = spec("l", &drive, 16);
    lost.uuid = Some("0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c99".into());
    ask(&cluster, "l-0", lost).await;
    let failed = phase(&cluster, "l-0", LegPhase::Failed).await;
    assert_eq!(
        reason(&failed, names::READY).as_deref(),
        Some(names::NOT_FOUND)
    );

    // The object goes and another volume takes its name: not its bytes.
    legs(&cluster)
        .delete("v-0", &DeleteParams::default())
        .await
        .unwrap();
    let orphan = until("the orphan", || async {
        legs(&cluster)
            .get_opt("v-0")
            .await
            .ok()?
            .filter(|leg| leg.spec.orphaned)
    })
    .await;
    assert_eq!(orphan.spec.size.0, 16 * MIB);
    phase(&cluster, "v-0", LegPhase::Orphaned).await;
    assert!(volumes(&agent).attach("v", request(1)).await.is_err());
    amend(&cluster, "big-0", json!({"deletionMark": true})).await;
    phase(&cluster, "big-0", LegPhase::Deleted).await;
    assert_eq!(volumes(&agent).report().await.unwrap().len(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_cluster_finds_all_legs_as_orphans_and_takes_back_what_it_claims() {
    let ground = Ground::new();
    let drive = {
        let cluster = Cluster::start().await;
        cluster.pool().await;
        let agent = agent(&cluster, &ground);
        let drive = ground.plug("S1");
        taken(&cluster, &drive).await;
        for volume in ["v", "w"] {
            ask(&cluster, &format!("{volume}-0"), spec(volume, &drive, 16)).await;
            phase(&cluster, &format!("{volume}-0"), LegPhase::Ready).await;
        }
        let device = volumes(&agent)
            .attach("v", request(7))
            .await
            .unwrap()
            .device;
        write(&device, b"thesis");
        volumes(&agent).detach("v").await.unwrap();
        agent.stop().await;
        drive
    };
    let cluster = Cluster::start().await;
    cluster.pool().await;
    let agent = agent(&cluster, &ground);
    let told = phase(&cluster, "v-0", LegPhase::Orphaned).await;
    phase(&cluster, "w-0", LegPhase::Orphaned).await;
    assert_eq!(told.attachment_generation, Some(7));
    let leg = legs(&cluster).get("v-0").await.unwrap();
    assert_eq!(
        (leg.spec.uuid.clone(), leg.spec.drive),
        (told.uuid.clone(), drive)
    );
    amend(&cluster, "v-0", json!({"orphaned": null, "ownerUID": "u2"})).await;
    phase(&cluster, "v-0", LegPhase::Ready).await;
    let stale = volumes(&agent).attach("v", request(6)).await.unwrap_err();
    assert!(stale.to_string().contains("stale"), "{stale}");
    let device = volumes(&agent)
        .attach("v", request(8))
        .await
        .unwrap()
        .device;
    assert_eq!(read(&device, 6), b"thesis");
    volumes(&agent).detach("v").await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_is_released_without_legs_and_kept_with_them_and_its_carve_changes_under_them() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent(&cluster, &ground);
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    // Storage gives up space only while it is empty.
    cluster.claim(&drive, 300 * MIB).await;
    let carved = |context: u64| {
        move |status: &strand_api::DriveStatus| {
            let of = |p: &&strand_api::PartitionStatus| p.role == PartitionRole::ContextMemory;
            status
                .partitions
                .iter()
                .find(of)
                .is_some_and(|p| p.size.0 == context)
                && usable(status).is_some()
        }
    };
    cluster.when(&drive, "carved anew", carved(300 * MIB)).await;
    ask(&cluster, "v-0", spec("v", &drive, 16)).await;
    let made = phase(&cluster, "v-0", LegPhase::Ready).await;
    let before = usable(&cluster.get(&drive).await.unwrap().status.unwrap()).unwrap();
    cluster.claim(&drive, 100 * MIB).await;
    cluster
        .when(&drive, "grown", |status| {
            carved(100 * MIB)(status) && usable(status) > Some(before + 100 * MIB)
        })
        .await;
    let same = phase(&cluster, "v-0", LegPhase::Ready).await;
    assert_eq!(same.uuid, made.uuid);

    cluster.cordon(&drive, true).await;
    cluster
        .operation("first", OperationType::Release, &drive, "S1")
        .await;
    let (ended, message) = cluster.ended("first").await;
    assert_eq!(ended, OperationPhase::Failed, "{message}");
    assert!(message.contains("holds data"), "{message}");
    amend(&cluster, "v-0", json!({"deletionMark": true})).await;
    phase(&cluster, "v-0", LegPhase::Deleted).await;
    cluster
        .operation("second", OperationType::Release, &drive, "S1")
        .await;
    let (ended, message) = cluster.ended("second").await;
    assert_eq!(ended, OperationPhase::Succeeded, "{message}");
    assert_eq!(ground.mounts(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legs_of_a_drive_that_is_pulled_say_so_and_recover() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent(&cluster, &ground);
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    ask(&cluster, "v-0", spec("v", &drive, 16)).await;
    phase(&cluster, "v-0", LegPhase::Ready).await;
    let image = ground.path("drives/S1.img");
    fs::rename(&image, ground.path("away")).unwrap();
    let told = when(&cluster, "v-0", "unhealthy", |s| {
        reason(s, names::HEALTHY).is_some()
    })
    .await;
    assert_eq!(told.phase, Some(LegPhase::Ready));
    fs::rename(ground.path("away"), &image).unwrap();
    when(&cluster, "v-0", "healthy", |s| s.conditions.is_empty()).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_detaches_what_is_being_deleted_is_told_that_it_is_gone() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent(&cluster, &ground);
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    for number in 0..12 {
        ask(
            &cluster,
            &format!("v{number}-0"),
            spec(&format!("v{number}"), &drive, 4),
        )
        .await;
        phase(&cluster, &format!("v{number}-0"), LegPhase::Ready).await;
    }
    for number in 0..12 {
        amend(
            &cluster,
            &format!("v{number}-0"),
            json!({"deletionMark": true}),
        )
        .await;
        // Again and again until its bytes are gone: never an error in between.
        let volume = format!("v{number}");
        loop {
            match volumes(&agent).detach(&volume).await {
                Ok(()) => {}
                Err(AttachError::NotHere { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        phase(&cluster, &format!("v{number}-0"), LegPhase::Deleted).await;
    }
    agent.stop().await;
}

struct Process(Child);

impl Process {
    fn start(cluster: &Cluster, ground: &Ground) -> Self {
        let kubeconfig = ground.path("kubeconfig");
        cluster
            .server
            .as_ref()
            .unwrap()
            .write_kubeconfig(&kubeconfig)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_node-agent"))
            .args(["--node-name", NODE, "--listen", "127.0.0.1:0"])
            .args(["--peer-listen", "127.0.0.1:0"])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--socket")
            .arg(ground.path("agent.sock"))
            .arg("--state-dir")
            .arg(ground.path("state"))
            .arg("--volumes-dir")
            .arg(ground.path("volumes"))
            .arg("--stand-in-dir")
            .arg(ground.path("drives"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// One request to the agent's socket: status and body.
async fn http(ground: &Ground, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(ground.path("agent.sock"))
        .await
        .ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_attachments_stay_and_every_leg_comes_to_its_end() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let drive = ground.plug("S1");
    let process = Process::start(&cluster, &ground);
    taken(&cluster, &drive).await;
    ask(&cluster, "kept-0", spec("kept", &drive, 16)).await;
    phase(&cluster, "kept-0", LegPhase::Ready).await;
    let path = "/volumes/kept/attachment";
    let body = r#"{"generation": 1, "readOnly": false}"#;
    let (status, answer) = http(&ground, "PUT", path, body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let device_of = |answer: &str| {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        PathBuf::from(answer["device"].as_str().unwrap())
    };
    let mut device = device_of(&answer);
    write(&device, b"written before all kills");
    drop(process);

    for round in 0..8u64 {
        let process = Process::start(&cluster, &ground);
        let name = format!("n{round}-0");
        ask(&cluster, &name, spec(&format!("n{round}"), &drive, 8)).await;
        if round > 1 {
            amend(
                &cluster,
                &format!("n{}-0", round - 2),
                json!({"deletionMark": true}),
            )
            .await;
        }
        // Its consumer does not notice.
        assert_eq!(read(&device, 24), b"written before all kills");
        until("the agent's first answer", || {
            http(&ground, "GET", "/volumes", "")
        })
        .await;
        // What is not known yet must not be called gone.
        let (status, said) = http(&ground, "DELETE", "/volumes/kept/attachment", "")
            .await
            .unwrap();
        assert!(matches!(status, 503 | 204), "{status} {said}");
        if status == 204 {
            let again = until("it is attached again", || async {
                http(&ground, "PUT", path, body)
                    .await
                    .filter(|(status, _)| *status == 200)
            })
            .await;
            device = device_of(&again.1);
        }
        tokio::time::sleep(Duration::from_micros(round * 7_919_317 % 900_000)).await;
        drop(process);
    }
    let process = Process::start(&cluster, &ground);
    for round in 0..8 {
        let end = if round < 6 {
            LegPhase::Deleted
        } else {
            LegPhase::Ready
        };
        phase(&cluster, &format!("n{round}-0"), end).await;
    }
    let again = until("it is attached", || async {
        http(&ground, "PUT", path, body)
            .await
            .filter(|(status, _)| *status == 200)
    })
    .await;
    assert_eq!(read(&device_of(&again.1), 24), b"written before all kills");
    let (status, said) = http(&ground, "DELETE", path, "").await.unwrap();
    assert_eq!(status, 204, "{said}");
    assert_eq!(ground.loops().len(), 1, "the drive's own");
    assert_eq!(ground.mounts().len(), 1);
    drop(process);
}
