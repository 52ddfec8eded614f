//! The XFS of one storage partition: made where there is nothing, known by its UUID, which is the drive's id.
//!
//! ```text
//! 0                                                       len - 1 MiB          len
//! | XFS                                                   | being-made mark    |
//! ```
//!
//! The last MiB is not the file system's, so that nobody who writes files can write there. While a file system is being made, a mark
//! of the drive's lies in it: a partition with that mark has never held a byte of anybody's, and is made anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Advice, fadvise, major, minor};
use strand_drives::OpenPartition;
use uuid::Uuid;

use crate::error::VolumeError;
use crate::ioctl;
use crate::loops::{self, Backing, Loop, Purpose};

const MIB: u64 = 1 << 20;
/// mkfs.xfs makes no file system below 300 MiB; beside it lies the mark.
const LEAST: u64 = 301 * MIB;
const MARK: &[u8; 32] = b"strand: a file system is made on";

/// The block device that a drive's file system lies on.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// Its device number.
    pub(crate) number: u64,
    /// Bytes of the partition.
    pub(crate) len: u64,
    /// The loop device that it is, if it is one.
    over_file: Option<Loop>,
}

impl Device {
    /// The partition device itself, or a loop device over the part of a file that a stand-in's partition is: the one that is there
    /// from before, or a new one.
    pub(crate) fn of(drive: Uuid, partition: OpenPartition) -> io::Result<Device> {
        let OpenPartition { file, offset, len } = partition;
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            let number = metadata.rdev();
            return Ok(Device {
                path: node(number)?,
                file,
                number,
                len,
                over_file: None,
            });
        }
        let backing = Backing::of(&file, offset, len)?;
        let earlier = loops::all()?
            .into_iter()
            .find(|found| found.purpose == Purpose::Drive(drive) && found.backing == backing);
        let (found, file) = match earlier {
            Some(found) => {
                let file = File::options().read(true).write(true).open(&found.path)?;
                (found, file)
            }
            None => loops::attach(&file, backing, Purpose::Drive(drive), false)?,
        };
        Ok(Device {
            file,
            path: found.path.clone(),
            number: found.number,
            len,
            over_file: Some(found),
        })
    }

    /// Lets go of it; a loop device is gone when this returns, unless somebody looks at it for long.
    pub(crate) fn close(self) -> io::Result<()> {
        drop(self.file);
        match &self.over_file {
            Some(found) => loops::gone(found).map(drop),
            None => Ok(()),
        }
    }

    fn mark_at(&self) -> u64 {
        room(self.len)
    }
}

/// Bytes that the file system of a partition of `len` bytes may have.
fn room(len: u64) -> u64 {
    let block = u64::from(loops::BLOCK);
    len.saturating_sub(MIB) / block * block
}

/// The device node of a number, from the kernel's own name for it.
fn node(number: u64) -> io::Result<PathBuf> {
    let uevent = format!("/sys/dev/block/{}:{}/uevent", major(number), minor(number));
    let uevent = std::fs::read_to_string(uevent)?;
    let name = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .ok_or_else(|| io::Error::other("the kernel does not name the device"))?;
    let path = Path::new("/dev").join(name);
    if std::fs::metadata(&path)?.rdev() != number {
        return Err(io::Error::other(format!(
            "{} is not the device that the kernel names so",
            path.display()
        )));
    }
    Ok(path)
}

/// What a superblock says (`struct xfs_dsb`, linux fs/xfs/libxfs/xfs_format.h; all big-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Superblock {
    block: u32,
    blocks: u64,
    uuid: Uuid,
    in_progress: bool,
}

impl Superblock {
    fn parse(sector: &[u8; 512]) -> Option<Superblock> {
        let field = |at: usize| sector[at..].first_chunk();
        Some(Superblock {
            block: u32::from_be_bytes(*field(4)?),
            blocks: u64::from_be_bytes(*sector[8..].first_chunk()?),
            uuid: Uuid::from_bytes(*sector[32..].first_chunk()?),
            in_progress: sector[126] != 0,
        })
        .filter(|_| sector.starts_with(b"XFSB"))
    }
}

/// What lies on a storage partition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A file system of ours was being made.
    Unfinished,
    Ours,
    Foreign(String),
}

fn mark(drive: Uuid) -> [u8; 512] {
    let mut mark = [0; 512];
    mark[..32].copy_from_slice(MARK);
    mark[32..48].copy_from_slice(drive.as_bytes());
    mark
}

