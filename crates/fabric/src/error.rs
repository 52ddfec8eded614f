//! What can go wrong between a node and the fabric.

use std::io;
use std::path::{Path, PathBuf};

/// Why something of the fabric could not be done.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The kernel lacks a part.
    #[error(
        "{path} is not there: load the kernel module {module} (modprobe {module}); without it legs on other nodes cannot be used on this node"
    )]
    NoModule {
        /// The module.
        module: &'static str,
        /// Where the kernel would show it.
        path: PathBuf,
    },
    /// The kernel's answer to one write, link or directory.
    #[error("{what} at {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel cannot authenticate hosts.
    #[error(
        "the kernel's NVMe target has no {path}: it was built without in-band authentication (CONFIG_NVME_TARGET_AUTH); take another kernel, or set insecureFabric: true in the MemoryPool if every host of the network may be trusted"
    )]
    NoAuthentication {
        /// The file that a kernel with authentication has.
        path: PathBuf,
    },
    /// A target did not let this node in.
    #[error(
        "{address} did not accept a connection to {nqn}: {source}; see whether that node's agent runs, its port is open, and this volume's attachment is still this node's"
    )]
    Refused {
        /// The subsystem.
        nqn: String,
        /// Where it was asked for.
        address: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Controllers were still there after a subsystem was taken away.
    #[error(
        "{nqn} still has {count} controllers after it was taken from its port; it is asked again"
    )]
    StillConnected {
        /// The subsystem.
        nqn: String,
        /// How many.
        count: usize,
    },
}

impl FabricError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FabricError {
        let path = path.to_owned();
        move |source| FabricError::Io { what, path, source }
    }
}
