//! A node with one drive: a real operator, agent and CSI driver, over an API server of their own. Whatever it mounts and attaches is
//! taken away with it.

use anyhow::{Context, bail, ensure};
use kube::Api;
use rustix::mount::{UnmountFlags, unmount};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use strand_api::{PoolSnapshot, PoolVolume};
use tokio::time::sleep;

use super::csi::Driver;
use crate::{
    cluster::{Cluster, node_name},
    context::medium::{self, Kind},
    process::Measured,
};

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(120);
/// A mount may lie on a loop device over a file in another mount; so often all are gone over.
const ROUNDS: u32 = 8;

/// What a drive is.
#[derive(Clone, Copy, Debug)]
pub struct Drive {
    /// Where its file lies.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: u64,
    /// Whether its blocks are there from the start, so that writing to it costs what it costs on a drive.
    pub allocated: bool,
}

/// Such a node.
pub struct Bed {
    /// The calls to it.
    pub driver: Driver,
    cluster: Cluster,
    /// None once they were stopped; the operator first, so that it does not see the node leave.
    processes: Vec<Measured>,
    drives: tempfile::TempDir,
}

impl Bed {
    /// Starts all of it on a blank drive; ready for volumes.
    pub async fn start(drive: Drive) -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "volumes are loop devices and mounts, which need root"
        );
        let drives = tempfile::tempdir_in(drive.kind.directory())?;
        let image = drives.path().join("drive.img");
        let making = tokio::task::spawn_blocking(move || make(&image, drive));
        making.await?.context("the drive's file cannot be made")?;
        let cluster = Cluster::start(1).await?;
        let path = |name: &str| cluster.dir.path().join(name).to_string_lossy().into_owned();
        let (kubeconfig, node) = (path("kubeconfig"), node_name(0));
        let image_directory = drives.path().to_string_lossy().into_owned();
        let start = |program: &str, flags: &[(&str, &str)]| {
            let flags = flags.iter().flat_map(|(flag, value)| [*flag, *value]);
            let common = ["--kubeconfig", &kubeconfig, "--listen", "127.0.0.1:0"];
            let log = cluster.dir.path().join(format!("{program}.log"));
            Measured::start(program, flags.chain(common), log)
        };
        let operator = start("operator", &[("--namespace", "default")])?;
        let agent = start(
            "node-agent",
            &[
                ("--node-name", &node),
                ("--state-dir", &path("state")),
                ("--stand-in-dir", &image_directory),
                ("--socket", &path("agent.sock")),
                ("--volumes-dir", &path("volumes")),
            ],
        )?;
        let endpoint = format!("unix://{}", path("csi.sock"));
        let csi = start(
            "csi-driver",
            &[
                ("--mode", "all"),
                ("--node-name", &node),
                ("--endpoint", &endpoint),
                ("--agent-socket", &path("agent.sock")),
                ("--doors-dir", &path("doors")),
            ],
        )?;
        let socket = cluster.dir.path().join("csi.sock");
        let driver = Driver::new(&node, &socket, cluster.dir.path().join("pods"))?;
        // From here on it takes away what it made.
        let bed = Self {
            driver,
            cluster,
            processes: vec![operator, csi, agent],
            drives,
        };
        bed.cluster.pool("10%").await?;
        bed.cluster.until_ready(1, BOUND).await?;
        bed.until("the driver has room for volumes", async || {
            Ok(bed.driver.room().await.unwrap_or_default() > drive.bytes / 2)
        })
        .await?;
        Ok(bed)
    }

    /// The device that the drive's storage side lies on, and the file of a volume on it.
    pub fn leg(&self, volume: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let root = self.cluster.dir.path().join("volumes");
        let mounts = mounts(&root);
        let [(at, device)] = mounts.as_slice() else {
            bail!("there should be one drive mounted below {}", root.display());
        };
        let file = at.join("legs").join(format!("{volume}-0/data"));
        ensure!(file.is_file(), "{} is not there", file.display());
        Ok((device.clone(), file))
    }

    /// Waits until a volume's bytes are gone.
    pub async fn until_gone(&self, volume: &str) -> anyhow::Result<()> {
        let volumes: Api<PoolVolume> = Api::all(self.cluster.client.clone());
        let gone = async || Ok(volumes.get_opt(volume).await?.is_none());
        self.until(&format!("volume {volume} is gone"), gone).await
    }

    /// Waits until a snapshot's bytes are gone.
    pub async fn until_snapshot_gone(&self, snapshot: &str) -> anyhow::Result<()> {
        let snapshots: Api<PoolSnapshot> = Api::all(self.cluster.client.clone());
        let gone = async || Ok(snapshots.get_opt(snapshot).await?.is_none());
        self.until(&format!("snapshot {snapshot} is gone"), gone)
            .await
    }

    async fn until(
        &self,
        what: &str,
        mut reached: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !reached().await? {
            ensure!(begun.elapsed() < BOUND, "not after {BOUND:?}: {what}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops all of it, and takes away what it mounted and attached.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for process in self.processes.drain(..) {
            process.stop().await?;
        }
        clear(&[self.cluster.dir.path(), self.drives.path()])
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.processes.clear();
        if let Err(error) = clear(&[self.cluster.dir.path(), self.drives.path()]) {
            eprintln!("{error:#}");
        }
    }
}

/// Makes a drive's file, which appears whole: an agent looks for it.
fn make(path: &Path, drive: Drive) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    match drive.allocated {
        true => {
            io::copy(&mut io::repeat(0).take(drive.bytes), &mut file)?;
            file.sync_all()?;
        }
        false => file.set_len(drive.bytes)?,
    }
    fs::rename(&aside, path)
}

/// Unmounts everything below directories and detaches the loop devices over files in them.
fn clear(directories: &[&Path]) -> anyhow::Result<()> {
    let left = || -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mounted = directories.iter().flat_map(|dir| mounts(dir));
        let attached = directories.iter().flat_map(|dir| loops(dir));
        (mounted.map(|(at, _)| at).collect(), attached.collect())
    };
    for round in 0..ROUNDS {
        let (mounted, attached) = left();
        if mounted.is_empty() && attached.is_empty() {
            return Ok(());
        }
        // What is still in use is told below.
        for at in mounted.iter().rev() {
            let _ = unmount(at, UnmountFlags::empty());
        }
        for device in &attached {
            let _ = medium::run("losetup", &["--detach", &device.to_string_lossy()]);
        }
        // A loop device that goes with its mount, or its last user, is gone a moment later.
        std::thread::sleep(Duration::from_millis(20 << round));
    }
    let (mounted, attached) = left();
    ensure!(
        mounted.is_empty() && attached.is_empty(),
        "still in use: {mounted:?}, {attached:?}; unmount and detach them"
    );
    Ok(())
}

/// Mount points below a directory with what is mounted there, those that lie on others last. Source: proc_pid_mountinfo(5).
fn mounts(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let (at, source) = (front.split(' ').nth(4)?, back.split(' ').nth(1)?);
        Some((PathBuf::from(at), PathBuf::from(source)))
    });
    mounts.filter(|(at, _)| at.starts_with(directory)).collect()
}

/// Loop devices over files below a directory. Source: Documentation/ABI/testing/sysfs-block-loop.
fn loops(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let over = |entry: &fs::DirEntry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(directory))
    };
    entries
        .filter(over)
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect()
}
