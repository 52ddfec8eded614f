//! One drive's storage side, open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use strand_drives::{OpenPartition, OwnedDrive};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::copy::Half;
use crate::error::VolumeError;
use crate::filesystem::{self, Device};
use crate::health::{self, Health};
use crate::ledger::{Ledger, cost};
use crate::limits::Throttle;
use crate::loops::{self, Loop, Purpose};
use crate::record::{self, DriveRecord, LegRecord, Provisioning};
use crate::{ioctl, mounts};

/// How much of a file system is trimmed in one command, in bytes.
const TRIM_STEP: u64 = 1 << 30;
/// How long another's lock on the device, or use of the file system, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A drive whose storage side is mounted. Dropping it leaves everything as it is, mounted and attached: pods go on.
#[derive(Debug)]
pub struct Drive {
    pub(crate) id: Uuid,
    pub(crate) pool: Uuid,
    pub(crate) root: PathBuf,
    pub(crate) throttle: Throttle,
    /// Device number of its file system.
    number: u64,
    inside: Mutex<Inside>,
}

/// What only one at a time may change.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Locked, since whoever serves a drive, there is one ledger. None once it is closed.
    device: Option<Device>,
    pub(crate) ledger: Ledger,
    pub(crate) legs: BTreeMap<String, LegRecord>,
    /// Copies of other drives' legs that are not whole, by the leg's name.
    pub(crate) copies: BTreeMap<String, Half>,
    /// UUIDs of legs that are copied to another drive and were not attached since that began.
    pub(crate) copied: BTreeSet<Uuid>,
}

/// The space of a drive's storage side, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What thick legs may be promised, each counted as [`crate::cost`] says.
    pub usable: u64,
    /// What the drive's legs are promised.
    pub promised: u64,
    /// What of that is scratch space of pods.
    pub scratch: u64,
    /// The largest thick leg that fits now, and the largest thin one; 0 for none.
    pub largest: (u64, u64),
    /// Whether they are thick or thin; none where there is no leg.
    pub kind: Option<Provisioning>,
    /// What the file system has free; on a thin drive that is what counts in the end.
    pub free: u64,
    /// What it has in all.
    pub size: u64,
}

impl Drive {
    /// Makes the file system where there is none, mounts it, takes away what an earlier process left half made or half deleted, and
    /// detaches loops over what is no leg or is not attached.
    pub(crate) fn open(
        mounts: &Path,
        owned: &OwnedDrive,
        partition: OpenPartition,
        throttle: Throttle,
    ) -> Result<Drive, VolumeError> {
        let id = owned.drive_id;
        let root = mounts.join(id.to_string());
        let device = Device::of(id, partition).map_err(VolumeError::at(
            &owned.seen.path,
            "opening its storage partition",
        ))?;
        match fs::create_dir_all(&root) {
            // What is mounted there was shut down, and cannot be looked at.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(VolumeError::at(&root, "making it"))?,
        }
        lock(&device, id)?;
        mount_device(&device, &root, id)?;
        let mounted = File::open(&root).map_err(VolumeError::at(&root, "opening it"))?;
        filesystem::grow(&device, device.len, &mounted)
            .map_err(VolumeError::at(&root, "growing the file system"))?;
        check_record(&root, owned)?;
        for directory in [LEGS, MAKING, DELETING] {
            let directory = root.join(directory);
            fs::create_dir_all(&directory).map_err(VolumeError::at(&directory, "making it"))?;
        }
        record::sync_directory(&root)?;
        keep_reserve(&root);
        let ledger = Ledger::new(usable(&root)?);
        let drive = Drive {
            id,
            pool: owned.pool_id,
            root,
            throttle,
            number: device.number,
            inside: Mutex::new(Inside {
                device: Some(device),
                ledger,
                legs: BTreeMap::new(),
                copies: BTreeMap::new(),
                copied: BTreeSet::new(),
            }),
        };
        drive.recover()?;
        Ok(drive)
    }

