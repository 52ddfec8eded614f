//! A directory with files that stand for drives, and everything that is mounted or attached in it gone at the end.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use strand_drives::{DriveKey, MediumKind, OpenPartition, OwnedDrive, SeenDrive};
use strand_placement::carve::{Geometry, Layout};
use strand_placement::verdict::{LabelState, Transport};
use strand_volumes::{Drive, LegOrder, LegSource, Provisioning, Redundancy, Storage, VolumeError};
use uuid::Uuid;

pub const MIB: u64 = 1 << 20;
/// Where the storage partition begins in its file.
pub const START: u64 = MIB;
/// Bytes of the storage partition.
pub const SIDE: u64 = 448 * MIB;

pub struct Bed {
    directory: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> Bed {
        Bed::inside(&std::env::temp_dir())
    }

    pub fn inside(parent: &Path) -> Bed {
        assert!(
            rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
            "this test needs root and loop devices (/dev/loop-control)"
        );
        let directory = tempfile::Builder::new()
            .prefix("strand-volumes-")
            .tempdir_in(parent)
            .unwrap();
        let bed = Bed { directory };
        File::create(bed.image())
            .unwrap()
            .set_len(START + SIDE + MIB)
            .unwrap();
        bed
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn image(&self) -> PathBuf {
        self.path().join("drive.img")
    }

    pub fn drive(&self) -> Uuid {
        owned(self.path()).drive_id
    }

    pub fn mounts(&self) -> PathBuf {
        self.path().join("mounts")
    }

    pub fn partition(&self, len: u64) -> OpenPartition {
        partition(self.path(), len)
    }

    /// Opens the drive as a process does that has just started.
    pub fn open(&self) -> (Storage, Arc<Drive>) {
        let storage = Storage::new(self.mounts());
        let drive = storage
            .open(&owned(self.path()), self.partition(SIDE))
            .unwrap();
        (storage, drive)
    }

    pub fn refusal(&self) -> VolumeError {
        Storage::new(self.mounts())
            .open(&owned(self.path()), self.partition(SIDE))
            .unwrap_err()
    }

    /// Mounts and loop devices below the directory.
    pub fn left(&self) -> Vec<String> {
        let loops = loops(self.path())
            .into_iter()
            .map(|(device, file)| format!("{device} over {file}"));
        mounts(self.path()).into_iter().chain(loops).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A mount may hold a loop device, and a loop device a mount.
        for _ in 0..3 {
            for at in mounts(self.path()).iter().rev() {
                let _ = Command::new("umount")
                    .arg(at)
                    .stderr(Stdio::null())
                    .status();
            }
            // What goes by itself is given the time, or its number might be somebody else's device meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(20));
            for (device, _) in loops(self.path()) {
                let _ = Command::new("losetup")
                    .args(["-d", &device])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        if !std::thread::panicking() {
            assert_eq!(self.left(), Vec::<String>::new());
        }
    }
}

/// What a process needs to open the drive in a bed's directory.
pub fn partition(directory: &Path, len: u64) -> OpenPartition {
    let file = File::options()
        .read(true)
        .write(true)
        .open(directory.join("drive.img"))
        .unwrap();
    OpenPartition {
        file,
        offset: START,
        len,
    }
}

pub fn owned(directory: &Path) -> OwnedDrive {
    let path = directory.join("drive.img");
    let metadata = fs::metadata(&path).unwrap();
    let geometry = Geometry {
        size: metadata.len(),
        logical_block: 512,
        optimal_write: 0,
    };
    OwnedDrive {
        seen: SeenDrive {
            key: DriveKey {
                model: "m".into(),
                serial: "s".into(),
                namespace: 1,
            },
            path,
            medium: MediumKind::File {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            geometry,
            transport: Transport::StandIn,
            wwid: None,
            firmware: None,
            pci_address: None,
            numa_node: None,
            stand_in: true,
        },
        pool_id: Uuid::from_u128(0x7001),
        pool_name: "rack".into(),
        // Of its own: the kernel mounts no two XFS with one UUID.
        drive_id: Uuid::from_u128(0xd << 64 | u128::from(metadata.ino())),
        generation: 1,
        state: LabelState::Carved,
        layout: Layout {
            storage: None,
            context: None,
        },
        partitions: Vec::new(),
    }
}

pub fn mounts(below: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = table.lines().filter_map(|line| line.split(' ').nth(4));
    at.filter(|at| Path::new(at).starts_with(below))
        .map(str::to_owned)
        .collect()
}

/// Loop devices over files below a directory, after those that lie over such a device, as windows do.
pub fn loops(below: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        let device = format!("/dev/{}", entry.file_name().to_string_lossy());
        all.push((device, file.trim().to_owned()));
    }
    let (lower, others): (Vec<_>, Vec<_>) =
        (all.into_iter()).partition(|(_, file)| Path::new(file).starts_with(below));
    let upper = |(_, file): &(String, String)| lower.iter().any(|(device, _)| device == file);
    let mut found: Vec<_> = others.into_iter().filter(upper).collect();
    found.extend(lower);
    found
}

/// A thick leg of a volume of that name.
pub fn leg(name: &str, size: u64) -> LegOrder {
    LegOrder {
        name: name.into(),
        volume: name.into(),
        snapshot: None,
        scratch: None,
        owner_uid: "u1".into(),
        index: 0,
        size,
        provisioning: Provisioning::Thick,
        redundancy: Redundancy::None,
        array: None,
        mode: None,
        source: LegSource::Zeroes,
    }
}

/// One that begins as a copy.
pub fn copy(name: &str, source: &str, size: u64) -> LegOrder {
    LegOrder {
        source: LegSource::Leg {
            name: source.into(),
            skip: 0,
        },
        ..leg(name, size)
    }
}

/// A snapshot of one.
pub fn snapshot(name: &str, source: &str) -> LegOrder {
    LegOrder {
        snapshot: Some(name.into()),
        volume: source.into(),
        ..copy(name, source, 0)
    }
}

/// Writes past the page cache's knowledge of others: a fresh descriptor, flushed.
pub fn write(path: &Path, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    file.sync_all()
}

pub fn read(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, at)
        .unwrap();
    bytes
}

pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
