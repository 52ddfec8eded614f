//! Limits on the I/O of whoever has a leg attached, by the consumer's control group.
//!
//! cgroup v2: `io.max` of the consumer's group. cgroup v1: `blkio.throttle.*` of it. Both need `CONFIG_BLK_DEV_THROTTLING`; in v2 the
//! `io` controller must be enabled for the group. Buffered writes are only limited where the consumer's file system charges its
//! writeback to the group: with v2 (and the `memory` controller) XFS and ext4 do, with v1 none does. A device's queue in sysfs has
//! no limit of rate, so there is nothing else to fall back on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// Limits of one direction each of reading and writing; none where it is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoLimits {
    /// Operations a second.
    pub iops: Option<u64>,
    /// Bytes a second.
    pub bandwidth: Option<u64>,
}

/// Why limits are not enforced.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The group has no I/O controller.
    #[error(
        "{group}: neither io.max nor blkio.throttle.*; enable the io controller for it, or use a kernel with CONFIG_BLK_DEV_THROTTLING"
    )]
    Unsupported {
        /// The control group.
        group: PathBuf,
    },
    /// A write to the group failed.
    #[error(
        "{path}: writing {text:?} failed: {source}; check that the device and the group are there"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What was written.
        text: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Which files of a control group get what, for one device number.
fn writes(v2: bool, device: u64, limits: &IoLimits) -> Vec<(&'static str, String)> {
    let device = format!("{}:{}", major(device), minor(device));
    let IoLimits { iops, bandwidth } = limits;
    if v2 {
        let max = |limit: &Option<u64>| limit.map_or("max".into(), |limit| limit.to_string());
        let (iops, bandwidth) = (max(iops), max(bandwidth));
        let line = format!("{device} rbps={bandwidth} wbps={bandwidth} riops={iops} wiops={iops}");
        return vec![("io.max", line)];
    }
    // 0 takes a limit away.
    let line = |limit: &Option<u64>| format!("{device} {}", limit.unwrap_or(0));
    vec![
        ("blkio.throttle.read_bps_device", line(bandwidth)),
        ("blkio.throttle.write_bps_device", line(bandwidth)),
        ("blkio.throttle.read_iops_device", line(iops)),
        ("blkio.throttle.write_iops_device", line(iops)),
    ]
}

/// Limits what the processes of a control group (its directory) may do to a device, in each direction by itself. What is left out is not
/// limited any more. Blocks.
///
/// # Errors
/// [`LimitError::Unsupported`] where the group cannot limit I/O: the volume then works unlimited, which the caller should say.
pub fn limit_io(group: &Path, device: u64, limits: &IoLimits) -> Result<(), LimitError> {
    let v2 = group.join("io.max").exists();
    for (file, text) in writes(v2, device, limits) {
        let path = group.join(file);
        match fs::write(&path, &text) {
            Ok(()) => {}
            Err(_) if !path.exists() => {
                return Err(LimitError::Unsupported {
                    group: group.to_owned(),
                });
            }
            Err(source) => return Err(LimitError::Io { path, text, source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::makedev;

    #[test]
    fn both_versions_say_the_same() {
        let limits = IoLimits {
            iops: Some(1000),
            bandwidth: None,
        };
        let device = makedev(7, 3);
        let expected = "7:3 rbps=max wbps=max riops=1000 wiops=1000";
        assert_eq!(writes(true, device, &limits), [("io.max", expected.into())]);
        let v1 = writes(false, device, &limits);
        assert_eq!(v1[0], ("blkio.throttle.read_bps_device", "7:3 0".into()));
        assert_eq!(
            v1[3],
            ("blkio.throttle.write_iops_device", "7:3 1000".into())
        );
    }

    #[test]
    fn a_group_without_a_controller_is_refused() {
        let group = tempfile::tempdir().unwrap();
        let group = group.path().join("none");
        let error = limit_io(&group, makedev(7, 3), &IoLimits::default()).unwrap_err();
        assert!(matches!(error, LimitError::Unsupported { .. }), "{error}");
    }
}
