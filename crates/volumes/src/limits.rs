//! Limits on the I/O to attached legs, by the control groups of whoever does the I/O.
//!
//! A device's queue has no limit of rate; control groups have, for a device by its number: `io.max` in cgroup v2, `blkio.throttle.*` in v1,
//! both with CONFIG_BLK_DEV_THROTTLING. A leg's device is one volume's alone, so its limits are set where they hold for everybody:
//!
//! - v2: `io.max` of a group holds for all below it together. The root has none, so it is set in each group right below the root: all pods
//!   lie in one of them. Only processes in the root itself, which systemd and the kubelet leave empty, are not held.
//! - v1: groups do not hold for those below them. It is set in every group there is, and by the next look in those that came since.
//!
//! Buffered writes are held where the writeback is charged to their writer: with v2 XFS and ext4 do that; with v1 it is the root's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{major, makedev, minor};
use rustix::io::Errno;

/// Limits on the I/O to one device, each for reading and for writing by itself; none where it is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoLimits {
    /// Operations a second; more than 0.
    pub iops: Option<u64>,
    /// Bytes a second; more than 0.
    pub bandwidth: Option<u64>,
}

/// Why limits are not enforced.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// No group can limit I/O.
    #[error(
        "{root}: no control group has io.max or blkio.throttle.*; enable the io controller (`echo +io > {root}/cgroup.subtree_control`), \
         or use a kernel with CONFIG_BLK_DEV_THROTTLING"
    )]
    Unsupported {
        /// Where control groups are mounted.
        root: PathBuf,
    },
    /// A group could not be read or written.
    #[error("{path}: {action} failed: {source}; check that control groups can be written")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// This machine's control groups, as far as they limit I/O.
#[derive(Clone, Debug)]
pub struct Throttle {
    root: PathBuf,
}

/// A hierarchy that has the I/O controller, and the groups of it that limits are set in.
#[derive(Debug, PartialEq, Eq)]
enum Groups {
    V2(Vec<PathBuf>),
    V1(Vec<PathBuf>),
}

const MAX: &str = "io.max";
const CONTROLLERS: &str = "cgroup.controllers";
/// Files of v1: bytes and operations a second, of reads and of writes.
const V1: [&str; 4] = [
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
];

impl Throttle {
    /// Where control groups are mounted on a machine.
    pub const ROOT: &str = "/sys/fs/cgroup";

    /// The control groups mounted there: those of v2, or below it the v1 hierarchy `blkio`.
    pub fn new(root: impl Into<PathBuf>) -> Throttle {
        Throttle { root: root.into() }
    }

    /// Sets the limits of devices, by device number; what they have is left as it is. Blocks.
    ///
    /// # Errors
    /// [`LimitError`], where there is something to limit; what can be limited is.
    pub fn set(&self, wanted: &BTreeMap<u64, IoLimits>) -> Result<(), LimitError> {
        let groups = match self.groups() {
            Err(LimitError::Unsupported { .. })
                if wanted.values().all(|limits| *limits == IoLimits::default()) =>
            {
                return Ok(());
            }
            groups => groups?,
        };
        let all = match &groups {
            Groups::V2(all) | Groups::V1(all) => all,
        };
        let mut result = Ok(());
        for group in all {
            let done = match &groups {
                Groups::V2(_) => set_v2(group, wanted),
                Groups::V1(_) => set_v1(group, wanted),
            };
            match done {
                // A group that is gone holds nobody, and a device that is gone needs no limits.
                Err(LimitError::Io { source, .. }) if is_gone(&source) => {}
                done => result = result.and(done),
            }
        }
        result
    }

    fn groups(&self) -> Result<Groups, LimitError> {
        let root = &self.root;
        let unsupported = || LimitError::Unsupported { root: root.clone() };
        let controllers = fs::read_to_string(root.join(CONTROLLERS)).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "io") {
            // What a container sees as the root is none, and holds for all below it.
            if root.join(MAX).exists() {
                return Ok(Groups::V2(vec![root.clone()]));
            }
            let limiting = || -> Result<Vec<PathBuf>, LimitError> {
                let mut below = directories(root)?;
                below.retain(|group| group.join(MAX).exists());
                Ok(below)
            };
            let mut all = limiting()?;
            if all.is_empty() {
                let path = root.join("cgroup.subtree_control");
                write(&path, "+io")?;
                tracing::info!(path = %path.display(), "the io controller is enabled, for the limits of volumes");
                all = limiting()?;
            }
            return match all.is_empty() {
                true => Err(unsupported()),
                false => Ok(Groups::V2(all)),
            };
        }
        let v1 = root.join("blkio");
        if !v1.join(V1[0]).exists() {
            return Err(unsupported());
        }
        let mut all = vec![v1];
        let mut at = 0;
        while let Some(group) = all.get(at) {
            let below = directories(group)?;
            all.extend(below);
            at += 1;
        }
        Ok(Groups::V1(all))
    }
}

/// ENODEV: the device or the group.
fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NODEV, Errno::NXIO]
        .iter()
        .any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

fn directories(group: &Path) -> Result<Vec<PathBuf>, LimitError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    };
    match list() {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        listed => listed.map_err(failed(group, "listing it")),
    }
}

fn failed(path: &Path, action: impl Into<String>) -> impl FnOnce(io::Error) -> LimitError {
    let (path, action) = (path.to_owned(), action.into());
    move |source| LimitError::Io {
        path,
        action,
        source,
    }
}

fn read(path: &Path) -> Result<String, LimitError> {
    fs::read_to_string(path).map_err(failed(path, "reading it"))
}

