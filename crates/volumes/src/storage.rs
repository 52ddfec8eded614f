//! The storage sides of one node's drives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mount::{UnmountFlags, unmount};
use strand_drives::{OpenPartition, OwnedDrive};
use uuid::Uuid;

use crate::attach::take_away;
use crate::drive::Drive;
use crate::error::VolumeError;
use crate::limits::Throttle;
use crate::{loops, mounts};

/// The storage sides that this process serves. All methods but [`drive`](Self::drive) and [`drives`](Self::drives) block. Dropped, it leaves
/// every mount and attachment as it is, for the next process.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    throttle: Throttle,
    drives: Mutex<BTreeMap<Uuid, Arc<Drive>>>,
}

impl Storage {
    /// Mounts will be made at `<root>/<drive id>`; `root` must be where consumers see them (a Bidirectional hostPath).
    pub fn new(root: impl Into<PathBuf>) -> Storage {
        Storage {
            root: root.into(),
            throttle: Throttle::new(Throttle::ROOT),
            drives: Mutex::default(),
        }
    }

    /// Limits the I/O to attached legs by these control groups instead of those at [`Throttle::ROOT`].
    #[must_use]
    pub fn throttled_by(self, throttle: Throttle) -> Storage {
        Storage { throttle, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Drive>>> {
        self.drives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a drive's storage side: makes a file system if the partition is blank, mounts it, and finds its
    /// legs and attachments again. That the drive is ours is what [`OwnedDrive`] says. Repeated, it takes notice of a partition that has
    /// grown. One call a drive at a time.
    ///
    /// # Errors
    /// [`VolumeError::NotOurs`], [`VolumeError::TooSmall`], [`VolumeError::Served`], [`VolumeError::Format`], [`VolumeError::Io`]. Nothing
    /// of anybody's was written then.
    pub fn open(
        &self,
        owned: &OwnedDrive,
        partition: OpenPartition,
    ) -> Result<Arc<Drive>, VolumeError> {
        if let Some(drive) = self.drive(owned.drive_id) {
            drive.grow(partition.len)?;
            return Ok(drive);
        }
        let drive = Arc::new(Drive::open(
            &self.root,
            owned,
            partition,
            self.throttle.clone(),
        )?);
        self.lock().insert(drive.id(), Arc::clone(&drive));
        Ok(drive)
    }

    /// Unmounts a drive's storage side. Done already where it is not open.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] while something uses it: it then stays open.
    pub fn close(&self, drive: Uuid) -> Result<(), VolumeError> {
        if let Some(open) = self.drive(drive) {
            open.close()?;
            self.lock().remove(&drive);
        }
        Ok(())
    }

    /// Unmounts a drive's storage side and makes it blank, if no leg lies on it; whether it did. Nothing is done, and it stays open,
    /// where one does. A drive that is not open is left as it is.
    ///
    /// # Errors
    /// As for [`Storage::close`].
    pub fn close_blank(&self, drive: Uuid) -> Result<bool, VolumeError> {
        let Some(open) = self.drive(drive) else {
            return Ok(false);
        };
        let blank = open.close_blank()?;
        if blank {
            self.lock().remove(&drive);
        }
        Ok(blank)
    }

    /// Takes away the loop device over a leg of a drive that is not open, since its file system was shut down: whether there was one.
    /// What lies on such a drive is only known by the path that it had.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] while it is mounted or open; [`VolumeError::Io`].
    pub fn detach_unanswering(&self, drive: Uuid, leg: &str) -> Result<bool, VolumeError> {
        let found = loops::unanswering(drive, leg);
        let Some(found) =
            found.map_err(VolumeError::at(&self.root, "looking for its loop device"))?
        else {
            return Ok(false);
        };
        take_away(&self.throttle, leg, &found).map(|()| true)
    }

    /// An open drive.
    pub fn drive(&self, drive: Uuid) -> Option<Arc<Drive>> {
        self.lock().get(&drive).cloned()
    }

    /// All open drives, by id.
    pub fn drives(&self) -> Vec<Arc<Drive>> {
        self.lock().values().cloned().collect()
    }

    /// Unmounts what an earlier process left at the root for drives that are neither open nor in `known` (those of this machine): drives
    /// that were pulled. What is still in use stays. Returns what stays.
    ///
    /// # Errors
    /// [`VolumeError::Io`] when the mounts cannot be listed.
    pub fn sweep(&self, known: &[Uuid]) -> Result<Vec<PathBuf>, VolumeError> {
        let root = match std::fs::canonicalize(&self.root) {
            Ok(root) => root,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(VolumeError::at(&self.root, "looking at it")(error)),
        };
        let all = mounts::all().map_err(VolumeError::at(Path::new("/proc"), "listing mounts"))?;
        let mut stay = Vec::new();
        for mount in all {
            let Some(drive) = drive_of(&root, &mount.point) else {
                continue;
            };
            if known.contains(&drive) || self.drive(drive).is_some() {
                continue;
            }
            match unmount(&mount.point, UnmountFlags::empty()) {
                // A directory that stays behind empty does no harm.
                Ok(()) => drop(std::fs::remove_dir(&mount.point)),
                Err(_) => stay.push(mount.point),
            }
        }
        Ok(stay)
    }
}

fn drive_of(root: &Path, point: &Path) -> Option<Uuid> {
    let name = point.strip_prefix(root).ok()?.to_str()?;
    name.parse().ok()
}
