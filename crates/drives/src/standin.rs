//! Stand-ins: plain files and loop devices that the configuration names as drives, for development.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use strand_placement::carve::Geometry;
use strand_placement::verdict::Transport;
use tracing::warn;

use crate::config::Roots;
use crate::identity::{DriveKey, MediumKind, SeenDrive};
use crate::{ioctl, label, sysfs};

/// The model of every stand-in.
const MODEL: &str = "strand stand-in";

/// The stand-ins that are there now: of each path the file or loop device, of each directory its `*.img` files.
pub(crate) fn drives(roots: &Roots, paths: &[PathBuf]) -> Vec<SeenDrive> {
    paths
        .iter()
        .flat_map(|path| members(path))
        .filter_map(|path| report(&path, drive(roots, &path)))
        .collect()
}

fn members(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    sysfs::names(path)
        .iter()
        .filter(|name| name.ends_with(".img"))
        .map(|name| path.join(name))
        .collect()
}

/// A stand-in that is not there is no news; one that cannot be used is.
fn report(path: &Path, drive: io::Result<Option<SeenDrive>>) -> Option<SeenDrive> {
    match drive {
        Ok(drive) => drive,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(path = %path.display(), %error, "a stand-in cannot be looked at and is left out; check its path and permissions");
            None
        }
    }
}

fn drive(roots: &Roots, path: &Path) -> io::Result<Option<SeenDrive>> {
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    let kind = metadata.file_type();
    if kind.is_file() {
        let medium = MediumKind::File {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        let geometry = Geometry {
            size: metadata.len(),
            logical_block: 512,
            optimal_write: 0,
        };
        seen(path.clone(), &path, medium, geometry).map(Some)
    } else if kind.is_block_device() {
        loop_drive(roots, path, metadata.rdev())
    } else {
        Err(io::Error::other("neither a plain file nor a loop device"))
    }
}

/// A loop device, or none where nothing is attached to it.
fn loop_drive(roots: &Roots, path: PathBuf, device: u64) -> io::Result<Option<SeenDrive>> {
    let name = sysfs::device_name(&path);
    let not_a_loop = || {
        io::Error::other("a block device, but no loop device; Strand takes no other as a stand-in")
    };
    if !name.starts_with("loop") || sysfs::device_number(&roots.sys, &name) != Some(device) {
        return Err(not_a_loop());
    }
    let Some(backing_file) = sysfs::text(
        &roots
            .sys
            .join("class/block")
            .join(&name)
            .join("loop/backing_file"),
    ) else {
        return Ok(None);
    };
    let backing = match ioctl::loop_backing(&File::open(&path)?) {
        Ok(backing) => backing,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let geometry = sysfs::geometry(&roots.sys, &name).ok_or_else(not_a_loop)?;
    // A loop's queue limits are those of the file system below, not of a drive.
    let geometry = Geometry {
        optimal_write: 0,
        ..geometry
    };
    let medium = MediumKind::Loop {
        device,
        backing_device: backing.device,
        backing_inode: backing.inode,
    };
    let backing_file = backing_file.trim_end_matches(" (deleted)").to_owned();
    seen(path, Path::new(&backing_file), medium, geometry).map(Some)
}

fn seen(
    path: PathBuf,
    file: &Path,
    medium: MediumKind,
    geometry: Geometry,
) -> io::Result<SeenDrive> {
    let serial = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    if serial.is_empty() || serial.len() > label::TEXT {
        return Err(io::Error::other(format!(
            "its name without extension is its serial and must have 1 to {} bytes",
            label::TEXT
        )));
    }
    Ok(SeenDrive {
        key: DriveKey {
            model: MODEL.into(),
            serial,
            namespace: 1,
        },
        path,
        medium,
        geometry,
        transport: Transport::StandIn,
        wwid: None,
        firmware: None,
        pci_address: None,
        numa_node: None,
        stand_in: true,
    })
}