    /// The drive's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn inside(&self) -> Result<MutexGuard<'_, Inside>, VolumeError> {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        match inside.device {
            Some(_) => Ok(inside),
            None => Err(VolumeError::NotOpen { drive: self.id }),
        }
    }

    /// Another descriptor of the partition, so that nobody waits who only looks at it; and its bytes.
    fn device(&self) -> Result<(File, u64), VolumeError> {
        let inside = self.inside()?;
        let device = inside.device.as_ref();
        let device = device.ok_or(VolumeError::NotOpen { drive: self.id })?;
        let file = device.file.try_clone();
        let file = file.map_err(VolumeError::at(&device.path, "opening it again"))?;
        Ok((file, device.len))
    }

    /// Its space now.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn space(&self) -> Result<Space, VolumeError> {
        let inside = self.inside()?;
        let space = statvfs(&self.root).map_err(VolumeError::at(&self.root, "asking for space"))?;
        let scratch = inside.legs.values().filter(|leg| leg.scratch.is_some());
        Ok(Space {
            usable: inside.ledger.usable(),
            promised: inside.ledger.promised(),
            scratch: scratch.map(|leg| cost(leg.size)).sum(),
            largest: (
                inside.ledger.largest(Provisioning::Thick),
                inside.ledger.largest(Provisioning::Thin),
            ),
            kind: inside.ledger.kind(),
            free: space.f_bavail * space.f_frsize,
            size: space.f_blocks * space.f_frsize,
        })
    }

    /// Takes notice of a partition that was carved larger while it is open.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub(crate) fn grow(&self, partition_len: u64) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let mounted = File::open(&self.root).map_err(VolumeError::at(&self.root, "opening it"))?;
        if let Some(device) = &inside.device {
            filesystem::grow(device, partition_len, &mounted)
                .map_err(VolumeError::at(&self.root, "growing the file system"))?;
        }
        inside.ledger.resize(usable(&self.root)?);
        Ok(())
    }

    /// Looks at the drive and its file system, by reading the one and writing a small file to the other.
    ///
    /// # Errors
    /// [`VolumeError::NotOpen`].
    pub fn health(&self) -> Result<Health, VolumeError> {
        let (device, _) = self.device()?;
        Ok(health::probe(&self.root, &device))
    }

    /// Tells the drive what its file system has free in the GiB from byte `at` on: how many bytes that were, and where to go on. None where
    /// its end was reached, or it takes no TRIM.
    ///
    /// # Errors
    /// [`VolumeError::Io`]; [`VolumeError::NotOpen`] once it is closed.
    pub fn trim(&self, at: u64) -> Result<Option<(u64, u64)>, VolumeError> {
        let (_, len) = self.device()?;
        if at >= len {
            return Ok(None);
        }
        // Open for this step alone: it would keep the drive from being unmounted.
        let root = File::open(&self.root).map_err(VolumeError::at(&self.root, "opening it"))?;
        match ioctl::trim(&root, at, TRIM_STEP) {
            Ok(bytes) => Ok(Some((bytes, at + TRIM_STEP))),
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
            Err(error) => Err(VolumeError::at(&self.root, "trimming it")(error)),
        }
    }

    /// Unmounts the drive. Nothing is lost; [`Storage::open`](crate::Storage::open) finds it again.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] while a leg is attached or anything else uses the file system: it stays open then.
    pub(crate) fn close(&self) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let device = self.unmount(&mut inside)?;
        device
            .close()
            .map_err(VolumeError::at(&self.root, "letting go of its device"))
    }

    /// Unmounts the drive and makes its storage side blank, if it never held a leg or holds none any more. Whether it did.
    ///
    /// # Errors
    /// As for [`Drive::close`].
    pub(crate) fn close_blank(&self) -> Result<bool, VolumeError> {
        let mut inside = self.inside()?;
        // What is no leg as Strand leaves it counts too.
        let mut left = Vec::new();
        for directory in [LEGS, MAKING, DELETING] {
            left.extend(names(&self.root.join(directory))?);
        }
        if !left.is_empty() {
            return Ok(false);
        }
        let device = self.unmount(&mut inside)?;
        filesystem::blank(&device).map_err(VolumeError::at(&device.path, "blanking it"))?;
        device
            .close()
            .map_err(VolumeError::at(&self.root, "letting go of its device"))?;
        Ok(true)
    }

    fn unmount(&self, inside: &mut Inside) -> Result<Device, VolumeError> {
        let attached: Vec<_> = self
            .leg_loops()?
            .iter()
            .map(|found| found.path.display().to_string())
            .collect();
        if !attached.is_empty() {
            return Err(self.busy(format!("legs are attached at {}", attached.join(", "))));
        }
        let start = Instant::now();
        loop {
            match unmount(&self.root, UnmountFlags::empty()) {
                Ok(()) => break,
                // A loop device that was detached lets go of its file a moment later.
                Err(Errno::BUSY) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                Err(Errno::BUSY) => return Err(self.busy("its files are open or mounted".into())),
                Err(error) => return Err(VolumeError::at(&self.root, "unmounting it")(error)),
            }
        }
        let device = inside.device.take();
        let device = device.ok_or(VolumeError::NotOpen { drive: self.id })?;
        fs::remove_dir(&self.root).map_err(VolumeError::at(&self.root, "removing it"))?;
        Ok(device)
    }

    fn busy(&self, by: String) -> VolumeError {
        VolumeError::Busy {
            what: format!("drive {}", self.id),
            by,
        }
    }

    /// Loops of ours over files of this drive's file system.
    pub(crate) fn leg_loops(&self) -> Result<Vec<Loop>, VolumeError> {
        let mut found = loops::all().map_err(VolumeError::at(
            Path::new("/sys/class/block"),
            "listing loop devices",
        ))?;
        found.retain(|found| {
            matches!(found.purpose, Purpose::Leg(_)) && found.backing.device == self.number
        });
        Ok(found)
    }
}

