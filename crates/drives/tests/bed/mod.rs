//! Stand-ins on this machine: sparse files and loop devices that are gone when the test is, however it ends.
#![allow(dead_code, reason = "each test binary uses a part of the bed")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use strand_drives::{CarveOrder, DriveHost, HostConfig, KernelHost, Roots, SeenDrive};
use strand_placement::carve::{MIB, Split};
use strand_placement::verdict::{Finding, KnownPools, Observation, judge};
use uuid::Uuid;

/// XFS makes no file system below 300 MiB.
pub const SIZE: u64 = 320 * MIB;
pub const POOL: Uuid = Uuid::from_u128(0x7001);

pub fn pools() -> KnownPools {
    KnownPools([(POOL, "rack".to_owned())].into())
}

pub fn order() -> CarveOrder {
    CarveOrder {
        pool_id: POOL,
        pool_name: "rack".into(),
        drive_id: Uuid::from_u128(0xd001),
        split: Split {
            context_bytes: 200 * MIB,
        },
    }
}

/// Says in words what these tests need, instead of failing somewhere inside.
pub fn need_root() {
    assert!(
        rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
        "this test needs root and loop devices (/dev/loop-control): run it as root on a machine or in a container that has them"
    );
}

/// A directory of stand-in files. There is one at a time: a process that another test forks holds this
/// test's descriptors until it execs, and judging rightly sees that.
pub struct Bed {
    pub directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Bed {
    pub fn new() -> Bed {
        need_root();
        Bed {
            directory: tempfile::Builder::new()
                .prefix("strand-drives-")
                .tempdir()
                .unwrap(),
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    pub fn image(&self, stem: &str) -> PathBuf {
        self.image_of(stem, SIZE)
    }

    pub fn image_of(&self, stem: &str, size: u64) -> PathBuf {
        let path = self.directory.path().join(format!("{stem}.img"));
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    pub fn host(&self, stand_ins: &[&Path]) -> KernelHost {
        let roots = Roots {
            kubelet: self.directory.path().join("kubelet"),
            ..Roots::default()
        };
        let config = HostConfig::stand_ins(stand_ins.iter().map(|path| path.to_path_buf()));
        KernelHost::start(HostConfig { roots, ..config })
    }
}

/// A loop device, detached when dropped. With partition scan, or partition devices would outlive the detaching.
pub struct Loop {
    pub path: PathBuf,
}

impl Loop {
    pub fn attach(image: &Path, options: &[&str]) -> Loop {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--partscan"])
            .args(options)
            .arg(image)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "losetup: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Loop {
            path: String::from_utf8(output.stdout).unwrap().trim().into(),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

/// Undoes something when dropped: the command that takes a mount or swap away.
pub struct Undo(pub Vec<String>);

impl Undo {
    pub fn new(command: &[&str]) -> Undo {
        Undo(command.iter().map(|word| (*word).to_owned()).collect())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = Command::new(&self.0[0])
            .args(&self.0[1..])
            .stdout(Stdio::null())
            .status();
    }
}

/// A process, killed and reaped when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a tool that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; install it (scripts/install-test-tools)")
        });
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A hash of everything that can be read of a file or device; stretches of zeroes are skipped.
pub fn hash(path: &Path) -> [u8; 32] {
    let file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let zeroes = vec![0; 1 << 20];
    let mut hasher = Sha256::new();
    let mut at = 0u64;
    loop {
        match file.read_at(&mut buffer, at).unwrap() {
            0 => return hasher.finalize().into(),
            len => {
                if buffer[..len] != zeroes[..len] {
                    hasher.update(at.to_le_bytes());
                    hasher.update(&buffer[..len]);
                }
                at += len as u64;
            }
        }
    }
}

pub fn only(host: &KernelHost) -> SeenDrive {
    let drives = host.scan().unwrap();
    assert_eq!(drives.len(), 1, "{drives:?}");
    drives[0].clone()
}

/// Looks at a drive until it has been watched long enough or something speaks against it.
pub fn watched(host: &KernelHost, drive: &SeenDrive) -> (Observation, Finding) {
    let mut seen = host.observe(drive, None).unwrap();
    loop {
        let finding = judge(&seen, &pools());
        if !finding
            .reasons
            .iter()
            .any(|reason| reason.code() == "StillWatched")
        {
            return (seen, finding);
        }
        std::thread::sleep(Duration::from_millis(seen.watch.remaining_ms()));
        seen = host.observe(drive, Some(&seen)).unwrap();
    }
}

/// Waits for a state, at most ten seconds.
pub fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited for {what} for a minute"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes bytes into a file or device.
pub fn poke(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

pub fn is_blank(path: &Path) -> bool {
    hash(path) == <[u8; 32]>::from(Sha256::new().finalize())
}

pub fn make_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
}