fn write(path: &Path, text: &str) -> Result<(), LimitError> {
    fs::write(path, text).map_err(failed(path, format!("writing {text:?}")))
}

fn words(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

fn set_v2(group: &Path, wanted: &BTreeMap<u64, IoLimits>) -> Result<(), LimitError> {
    let path = group.join(MAX);
    let held = read_max(&read(&path)?);
    for (device, limits) in wanted {
        let max = |limit: Option<u64>| limit.map_or("max".into(), |limit| limit.to_string());
        let (bps, iops) = (max(limits.bandwidth), max(limits.iops));
        let values = format!("rbps={bps} wbps={bps} riops={iops} wiops={iops}");
        let there = held.get(device).map(String::as_str);
        let same = match there {
            None => *limits == IoLimits::default(),
            Some(there) => there == values,
        };
        if !same {
            write(&path, &format!("{} {values}", words(*device)))?;
        }
    }
    Ok(())
}

/// What `io.max` says, by device number.
fn read_max(text: &str) -> BTreeMap<u64, String> {
    let line = |line: &str| {
        let (device, values) = line.split_once(' ')?;
        Some((number(device)?, values.trim().to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn number(device: &str) -> Option<u64> {
    let (major, minor) = device.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn set_v1(group: &Path, wanted: &BTreeMap<u64, IoLimits>) -> Result<(), LimitError> {
    for (index, file) in V1.iter().enumerate() {
        let path = group.join(file);
        let held = read_max(&read(&path)?);
        for (device, limits) in wanted {
            // 0 takes a limit away.
            let limit = match index {
                0 | 1 => limits.bandwidth,
                _ => limits.iops,
            };
            let value = limit.unwrap_or(0).to_string();
            let there = held.get(device).map_or("0", String::as_str);
            if there != value {
                write(&path, &format!("{} {value}", words(*device)))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: IoLimits = IoLimits {
        iops: Some(1000),
        bandwidth: None,
    };

    /// A directory that looks like control groups: what is written replaces what a file has.
    fn groups(files: &[(&str, &str)]) -> (tempfile::TempDir, Throttle) {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let throttle = Throttle::new(root.path());
        (root, throttle)
    }

    fn text(root: &tempfile::TempDir, file: &str) -> String {
        read(&root.path().join(file)).unwrap()
    }

    #[test]
    fn v2_limits_every_group_below_the_root_that_can() {
        let (root, throttle) = groups(&[
            (CONTROLLERS, "cpuset cpu io memory\n"),
            ("kubepods.slice/io.max", ""),
            ("kubepods.slice/pod/io.max", ""),
            (
                "system.slice/io.max",
                "7:9 rbps=max wbps=max riops=1 wiops=1\n",
            ),
            ("none.slice/cpu.max", "max\n"),
        ]);
        let wanted = BTreeMap::from([(makedev(7, 3), LIMITS)]);
        throttle.set(&wanted).unwrap();
        let line = "7:3 rbps=max wbps=max riops=1000 wiops=1000";
        assert_eq!(text(&root, "kubepods.slice/io.max"), line);
        assert_eq!(text(&root, "system.slice/io.max"), line);
        assert_eq!(text(&root, "kubepods.slice/pod/io.max"), "");
        assert!(!root.path().join("none.slice/io.max").exists());
        // What is there is not written again: that would begin its second anew.
        fs::write(root.path().join("system.slice/io.max"), format!("{line}\n")).unwrap();
        throttle.set(&wanted).unwrap();
        assert_eq!(text(&root, "system.slice/io.max"), format!("{line}\n"));
        throttle
            .set(&BTreeMap::from([(makedev(7, 3), IoLimits::default())]))
            .unwrap();
        let line = "7:3 rbps=max wbps=max riops=max wiops=max";
        assert_eq!(text(&root, "system.slice/io.max"), line);
    }

    #[test]
    fn a_containers_own_root_is_enough() {
        let (root, throttle) = groups(&[(CONTROLLERS, "io"), ("io.max", ""), ("a/io.max", "")]);
        throttle
            .set(&BTreeMap::from([(makedev(7, 3), LIMITS)]))
            .unwrap();
        assert!(text(&root, "io.max").starts_with("7:3 "));
        assert_eq!(text(&root, "a/io.max"), "");
    }

    #[test]
    fn v1_limits_every_group() {
        let mut files = Vec::new();
        let names: Vec<String> = ["blkio", "blkio/kubepods", "blkio/kubepods/pod"]
            .iter()
            .flat_map(|group| V1.iter().map(move |file| format!("{group}/{file}")))
            .collect();
        files.extend(names.iter().map(|name| (name.as_str(), "")));
        let (root, throttle) = groups(&files);
        throttle
            .set(&BTreeMap::from([(makedev(7, 3), LIMITS)]))
            .unwrap();
        for group in ["blkio", "blkio/kubepods", "blkio/kubepods/pod"] {
            let of = |file| text(&root, &format!("{group}/{file}"));
            assert_eq!(V1.map(of), ["", "", "7:3 1000", "7:3 1000"], "{group}");
        }
    }

    #[test]
    fn without_a_controller_only_what_asks_for_limits_is_refused() {
        let (_root, throttle) = groups(&[(CONTROLLERS, "cpu memory")]);
        let device = makedev(7, 3);
        throttle
            .set(&BTreeMap::from([(device, IoLimits::default())]))
            .unwrap();
        let refused = throttle.set(&BTreeMap::from([(device, LIMITS)]));
        assert!(
            matches!(refused, Err(LimitError::Unsupported { .. })),
            "{refused:?}"
        );
    }
}
