//! The real process on stand-in files, killed while it carves; the operator is played by the test.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bed::{Cluster, NODE, until};
use strand_api::{ByteQuantity, DrivePhase, DriveStatus, PartitionRole, names};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;
const MARK: &[u8] = b"a byte that a pod wrote";

/// The agent's process; killed when it goes out of scope.
struct Process(Child);

impl Process {
    fn start(cluster: &Cluster, dir: &Path) -> Self {
        let kubeconfig = dir.join("kubeconfig");
        let server = cluster.server.as_ref().unwrap();
        server.write_kubeconfig(&kubeconfig).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
        command
            .args([
                "--node-name",
                NODE,
                "--listen",
                "127.0.0.1:0",
                "--rescan-seconds",
                "10",
            ])
            .args(["--log-level", "warn"])
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--socket")
            .arg(dir.join("agent.sock"))
            .arg("--stand-in-dir")
            .arg(dir.join("drives"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; a process that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn plug(dir: &Path, serial: &str) -> String {
    let file = File::create(dir.join(format!("drives/{serial}.img"))).unwrap();
    file.set_len(SIZE).unwrap();
    names::drive_name(NODE, "strand stand-in", serial, 1)
}

fn context(status: &DriveStatus) -> Option<u64> {
    let side = status
        .partitions
        .iter()
        .find(|p| p.role == PartitionRole::ContextMemory);
    side.map(|p| p.size.0)
}

fn storage_start(status: &DriveStatus) -> u64 {
    let side = status
        .partitions
        .iter()
        .find(|p| p.role == PartitionRole::Storage);
    side.unwrap().start as u64
}

/// A number below `bound` that differs from run to run.
fn random(bound: u64) -> u64 {
    Uuid::new_v4().as_u64_pair().1 % bound
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_of_a_carve_the_next_run_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("drives")).unwrap();
    let cluster = Cluster::start().await;
    cluster.pool().await;
    let (marked, reshaped) = (plug(dir.path(), "marked"), plug(dir.path(), "reshaped"));

    // One drive with data, which no crash may touch, and one whose carve changes all the time.
    let process = Process::start(&cluster, dir.path());
    for name in [&marked, &reshaped] {
        cluster.phase(name, DrivePhase::Available).await;
        cluster.claim(name, 64 * MIB).await;
    }
    let before = cluster
        .phase(&marked, DrivePhase::Ready)
        .await
        .status
        .unwrap();
    let reshaped_id = cluster
        .phase(&reshaped, DrivePhase::Ready)
        .await
        .status
        .unwrap()
        .label
        .unwrap()
        .drive_id;
    drop(process);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.path().join("drives/marked.img"))
        .unwrap();
    file.write_all_at(MARK, storage_start(&before)).unwrap();

    let mut taken = Vec::new();
    for round in 0..8 {
        let process = Process::start(&cluster, dir.path());
        let name = plug(dir.path(), &format!("new{round}"));
        cluster.phase(&name, DrivePhase::Available).await;
        cluster.claim(&name, 128 * MIB).await;
        cluster.claim(&reshaped, (1 + round) * 16 * MIB).await;
        taken.push(name);
        tokio::time::sleep(Duration::from_micros(random(60_000))).await;
        drop(process);
    }

    let process = Process::start(&cluster, dir.path());
    let mut ids = Vec::new();
    for name in &taken {
        let carved =
            |s: &DriveStatus| s.phase == Some(DrivePhase::Ready) && context(s) == Some(128 * MIB);
        let status = cluster.when(name, "carved", carved).await.status.unwrap();
        ids.push(status.label.unwrap().drive_id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(
        ids.len(),
        taken.len(),
        "every drive has an identity of its own"
    );
    let carved =
        |s: &DriveStatus| s.phase == Some(DrivePhase::Ready) && context(s) == Some(128 * MIB);
    let status = cluster
        .when(&reshaped, "carved as asked last", carved)
        .await
        .status
        .unwrap();
    assert_eq!(status.label.unwrap().drive_id, reshaped_id);
    let after = cluster
        .phase(&marked, DrivePhase::Ready)
        .await
        .status
        .unwrap();
    assert_eq!(
        (after.label, after.partitions),
        (before.label.clone(), before.partitions.clone())
    );
    let mut read = vec![0; MARK.len()];
    file.read_exact_at(&mut read, storage_start(&before))
        .unwrap();
    assert_eq!(read, MARK);

    // What the socket shows is what the API shows.
    let socket = dir.path().join("agent.sock");
    until("the socket to show all drives as owned", || async {
        let drives = ask(&socket, "/drives").await?;
        let drives: Vec<node_agent::DriveReport> = serde_json::from_str(&drives).unwrap();
        let ready =
            |d: &&node_agent::DriveReport| d.owned.is_some() && d.phase == Some(DrivePhase::Ready);
        (drives.iter().filter(ready).count() == 10).then_some(())
    })
    .await;
    let ready = until("the agent to be ready", || async {
        ask(&socket, "/readyz").await
    })
    .await;
    assert_eq!(ready, "ok\n");
    drop(process);
    assert_eq!(ByteQuantity(SIZE), after.size);
}

/// One request over the agent's socket; `None` unless it succeeds.
async fn ask(socket: &Path, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(socket).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_state_is_turned_away_in_words() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("drives")).unwrap();
    let cluster = Cluster::start().await;
    let socket = dir.path().join("agent.sock");
    let first = Process::start(&cluster, dir.path());
    until("the first to be ready", || async {
        ask(&socket, "/readyz").await
    })
    .await;
    let output = Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .args(["--node-name", NODE, "--listen", "127.0.0.1:0"])
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("another node agent uses"), "{words}");
    assert!(
        ask(&socket, "/healthz").await.is_some(),
        "the first goes on"
    );
    drop(first);
}