/// Bytes kept for records, so that volumes can be attached and detached on a thin drive that is full.
const RESERVE_LEN: u64 = 1 << 20;
const RESERVE: &str = "reserve";

/// A drive that has no room for it goes on without.
fn keep_reserve(root: &Path) {
    let keep = || {
        let file = File::options()
            .create(true)
            .append(true)
            .open(root.join(RESERVE))?;
        fallocate(&file, FallocateFlags::empty(), 0, RESERVE_LEN)?;
        Ok::<_, io::Error>(())
    };
    if let Err(error) = keep() {
        debug!(root = %root.display(), %error, "no room is kept for records");
    }
}

/// Writes a record, with the room that is kept for it if there is no other.
pub(crate) fn write_record(root: &Path, path: &Path, leg: &LegRecord) -> Result<(), VolumeError> {
    match record::write(path, leg) {
        Err(VolumeError::Full { .. }) => {
            // One that is not there, or cannot be removed, is not needed for the next attempt to say so.
            let _ = fs::remove_file(root.join(RESERVE));
            let written = record::write(path, leg);
            keep_reserve(root);
            written
        }
        written => written,
    }
}

pub(crate) const LEGS: &str = "legs";
pub(crate) const MAKING: &str = "making";
pub(crate) const DELETING: &str = "deleting";

/// Mounts a device at a directory, unless it is mounted there from before.
fn mount_device(device: &Device, root: &Path, drive: Uuid) -> Result<(), VolumeError> {
    let there = mounts::at(root).map_err(VolumeError::at(root, "listing mounts"))?;
    match there.last() {
        Some(mount) if mount.device == device.number => {
            // One that was shut down after an error reads again only once it is mounted anew, which what is attached prevents.
            return match fs::read_dir(root) {
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    unmount(root, UnmountFlags::empty()).map_err(|_| VolumeError::Busy {
                        what: root.display().to_string(),
                        by: "volumes on a file system that was shut down".into(),
                    })?;
                    mount_device(device, root, drive)
                }
                _ => Ok(()),
            };
        }
        Some(_) => {
            // A drive that was pulled, or a stand-in whose file was replaced. If anything still uses it, it stays.
            warn!(path = %root.display(), "another device is mounted here; it is unmounted if nothing uses it");
            unmount(root, UnmountFlags::empty()).map_err(|_| VolumeError::Busy {
                what: root.display().to_string(),
                by: "the file system of a device that is no longer this drive's".into(),
            })?;
            return mount_device(device, root, drive);
        }
        None => {}
    }
    filesystem::prepare(device, drive)?;
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(&device.path, root, "xfs", flags, None).map_err(VolumeError::at(root, "mounting its XFS"))
}

/// Takes the exclusive right to serve a drive. It also keeps udev from looking into the device, which locks it for a moment to do so
/// (systemd, "Locking Block Device Access").
fn lock(device: &Device, drive: Uuid) -> Result<(), VolumeError> {
    let start = Instant::now();
    loop {
        match flock(&device.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(Errno::WOULDBLOCK) => return Err(VolumeError::Served { drive }),
            Err(error) => return Err(VolumeError::at(&device.path, "locking it")(error)),
        }
    }
}

fn check_record(root: &Path, owned: &OwnedDrive) -> Result<(), VolumeError> {
    let path = root.join(record::DRIVE);
    match record::read::<DriveRecord>(&path)? {
        Some(record) if record.drive_id == owned.drive_id => Ok(()),
        Some(record) => Err(VolumeError::NotOurs {
            drive: owned.drive_id,
            why: format!("its record is drive {}'s", record.drive_id),
        }),
        None => record::write(&path, &DriveRecord::new(owned.drive_id, owned.pool_id)),
    }
}

fn usable(root: &Path) -> Result<u64, VolumeError> {
    let space = statvfs(root).map_err(VolumeError::at(root, "asking for space"))?;
    Ok(Ledger::of_file_system(space.f_blocks * space.f_frsize))
}

/// Names in a directory.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, VolumeError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    };
    list().map_err(VolumeError::at(directory, "listing it"))
}
