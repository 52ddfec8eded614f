//! The directory of a rack: what lies where, who holds it, and which drives its nodes have.
//!
//! ```text
//! rack.lock            held by the running `up`
//! rack.json            written when the rack is ready, gone when it is down
//! kubeconfig           for kubectl and the rack's processes
//! ports.json           so that a rack that comes up again has the addresses it had
//! api/                 the API server's objects
//! logs/                one file a process
//! peer.key             by which the agents know each other
//! nodes/node-1/        drives/node-1-drive-0.img …, state/, agent.sock, csi.sock, volumes/, pods/pod-1/door.sock …
//! ```

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use strand_api::ByteQuantity;

/// What a rack's directory may hold at its top.
const OURS: [&str; 8] = [
    "rack.lock",
    "rack.json",
    "kubeconfig",
    "ports.json",
    "peer.key",
    "api",
    "logs",
    "nodes",
];

/// Longest path of a Unix socket (`sun_path` in unix(7), less its end mark).
const LONGEST_SOCKET: usize = 107;

/// A rack's directory that no other `up` holds.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    _lock: File,
}

impl Layout {
    /// Makes the directory, or takes one that a rack was in before.
    ///
    /// Refused: a directory that holds anything that is not a rack's, and one that another `up`
    /// runs in.
    pub fn open(dir: &Path) -> Result<Layout> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot look into {}", dir.display()))?;
        refuse_foreign(&dir)?;
        let path = dir.join("rack.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another `strandctl up` runs in {}; stop it, or give this one a directory of its own",
                dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let layout = Layout { dir, _lock: lock };
        for folder in [layout.api(), layout.logs(), layout.nodes()] {
            create(&folder)?;
        }
        // What a rack that was killed has left behind is not true any more.
        layout.forget_rack()?;
        Ok(layout)
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// State of the API server.
    pub fn api(&self) -> PathBuf {
        self.dir.join("api")
    }

    /// Kubeconfig of the rack.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Description of the rack for scripts.
    pub fn rack(&self) -> PathBuf {
        self.dir.join("rack.json")
    }

    /// Ports that the rack had before.
    pub fn ports(&self) -> PathBuf {
        self.dir.join("ports.json")
    }

    /// The key by which the agents know each other, made where there is none: 64 hexadecimal digits, for its owner alone.
    pub fn peer_key(&self) -> Result<PathBuf> {
        let path = self.dir.join("peer.key");
        if !path.exists() {
            let mut key = [0; 32];
            rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
                .context("no random bytes can be had")?;
            let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            let aside = path.with_extension("new");
            let write = || {
                let mut options = File::options();
                options.create(true).truncate(true).write(true).mode(0o600);
                options.open(&aside)?.write_all(digits.as_bytes())?;
                fs::rename(&aside, &path)
            };
            write().with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(path)
    }

    /// Log of a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    fn nodes(&self) -> PathBuf {
        self.dir.join("nodes")
    }

    /// Takes away the description of a rack that is down.
    pub fn forget_rack(&self) -> Result<()> {
        match fs::remove_file(self.rack()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.rack().display()))
            }
            _ => Ok(()),
        }
    }

    /// The rack's nodes: those asked for, or those it had, or three. Never fewer than it had,
    /// since the drives of the others would be missing from their pools.
    pub fn node_count(&self, asked: Option<u32>) -> Result<u32> {
        let mut had = 0;
        while self.node(had + 1).dir.is_dir() {
            had += 1;
        }
        match asked {
            Some(asked) if asked < had => bail!(
                "the rack in {} has {had} nodes; with --nodes {asked} the drives of the others would \
                 be missing. Give --nodes {had} or leave it out; for a smaller rack use another \
                 directory",
                self.dir.display()
            ),
            Some(asked) => Ok(asked),
            None if had > 0 => Ok(had),
            None => Ok(DEFAULT_NODES),
        }
    }

    /// Where node `number` (from 1) has its things.
    pub fn node(&self, number: u32) -> NodeLayout {
        let name = format!("node-{number}");
        NodeLayout {
            dir: self.nodes().join(&name),
            name,
        }
    }
}

const DEFAULT_NODES: u32 = 3;
const DEFAULT_DRIVES: u32 = 4;

/// One node's part of the directory.
#[derive(Clone, Debug)]
pub struct NodeLayout {
    /// Name of the node.
    pub name: String,
    dir: PathBuf,
}

