//! What the operator may do, and how its log says it.

use crate::{adopt::Claim, select::Refusal};
use std::fmt;
use strand_api::{MemoryPoolStatus, PoolMapSpec};

/// One write to the API. Each is made from the object as it was observed, and is to be made with
/// that object's resourceVersion.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Record a pool's identity in its spec.
    SetPoolId {
        /// The pool.
        pool: String,
        /// The identity.
        id: String,
    },
    /// Put the operator's finalizer on a pool, or take it away.
    HoldPool {
        /// The pool.
        pool: String,
        /// Put or take away.
        hold: bool,
    },
    /// Make a drive's spec and finalizer what this says; `None` takes away what the operator wrote.
    Want {
        /// The Drive object.
        drive: String,
        /// What the operator wants.
        claim: Option<Claim>,
    },
    /// Say on a drive why it is not taken, or take that back.
    Explain {
        /// The Drive object.
        drive: String,
        /// Why.
        refusal: Option<Refusal>,
    },
    /// Delete the object of a drive whose node is gone and that is in no pool.
    DropDrive {
        /// The Drive object.
        drive: String,
    },
    /// Publish a pool's map.
    PublishMap {
        /// The pool.
        pool: String,
        /// The map.
        map: PoolMapSpec,
    },
    /// Ask a drive's agent to release it, since its pool is being deleted.
    Release {
        /// The pool.
        pool: String,
        /// The Drive object.
        drive: String,
        /// The drive's serial.
        serial: String,
    },
    /// Delete a failed release, so that it is tried again.
    RetryRelease {
        /// The DriveOperation.
        operation: String,
    },
    /// Forget a drive: take its finalizers and object away.
    Forget {
        /// The DriveOperation.
        operation: String,
        /// The Drive object, if it is still there.
        drive: Option<String>,
    },
    /// End an operation that may not be done.
    Deny {
        /// The DriveOperation.
        operation: String,
        /// Why, and what to do.
        message: String,
    },
    /// Write a pool's status.
    SetStatus {
        /// The pool.
        pool: String,
        /// The status.
        status: Box<MemoryPoolStatus>,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetPoolId { pool, id } => write!(f, "pool {pool}: record identity {id}"),
            Self::HoldPool { pool, hold: true } => {
                write!(f, "pool {pool}: hold until its drives are released")
            }
            Self::HoldPool { pool, hold: false } => write!(f, "pool {pool}: let go"),
            Self::Want {
                drive,
                claim: Some(claim),
            } => {
                write!(
                    f,
                    "drive {drive}: into pool {} with {} of context memory",
                    claim.pool,
                    claim.carve.context_memory.rounded()
                )
            }
            Self::Want { drive, claim: None } => write!(f, "drive {drive}: in no pool"),
            Self::Explain {
                drive,
                refusal: Some(refusal),
            } => write!(f, "drive {drive}: not taken, {}: {refusal}", refusal.code()),
            Self::Explain {
                drive,
                refusal: None,
            } => write!(f, "drive {drive}: no longer refused"),
            Self::DropDrive { drive } => {
                write!(f, "drive {drive}: its node is gone, drop the object")
            }
            Self::PublishMap { pool, map } => {
                write!(f, "map {pool}: epoch {}:", map.epoch)?;
                map.nodes
                    .iter()
                    .try_for_each(|node| write!(f, " [{}]", String::from(node.clone())))
            }
            Self::Release { drive, .. } => {
                write!(f, "drive {drive}: release, its pool is being deleted")
            }
            Self::RetryRelease { operation } => write!(f, "operation {operation}: try again"),
            Self::Forget { operation, drive } => {
                write!(
                    f,
                    "operation {operation}: forget {}",
                    drive.as_deref().unwrap_or("nothing, it is gone already")
                )
            }
            Self::Deny { operation, message } => {
                write!(f, "operation {operation}: failed: {message}")
            }
            Self::SetStatus { pool, status } => {
                write!(
                    f,
                    "pool {pool}: drives {}, rejected [{}], context {}, storage {}",
                    status.display.drives,
                    status.display.rejected,
                    status.display.context_memory,
                    status.display.storage
                )?;
                for c in &status.conditions {
                    write!(f, "; {}={} {}: {}", c.type_, c.status, c.reason, c.message)?;
                }
                Ok(())
            }
        }
    }
}
