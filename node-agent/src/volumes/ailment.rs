//! What ails a drive's storage side, in words for whoever uses its volumes.

use strand_api::names;
use strand_volumes::Health;

/// What ails a drive's storage side, for the condition `Healthy` of its legs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// Code in CamelCase.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Ailment {
    /// What a look at a drive found.
    pub fn of(health: &Health, drive: &str) -> Option<Ailment> {
        let (reason, message) = match health {
            Health::Good => return None,
            Health::Full => (
                names::DRIVE_FULL,
                format!(
                    "drive {drive} is full, and writes to its volumes fail; delete volumes or snapshots on it, or move them"
                ),
            ),
            Health::ShutDown => (
                "FileSystemShutDown",
                format!(
                    "the file system of drive {drive} stopped itself after an error; what was acknowledged is on the drive. Delete the \
                     pods that use its volumes: once they are detached it is mounted anew"
                ),
            ),
            Health::ReadOnly => (
                "ReadOnly",
                format!("drive {drive} takes no writes; see the kernel log, and replace the drive"),
            ),
            Health::DriveFailed { why } => (
                "DriveFailed",
                format!(
                    "drive {drive} does not answer ({why}); see the kernel log, and replace the drive"
                ),
            ),
        };
        Some(Ailment { reason, message })
    }
}
