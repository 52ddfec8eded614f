//! NodeGetVolumeStats.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::StatVfs;
use strand_csi::v1::volume_usage::Unit;
use strand_csi::v1::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage,
};

use super::filesystem;
use super::inline;
use super::mounts::{self, Mount};
use super::stage::known;
use crate::error::Error;
use crate::request::id;
use crate::request::size::signed;

/// The mount of a volume at a path that a caller names.
///
/// # Errors
/// [`Error::NotThere`] where nothing is mounted.
pub fn mounted(field: &'static str, volume: &str, path: &str) -> Result<Mount, Error> {
    if path.is_empty() {
        return Err(Error::Missing(field));
    }
    let found = match id::path(field, path) {
        Ok(path) => known(&path)?,
        // A path that nothing can be mounted at.
        Err(_) => None,
    };
    let mount = match &found {
        Some(path) => mounts::at(path)?,
        None => None,
    };
    mount.ok_or_else(|| Error::NotThere {
        volume: volume.to_owned(),
        path: found.unwrap_or_default(),
    })
}

/// Whether a mount is a device, not a file system.
pub fn is_device(mount: &Mount) -> bool {
    mount.fs == "devtmpfs" || mount.fs == "tmpfs"
}

pub(super) fn stats(
    request: &NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, Error> {
    let volume = id::id("volume_id", &request.volume_id)?;
    let mount = mounted("volume_path", &request.volume_id, &request.volume_path)?;
    if volume.is_none() && inline::id(&request.volume_id).is_err() {
        return Err(Error::NotThere {
            volume: request.volume_id.clone(),
            path: mount.at,
        });
    }
    if is_device(&mount) {
        return device_stats(&mount);
    }
    let seen = rustix::fs::statvfs(&mount.at).map_err(io::Error::from);
    // What was shut down may not even say its size. An error would keep its condition from whoever asked.
    let usage = match &seen {
        Ok(seen) => usage(seen),
        Err(_) => device_usage(&mount.device),
    };
    let read = seen.and_then(|_| fs::read_dir(&mount.at));
    Ok(NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(condition(&mount, read.map(|_| ()))),
    })
}

fn device_stats(mount: &Mount) -> Result<NodeGetVolumeStatsResponse, Error> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(&mount.at).map_err(Error::host("cannot look at", &mount.at))?;
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let mut first = [0; 1];
    let read = fs::File::open(&mount.at)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut first));
    Ok(NodeGetVolumeStatsResponse {
        usage: device_usage(&format!("{major}:{minor}")),
        volume_condition: Some(condition(mount, read)),
    })
}

/// The size of the device `major:minor`; nothing where it is gone.
fn device_usage(numbers: &str) -> Vec<VolumeUsage> {
    vec![VolumeUsage {
        total: signed(filesystem::device_size(numbers).unwrap_or(0)),
        unit: Unit::Bytes.into(),
        ..VolumeUsage::default()
    }]
}

/// Bytes and inodes; pure.
fn usage(seen: &StatVfs) -> Vec<VolumeUsage> {
    let bytes = |blocks: u64| signed(blocks.saturating_mul(seen.f_frsize));
    vec![
        VolumeUsage {
            available: bytes(seen.f_bavail),
            total: bytes(seen.f_blocks),
            used: bytes(seen.f_blocks.saturating_sub(seen.f_bfree)),
            unit: Unit::Bytes.into(),
        },
        VolumeUsage {
            available: signed(seen.f_favail),
            total: signed(seen.f_files),
            used: signed(seen.f_files.saturating_sub(seen.f_ffree)),
            unit: Unit::Inodes.into(),
        },
    ]
}

/// How a volume is, from its mount and from an attempt to read it; pure. A file system that its driver has shut down answers every
/// access with an error; ext4 goes read-only instead.
fn condition(mount: &Mount, read: io::Result<()>) -> VolumeCondition {
    let has = |options: &[String], wanted: &str| options.iter().any(|o| o == wanted);
    let trouble = match read {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(()) if has(&mount.fs_options, "emergency_ro") => {
            Some("went read-only after an error".into())
        }
        Ok(()) if has(&mount.fs_options, "ro") && has(&mount.options, "rw") => {
            Some("is read-only although it was mounted for writing".into())
        }
        Ok(()) => None,
    };
    VolumeCondition {
        abnormal: trouble.is_some(),
        message: trouble.map_or_else(
            || "the volume is well".into(),
            |what| {
                let path: &Path = &mount.source;
                format!(
                    "the volume on {} {what}; delete its pods so that it is mounted anew",
                    path.display()
                )
            },
        ),
    }
}
