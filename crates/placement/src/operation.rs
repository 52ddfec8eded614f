//! What DriveOperations may do.

use crate::map;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use strand_api::{DeletionPolicy, Drive, DriveOperation, DrivePhase, MemoryPool, OperationPhase};

/// Whether an operation has come to its end, well or not.
pub fn ended(operation: &DriveOperation) -> bool {
    let phase = operation.status.as_ref().and_then(|s| s.phase);
    matches!(
        phase,
        Some(OperationPhase::Succeeded | OperationPhase::Failed)
    )
}

/// Why an operation is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The drive has another serial.
    #[error(
        "drive {drive} has serial {actual:?}, and the operation names {named:?}; nothing was done. Check which drive is meant"
    )]
    OtherSerial {
        /// The Drive object.
        drive: String,
        /// The drive's serial.
        actual: String,
        /// The operation's.
        named: String,
    },
    /// The drive is in service.
    #[error(
        "drive {0} is in service; cordon it first: kubectl patch drive {0} --type merge -p '{{\"spec\":{{\"cordon\":true}}}}'"
    )]
    NotCordoned(String),
    /// The drive's agent is at work.
    #[error(
        "drive {drive} is seen by the agent of node {node}; Forget is for drives and nodes that are gone for good. To take it out of its pool, use type Release"
    )]
    StillSeen {
        /// The Drive object.
        drive: String,
        /// Its node.
        node: String,
    },
}

/// Whether the drive is the one that an operation names.
///
/// # Errors
/// [`Denial::OtherSerial`]. A drive that was never judged has no serial, and is not refused.
pub fn names_drive(operation: &DriveOperation, drive: &Drive) -> Result<(), Denial> {
    let identity = drive.status.as_ref().and_then(|s| s.identity.as_ref());
    match identity {
        Some(identity) if identity.serial != operation.spec.serial => Err(Denial::OtherSerial {
            drive: operation.spec.drive.clone(),
            actual: identity.serial.clone(),
            named: operation.spec.serial.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether a drive may be released: it is cordoned, or its pool is being deleted and wants it.
///
/// # Errors
/// [`Denial::NotCordoned`].
pub fn may_release(drive: &Drive, pool: Option<&MemoryPool>) -> Result<(), Denial> {
    let pool_lets_go = pool.is_some_and(|pool| {
        pool.metadata.deletion_timestamp.is_some()
            && pool.spec.deletion_policy == DeletionPolicy::Release
    });
    if drive.spec.cordon || pool_lets_go {
        return Ok(());
    }
    Err(Denial::NotCordoned(
        drive.metadata.name.clone().unwrap_or_default(),
    ))
}

/// Whether a drive's object may be forgotten: the drive is missing, or its node gone or long NotReady.
///
/// # Errors
/// [`Denial::OtherSerial`] or [`Denial::StillSeen`].
pub fn may_forget(
    operation: &DriveOperation,
    drive: &Drive,
    node: Option<&Node>,
    now: Timestamp,
) -> Result<(), Denial> {
    names_drive(operation, drive)?;
    let missing = drive
        .status
        .as_ref()
        .is_some_and(|s| s.phase == Some(DrivePhase::Missing));
    if missing || !map::node_serves(node, now) {
        return Ok(());
    }
    Err(Denial::StillSeen {
        drive: operation.spec.drive.clone(),
        node: drive.spec.node_name.clone(),
    })
}
