//! A rack of few nodes that `strandctl up` runs, and everything of it that can be seen from outside.

use kube::{
    Api, Client, Resource,
    api::ListParams,
    config::{Config, KubeConfigOptions, Kubeconfig},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    thread::sleep,
    time::{Duration, Instant},
};
use strand_api::{Drive, DrivePhase, PoolLeg, PoolSnapshot, PoolVolume};

/// Longest that anything is waited for; most take a second.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A rack in a directory of its own; gone when this is.
pub struct Rack {
    dir: tempfile::TempDir,
    up: Option<Child>,
}

/// What `rack.json` says of the node.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    pub name: String,
    pub csi: String,
    pub pid: u32,
    pub csi_pid: u32,
}

#[derive(Deserialize)]
struct Told {
    pid: u32,
    operator: Operator,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Operator {
    pid: u32,
}

impl Rack {
    pub fn new() -> Rack {
        assert!(
            rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
            "this test needs root and loop devices"
        );
        build_the_others();
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("strand-volumes.").tempdir_in("/tmp").unwrap();
        Rack { dir, up: None }
    }

    /// Starts `up`, with one node if it is not told otherwise, and waits until the rack is ready.
    pub fn up(&mut self, arguments: &[&str]) {
        self.up_with(arguments, &[]);
    }

    /// The same, with that in its environment.
    pub fn up_with(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let output = File::create(self.beside("output")).unwrap();
        let up = Command::new(env!("CARGO_BIN_EXE_strandctl"))
            .arg("up")
            .args(arguments)
            .args((!arguments.contains(&"--nodes")).then_some("--nodes=1"))
            .arg("--dir")
            .arg(self.path(""))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let pid = up.id();
        self.up = Some(up);
        let start = Instant::now();
        while self.told().is_none_or(|told| told.pid != pid) {
            let ended = self.up.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "the rack does not come up ({ended:?}):\n{}",
                self.output()
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the drives have told what their storage sides hold: until then that is estimated.
    pub async fn storage_is_told(&self) {
        until("what storage holds is told", async || {
            self.all::<Drive>().await.into_iter().all(|drive| {
                let status = drive.status.unwrap_or_default();
                status.phase != Some(DrivePhase::Ready)
                    || status.partitions.iter().any(|p| p.usable.is_some())
            })
        })
        .await;
    }

    /// Something in the rack's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("rack").join(name)
    }

    /// Something beside it, of the test's own.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.beside("output")).unwrap_or_default()
    }

    fn told(&self) -> Option<Told> {
        serde_json::from_slice(&fs::read(self.path("rack.json")).ok()?).ok()
    }

    /// The nodes with their processes as they are now.
    pub fn nodes(&self) -> Vec<Node> {
        self.told().unwrap().nodes
    }

    /// The first node, where there is no other.
    pub fn node(&self) -> Node {
        self.nodes().remove(0)
    }

    pub fn strandctl(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strandctl"));
        let output = command
            .args(arguments)
            .arg("--dir")
            .arg(self.path(""))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.path("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Client::try_from(config.unwrap()).unwrap()
    }

    /// All objects of a kind.
    pub async fn all<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api = Api::<K>::all(self.client().await);
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// The operator's process as it is now.
    pub fn operator(&self) -> u32 {
        self.told().unwrap().operator.pid
    }

    /// Kills one of the first node's two processes, or the operator, with -9, and waits until it runs again.
    pub async fn kill(&self, victim: u32) {
        let process = Pid::from_raw(victim.cast_signed()).unwrap();
        kill_process(process, Signal::KILL).unwrap();
        until("it runs again", async || {
            let now = self.node();
            ![now.pid, now.csi_pid, self.operator()].contains(&victim)
        })
        .await;
    }

    /// Ends all of it at once, without a word, and starts it again; `up` takes away the mounts and devices that a machine's start would.
    pub fn reboot(&mut self, arguments: &[&str]) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
        assert!(!self.mounts().is_empty(), "it was not in use");
        self.up(arguments);
        let of_pods = |at: &String| at.contains("/pods/");
        assert!(!self.mounts().iter().any(of_pods), "{:?}", self.mounts());
    }

    /// Takes the rack down as a person does.
    pub fn down(&mut self) -> bool {
        let Some(mut up) = self.up.take() else {
            return true;
        };
        let pid = up.id().to_string();
        // It may have ended by itself.
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        up.wait().unwrap().success()
    }

    /// Takes it down, and sees that the machine is as it was.
    pub fn ends_with_nothing_left(&mut self) {
        assert!(self.down(), "{}", self.output());
        assert_eq!(
            (self.mounts(), self.loops()),
            (Vec::<String>::new(), Vec::<String>::new())
        );
    }

    /// Mounts below the directory.
    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at = table.lines().filter_map(|line| line.split(' ').nth(4));
        at.filter(|at| Path::new(at).starts_with(self.dir.path()))
            .map(str::to_owned)
            .collect()
    }

    /// Files in the directory that loop devices lie over.
    pub fn loops(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let file =
                fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if Path::new(file.trim()).starts_with(self.dir.path()) {
                found.push(file.trim().to_owned());
            }
        }
        found
    }

    /// Waits until no volume's object is there any more, and then finds of all of them nothing: no leg, half-made or half-deleted
    /// either, no loop device but the drives' own, no mount but theirs, nothing at the paths of pods, no door.
    pub async fn has_nothing_of_any_volume(&self) {
        until("all objects are gone", async || {
            let names = (
                self.all::<PoolVolume>().await.len(),
                self.all::<PoolLeg>().await.len(),
                self.all::<PoolSnapshot>().await.len(),
            );
            names == (0, 0, 0)
        })
        .await;
        let nodes = entries(&self.path("nodes"));
        let below = |name: &str| -> Vec<PathBuf> {
            let all = nodes.iter().map(|node| entries(&node.join(name)));
            all.flatten().collect()
        };
        let sides = below("volumes");
        let mut left = Vec::new();
        for side in &sides {
            for entry in entries(side) {
                match entry.file_name().unwrap().to_str().unwrap() {
                    "legs" | "making" | "deleting" => left.extend(entries(&entry)),
                    "drive.json" | "reserve" => {}
                    // The agent looks whether the drive takes a write.
                    "probe" => {}
                    _ => left.push(entry),
                }
            }
        }
        for place in ["pods/volumes/staging", "pods/volumes/mounted", "doors"] {
            left.extend(below(place));
        }
        assert_eq!(left, Vec::<PathBuf>::new());
        let of_sides = |path: &String| sides.contains(&PathBuf::from(path));
        let mounts = self.mounts();
        assert!(mounts.iter().all(of_sides), "{mounts:?}");
        let loops = self.loops();
        let drives = below("drives");
        let of_drives = |file: &String| drives.contains(&PathBuf::from(file));
        assert!(
            loops.iter().all(of_drives) && loops.len() <= sides.len(),
            "{loops:?}"
        );
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.output());
            for log in entries(&self.path("logs")) {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<_> = text.lines().rev().take(40).collect();
                let tail: Vec<_> = lines.into_iter().rev().collect();
                eprintln!("--- the end of {}\n{}", log.display(), tail.join("\n"));
            }
        }
        self.down();
    }
}

/// What is in a directory; nothing where there is none.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "not seen that {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn build_the_others() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet"]);
        for program in ["operator", "node-agent", "kv-endpoint", "csi-driver"] {
            build.args(["-p", program]);
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the rack's programs must build"
        );
    });
}
