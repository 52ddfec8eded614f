//! Where a [`crate::KernelHost`] looks.

use std::path::PathBuf;
use std::time::Duration;

/// What a node's drives are, and where the machine shows itself.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Whether NVMe namespaces are drives here. Off where several agents share one machine and only stand-ins are theirs.
    pub nvme: bool,
    /// Plain files and loop devices that stand for drives, and directories whose `*.img` files do. Nothing else but NVMe
    /// namespaces is ever looked at.
    pub stand_ins: Vec<PathBuf>,
    /// Where the machine shows itself; other than the default only in tests and in containers.
    pub roots: Roots,
    /// How long a drive must be seen unchanged before it may be taken.
    pub watch: WatchTimes,
}

impl HostConfig {
    /// NVMe namespaces and no stand-ins, with the watch times that the promises name.
    pub fn nvme() -> Self {
        HostConfig {
            nvme: true,
            stand_ins: Vec::new(),
            roots: Roots::default(),
            watch: WatchTimes::default(),
        }
    }

    /// These stand-ins and no NVMe namespaces: a development rack on a machine whose own drives are not to be looked at.
    pub fn stand_ins(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        HostConfig {
            nvme: false,
            stand_ins: paths.into_iter().collect(),
            ..HostConfig::nvme()
        }
    }
}

/// Directories in which the machine shows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// sysfs, `/sys`.
    pub sys: PathBuf,
    /// Device nodes, `/dev`.
    pub dev: PathBuf,
    /// procfs of the host's process namespace, `/proc`.
    pub proc: PathBuf,
    /// The kubelet's directory, `/var/lib/kubelet`.
    pub kubelet: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots {
            sys: "/sys".into(),
            dev: "/dev".into(),
            proc: "/proc".into(),
            kubelet: "/var/lib/kubelet".into(),
        }
    }
}

/// How long a drive must be seen unchanged before it may be taken. The defaults are the promise; only tests choose others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchTimes {
    /// NVMe drives: 60 s.
    pub nvme: Duration,
    /// Stand-ins: 1 s.
    pub stand_in: Duration,
}

impl Default for WatchTimes {
    fn default() -> Self {
        WatchTimes {
            nvme: Duration::from_secs(60),
            stand_in: Duration::from_secs(1),
        }
    }
}