impl NodeLayout {
    /// Makes the node's folders and its drives: as many as asked for, sparse and blank. A node
    /// that was up before keeps what it has, unless a number is asked for; what is there is never
    /// touched. Returns the drives made.
    pub fn prepare(&self, drives: Option<u32>, size: ByteQuantity) -> Result<Vec<PathBuf>> {
        fits_a_socket(&self.socket())?;
        let known = self.state().is_dir();
        create(&self.drives())?;
        let wanted = drives.unwrap_or(if known { 0 } else { DEFAULT_DRIVES });
        let mut made = Vec::new();
        for number in 0..wanted {
            let name = format!("{}-drive-{number}.img", self.name);
            let path = self.drives().join(&name);
            if !path.exists() {
                // Made aside, so that an agent never sees a drive that is still growing.
                let aside = self.dir.join(&name);
                let file = File::create(&aside)
                    .and_then(|file| file.set_len(size.0))
                    .and_then(|()| fs::rename(&aside, &path));
                file.with_context(|| format!("cannot make the drive {}", path.display()))?;
                made.push(path);
            }
        }
        create(&self.state())?;
        Ok(made)
    }

    /// The files that stand for its drives, by name.
    pub fn drive_files(&self) -> Result<Vec<PathBuf>> {
        let dir = self.drives();
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {}", dir.display()))?
                .path();
            if path.extension().is_some_and(|extension| extension == "img") {
                files.push(path);
            }
        }
        files.sort_by_cached_key(|path| crate::cluster::natural(&path.to_string_lossy()));
        Ok(files)
    }

    /// Files in it stand for drives; one that appears is a drive that was plugged in.
    pub fn drives(&self) -> PathBuf {
        self.dir.join("drives")
    }

    /// The agent's own state.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Directories of its pods.
    pub fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }

    /// Makes a pod's directory.
    pub fn pod(&self, name: &str) -> Result<PathBuf> {
        let directory = self.pods().join(name);
        fits_a_socket(&directory.join("door.sock"))?;
        create(&directory)?;
        Ok(directory)
    }

    /// Storage sides of its drives are mounted below it.
    pub fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }

    /// Doors that its CSI driver opens for pods.
    pub fn doors(&self) -> PathBuf {
        self.dir.join("doors")
    }

    /// The CSI driver's socket.
    pub fn csi(&self) -> PathBuf {
        self.dir.join("csi.sock")
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }
}

/// Writes a file so that a reader finds the old content or the new, never a part.
pub fn replace(path: &Path, content: &str) -> Result<()> {
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn fits_a_socket(path: &Path) -> Result<()> {
    if path.as_os_str().len() > LONGEST_SOCKET {
        bail!(
            "{} is too long for the path of a socket ({LONGEST_SOCKET} bytes at most); use a \
             directory with a shorter path",
            path.display()
        );
    }
    Ok(())
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn refuse_foreign(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let name = entry
            .with_context(|| format!("cannot read {}", dir.display()))?
            .file_name();
        let name = name.to_string_lossy();
        // `replace` may have been killed between its two steps.
        let ours = OURS.contains(&name.as_ref()) || name.ends_with(".new");
        if !ours {
            bail!(
                "{} holds {name}, which is not part of a rack; give an empty directory, a new one, or \
                 one that `strandctl up` has used before",
                dir.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const SIZE: ByteQuantity = ByteQuantity(1 << 20);

    #[test]
    fn a_directory_with_anything_else_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let refused = Layout::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("thesis.tex"), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_has_one_rack_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::open(dir.path()).unwrap();
        let refused = Layout::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("another `strandctl up`"), "{refused}");
        drop(first);
        // A program that another test starts has what is open in this process until its exec.
        let patience = Instant::now() + Duration::from_secs(30);
        while let Err(error) = Layout::open(dir.path()) {
            assert!(Instant::now() < patience, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_rack_comes_up_with_the_nodes_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        assert_eq!(layout.node_count(None).unwrap(), DEFAULT_NODES);
        for number in 1..=2 {
            layout.node(number).prepare(Some(0), SIZE).unwrap();
        }
        assert_eq!(layout.node_count(None).unwrap(), 2);
        assert_eq!(layout.node_count(Some(5)).unwrap(), 5);
        let refused = layout.node_count(Some(1)).unwrap_err().to_string();
        assert!(refused.contains("has 2 nodes"), "{refused}");
    }

    #[test]
    fn a_drive_that_is_there_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let node = layout.node(1);
        fs::create_dir_all(node.drives()).unwrap();
        let mine = node.drives().join("node-1-drive-1.img");
        fs::write(&mine, "precious").unwrap();

        let made = node.prepare(Some(3), SIZE).unwrap();
        assert_eq!(made.len(), 2);
        assert_eq!(fs::read(&mine).unwrap(), b"precious");
        assert_eq!(node.drive_files().unwrap().len(), 3);

        // Pulled out while the rack was down: it stays out.
        fs::remove_file(&made[0]).unwrap();
        assert!(node.prepare(None, SIZE).unwrap().is_empty());
        assert_eq!(node.drive_files().unwrap().len(), 2);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("x".repeat(100))).unwrap();
        let refused = layout.node(1).prepare(None, SIZE).unwrap_err().to_string();
        assert!(refused.contains("shorter path"), "{refused}");
    }
}
