//! One open descriptor on one drive whose identity was asked of what is open, not of its name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::host::DriveError;
use crate::identity::{MediumKind, SeenDrive};
use crate::ioctl;
use crate::medium::{Disk, Medium};
use crate::nvme::{self, Identity, NvmeAdmin};

/// How a drive is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading, without any claim: nobody notices.
    Look,
    /// Reading, with the kernel's claim on a block device, for a moment.
    Claim,
    /// Writing, with the kernel's claim on a block device or a lock on a plain file.
    Write,
    /// Writing beside whoever has partitions of ours open: only where what they have open stays where it is.
    Share,
}

/// An open drive.
pub(crate) struct Held<'a> {
    pub(crate) file: File,
    pub(crate) drive: &'a SeenDrive,
    admin: &'a dyn NvmeAdmin,
}

impl<'a> Held<'a> {
    /// Opens a drive and checks that it is the one that was seen.
    pub(crate) fn open(
        drive: &'a SeenDrive,
        access: Access,
        admin: &'a dyn NvmeAdmin,
    ) -> Result<Held<'a>, DriveError> {
        let claim = if matches!(access, Access::Claim | Access::Write) {
            OFlags::EXCL
        } else {
            OFlags::empty()
        };
        let file = OpenOptions::new()
            .read(true)
            .write(matches!(access, Access::Write | Access::Share))
            .custom_flags(claim.bits().cast_signed())
            .open(&drive.path)
            .map_err(|error| open_error(drive, error))?;
        let held = Held { file, drive, admin };
        if access == Access::Write
            && !held
                .is_block_device()
                .map_err(|error| held.error("looking at it", error))?
        {
            flock(&held.file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|error| open_error(drive, error.into()))?;
        }
        held.check()?;
        Ok(held)
    }

    /// Asks what is open who it is, and compares that with what was seen.
    pub(crate) fn check(&self) -> Result<Option<Identity>, DriveError> {
        let drive = self.drive;
        let metadata = self
            .file
            .metadata()
            .map_err(|error| self.error("looking at it", error))?;
        let (expected, found, identity) = match drive.medium {
            MediumKind::Nvme { .. } => {
                let identity = nvme::identify(self.admin, &self.file)
                    .map_err(|error| self.error("NVMe identify", error))?;
                let found = format!(
                    "{} {} namespace {}",
                    identity.model, identity.serial, identity.namespace
                );
                (drive.key.to_string(), found, Some(identity))
            }
            MediumKind::Loop {
                backing_device,
                backing_inode,
                ..
            } => {
                let backing = ioctl::loop_backing(&self.file)
                    .map_err(|error| self.error("asking for its backing file", error))?;
                (
                    inode(backing_device, backing_inode),
                    inode(backing.device, backing.inode),
                    None,
                )
            }
            MediumKind::File {
                device,
                inode: number,
            } => (
                inode(device, number),
                inode(metadata.dev(), metadata.ino()),
                None,
            ),
        };
        let size = self.disk()?.size();
        if expected != found || size != drive.geometry.size {
            return Err(DriveError::IdentityChanged {
                path: drive.path.clone(),
                expected: format!("{expected}, {} bytes", drive.geometry.size),
                found: format!("{found}, {size} bytes"),
            });
        }
        Ok(identity)
    }

    /// The bytes behind the descriptor.
    pub(crate) fn disk(&self) -> Result<Disk<'_>, DriveError> {
        Disk::new(&self.file).map_err(|error| self.error("asking for its size", error))
    }

    /// Whether a block device is open, which has partitions in the kernel, rather than a plain file.
    pub(crate) fn is_block_device(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.file_type().is_block_device())
    }

    /// An I/O error on this drive.
    pub(crate) fn error(&self, action: &'static str, source: io::Error) -> DriveError {
        DriveError::Io {
            path: self.drive.path.clone(),
            action,
            source,
        }
    }
}

fn inode(device: u64, inode: u64) -> String {
    format!("file {inode} on device {device:#x}")
}

fn open_error(drive: &SeenDrive, error: io::Error) -> DriveError {
    let path = drive.path.clone();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => DriveError::Gone { path },
        Some(Errno::BUSY | Errno::AGAIN) => DriveError::Busy {
            path,
            reasons: Vec::new(),
        },
        _ => DriveError::Io {
            path,
            action: "opening it",
            source: error,
        },
    }
}