fn look(device: &Device, drive: Uuid) -> io::Result<Found> {
    fadvise(&device.file, 0, None, Advice::DontNeed)?;
    let mut seen = [0; 512];
    device.file.read_exact_at(&mut seen, device.mark_at())?;
    if seen == mark(drive) {
        return Ok(Found::Unfinished);
    }
    let mut start = vec![0; MIB as usize];
    device.file.read_exact_at(&mut start, 0)?;
    let mut end = vec![0; MIB as usize];
    device.file.read_exact_at(&mut end, device.len - MIB)?;
    let sector = start
        .first_chunk()
        .ok_or_else(|| io::Error::other("it has no first sector"))?;
    Ok(match Superblock::parse(sector) {
        Some(superblock) if superblock.uuid != drive => Found::Foreign(format!(
            "it holds the XFS {}, which is not this drive's",
            superblock.uuid
        )),
        Some(superblock) if superblock.in_progress => {
            Found::Foreign("it holds an XFS whose making somebody else did not finish".into())
        }
        Some(_) => Found::Ours,
        None => match start.iter().chain(&end).position(|byte| *byte != 0) {
            None => Found::Nothing,
            Some(_) => Found::Foreign("it holds data, and no XFS of this drive".into()),
        },
    })
}

/// Makes sure that a partition holds this drive's file system; whether it was made now. The caller has proved that the partition is
/// this drive's.
pub(crate) fn prepare(device: &Device, drive: Uuid) -> Result<bool, VolumeError> {
    if device.len < LEAST {
        return Err(VolumeError::TooSmall {
            drive,
            len: device.len,
            least: LEAST,
        });
    }
    match look(device, drive).map_err(VolumeError::at(&device.path, "reading it"))? {
        Found::Ours => Ok(false),
        Found::Foreign(why) => Err(VolumeError::NotOurs { drive, why }),
        Found::Nothing | Found::Unfinished => make(device, drive).map(|()| true),
    }
}

fn make(device: &Device, drive: Uuid) -> Result<(), VolumeError> {
    let put = |bytes: &[u8; 512]| {
        device.file.write_all_at(bytes, device.mark_at())?;
        device.file.sync_all()
    };
    let failed = |output: String| VolumeError::Format { drive, output };
    put(&mark(drive)).map_err(VolumeError::at(&device.path, "marking it"))?;
    // Reverse maps (rmapbt) would take 0.4 % more of the drive, for a repair that legs' few, large files do not need.
    let output = Command::new("mkfs.xfs")
        // Carving has told the drive that all of it is free.
        .args(["-q", "-f", "-K", "-m"])
        .arg(format!("reflink=1,bigtime=1,rmapbt=0,uuid={drive}"))
        .args(["-s", "size=4096", "-i"])
        .arg(format!("maxpct={}", ioctl::INODE_PERCENT))
        .arg("-d")
        .arg(format!("size={}", room(device.len)))
        .arg(&device.path)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, said.trim())));
    }
    device
        .file
        .sync_all()
        .map_err(VolumeError::at(&device.path, "flushing it"))?;
    put(&[0; 512]).map_err(VolumeError::at(&device.path, "taking the mark away"))
}

/// Makes a partition, whose file system nobody needs any more, read as blank at both ends, which is where blankness is looked for.
pub(crate) fn blank(device: &Device) -> io::Result<()> {
    let zeroes = vec![0; MIB as usize];
    // The end first: what is killed in between is still this drive's file system.
    device.file.write_all_at(&zeroes, device.len - MIB)?;
    device.file.sync_all()?;
    device.file.write_all_at(&zeroes, 0)?;
    device.file.sync_all()
}

/// A service's path may leave out where administrators' programs lie.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// Makes a mounted file system as large as its partition, which may have been carved anew and has `len` bytes now.
pub(crate) fn grow(device: &Device, len: u64, mounted: &File) -> io::Result<()> {
    let mut sector = [0; 512];
    fadvise(&device.file, 0, None, Advice::DontNeed)?;
    device.file.read_exact_at(&mut sector, 0)?;
    let Some(superblock) = Superblock::parse(&sector) else {
        return Err(io::Error::other("it has lost its superblock"));
    };
    let block = u64::from(superblock.block.max(512));
    let blocks = room(len.min(ioctl::device_size(&device.file)?)) / block;
    // Less than an allocation group's least size is not worth a change (and is refused by the kernel).
    if blocks > superblock.blocks + 16 * MIB / block {
        ioctl::grow_xfs(mounted, blocks)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_sector_is_read(bytes in proptest::collection::vec(any::<u8>(), 512)) {
            let mut sector: [u8; 512] = bytes.try_into().unwrap();
            sector[..4].copy_from_slice(b"XFSB");
            prop_assert!(Superblock::parse(&sector).is_some());
            sector[0] = 0;
            prop_assert_eq!(Superblock::parse(&sector), None);
        }
    }
}
