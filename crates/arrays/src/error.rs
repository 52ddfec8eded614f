//! What can go wrong with an array.

use std::io;
use std::path::{Path, PathBuf};

use crate::refusal::Refusal;

/// Why something about an array could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// The decision is to do nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel lacks a part.
    #[error(
        "the kernel has no {module}: load it (modprobe {module}); without it volumes of this redundancy cannot be attached on this node"
    )]
    NoModule {
        /// The module.
        module: &'static str,
    },
    /// There is no mdadm.
    #[error("mdadm cannot be started: {0}; volumes of several legs need it on this node")]
    NoTool(io::Error),
    /// mdadm did not do it.
    #[error("mdadm {what}: {said}")]
    Tool {
        /// What was asked of it.
        what: String,
        /// What it said.
        said: String,
    },
    /// Somebody has the array's device open, or I/O to a leg is still under way.
    #[error("{array}: {what} has to wait: it is in use; it is asked again")]
    Busy {
        /// The array.
        array: String,
        /// What was tried.
        what: &'static str,
    },
    /// The kernel's answer to one read or write.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It does not come to rest.
    #[error(
        "array {array} is not as it shall be after {rounds} rounds; the next step would be {next}"
    )]
    Restless {
        /// The array's UUID.
        array: uuid::Uuid,
        /// How often steps were done.
        rounds: usize,
        /// The step.
        next: String,
    },
}

impl ArrayError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
