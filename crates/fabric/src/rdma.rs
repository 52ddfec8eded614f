//! Whether this node can do RDMA, as far as that shows before it is tried.

use std::fs;
use std::path::Path;

/// RDMA devices (linux Documentation/ABI/stable/sysfs-class-infiniband), whatever they run over: InfiniBand, RoCE, iWARP.
const DEVICES: &str = "/sys/class/infiniband";

/// Whether a kernel module of one end is there, and a device with a port that is up. Modules are not loaded for it: an administrator who wants
/// no RDMA leaves them out.
pub fn is_there(end: End) -> bool {
    Path::new("/sys/module").join(end.module()).exists() && any_is_up(Path::new(DEVICES))
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// That which connects: `nvme-rdma`.
    Initiator,
    /// That which exports: `nvmet-rdma`.
    Target,
}

impl End {
    fn module(self) -> &'static str {
        match self {
            Self::Initiator => "nvme_rdma",
            Self::Target => "nvmet_rdma",
        }
    }
}

fn any_is_up(devices: &Path) -> bool {
    let below = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut ports = below(devices)
        .into_iter()
        .flat_map(|device| below(&device.join("ports")));
    // "4: ACTIVE"
    ports.any(|port| {
        fs::read_to_string(port.join("state")).is_ok_and(|state| state.starts_with("4:"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_a_port_that_is_up_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!any_is_up(&dir.path().join("none")));
        let port = dir.path().join("mlx5_0/ports/1");
        fs::create_dir_all(&port).unwrap();
        fs::write(port.join("state"), "1: DOWN\n").unwrap();
        assert!(!any_is_up(dir.path()));
        fs::write(port.join("state"), "4: ACTIVE\n").unwrap();
        assert!(any_is_up(dir.path()));
    }
}
