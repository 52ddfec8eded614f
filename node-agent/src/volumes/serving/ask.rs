//! What comes to the task.

use std::sync::Arc;

use strand_api::{PoolLeg, PoolLegSpec, PoolLegStatus};
use strand_drives::OwnedDrive;
use strand_volumes::{Drive, VolumeError};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::volumes::ailment::Ailment;
use crate::volumes::find::{Found, Named};
use crate::volumes::metrics::Seen;
use crate::volumes::scratch::Ground;
use crate::volumes::slot::{Hold, OpenError};
use crate::volumes::write::Write;
use crate::volumes::{AttachError, StorageStanding, Wanted};

/// What the task is asked, and what comes back to it from what it started.
pub enum Ask {
    Serve(Box<Wanted>),
    Hold {
        drive: String,
        held: oneshot::Sender<Hold>,
    },
    LetGo(String),
    Find {
        volume: String,
        answer: oneshot::Sender<Result<Found, AttachError>>,
    },
    /// The leg with these bytes.
    FindLeg {
        volume: String,
        uuid: Uuid,
        answer: oneshot::Sender<Result<Found, AttachError>>,
    },
    FindAttached {
        volume: String,
        answer: oneshot::Sender<Attachments>,
    },
    Drives(oneshot::Sender<Vec<Named>>),
    Scratch(oneshot::Sender<Ground>),
    /// Somebody came with an older generation than the leg's record has.
    Stale {
        drive: String,
        leg: String,
        recorded: u64,
    },
    /// Something about a drive has changed.
    Look(String),
    Opened {
        drive: String,
        owned: Box<OwnedDrive>,
        result: Result<Arc<Drive>, OpenError>,
    },
    Closed {
        drive: String,
        closed: bool,
    },
    Tended {
        leg: String,
        status: Box<PoolLegStatus>,
    },
    Passed {
        drive: String,
        orphans: Result<Vec<(String, PoolLegSpec)>, VolumeError>,
        standing: Option<StorageStanding>,
        /// What a look found, if there was one.
        looked: Option<Option<Ailment>>,
        /// Whether limits are not enforced that should be.
        unlimited: bool,
        seen: Option<Seen>,
    },
    /// A drive was told how many bytes of it are free.
    Trimmed {
        drive: String,
        bytes: u64,
    },
    Wrote {
        leg: String,
        /// Its object as it was when this was begun: a watch may bring what was written earlier than the answer comes.
        before: Option<Box<PoolLeg>>,
        write: Write,
        result: Result<Option<Box<PoolLeg>>, String>,
    },
    /// What is exported is reached from now on.
    Reached,
    /// Exports that no pass sees were looked at.
    Swept,
    End(oneshot::Sender<()>),
}

/// A leg by its drive's id and its name, on a drive that is not open.
pub type Unserved = (Uuid, String);

/// The legs of a volume that may be attached; or why none can be named, with those on drives that are not open.
pub type Attachments = Result<Vec<Found>, (AttachError, Vec<Unserved>)>;
