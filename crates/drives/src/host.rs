//! What the node agent asks of the machine's drives. Two implementations: [`crate::KernelHost`], the real one, and
//! [`crate::SimulatedHost`], drives in memory for tests and for racks of thousands of agents.

use std::ops::ControlFlow;
use std::path::PathBuf;

use strand_placement::carve::{CarveError, RecarveRefusal, Role, Split};
use strand_placement::reason::Reason;
use strand_placement::verdict::{Health, KnownPools, Observation};
use tokio::sync::watch;
use uuid::Uuid;

use crate::identity::{OpenPartition, OwnedDrive, SeenDrive};

/// The machine's drives.
///
/// Every method but [`changes`](Self::changes) blocks on system calls and device I/O: call it off the async threads, and one at a
/// time per drive. A typical life:
///
/// ```text
/// scan ─► observe ─► judge ──StillWatched──► (sleep remaining_ms) ─► observe(earlier) ─► judge ─► Stranded ─► adopt ─► OwnedDrive
///                      └──Pooled──► resume ─► Owned / Released
/// ```
pub trait DriveHost: Send + Sync + 'static {
    /// The drives that are there now: NVMe namespaces and the stand-ins named in the configuration, nothing else. Cheap (sysfs and
    /// stat; no drive is opened). Sorted by key; a key that two devices claim is reported for none of them but logged.
    ///
    /// # Errors
    /// [`DriveError::Io`] when the machine cannot be looked at; a single unreadable drive is logged and left out.
    fn scan(&self) -> Result<Vec<SeenDrive>, DriveError>;

    /// Looks at everything that may speak against taking a drive, and reads its label. With the observation made before, it also
    /// tells for how long the drive was seen unchanged: the caller sleeps, this does not.
    ///
    /// # Errors
    /// [`DriveError::Gone`], [`DriveError::IdentityChanged`], or [`DriveError::Io`] when the drive cannot be opened at all. What
    /// could not be looked at otherwise is in the observation, and keeps the drive from being taken.
    fn observe(
        &self,
        drive: &SeenDrive,
        earlier: Option<&Observation>,
    ) -> Result<Observation, DriveError>;

    /// Takes a drive: judges it again on the descriptor that then writes, and carves it. `watched` is the observation by which it
    /// was found stranded. Repeated for a drive that already carries this pool's label, it completes what was begun and returns
    /// the drive as it is carved, whatever the order's split says (see [`recarve`](Self::recarve)).
    ///
    /// # Errors
    /// [`DriveError::NotStranded`] with every reason, nothing written; [`DriveError::Carve`]; [`DriveError::Io`].
    fn adopt(
        &self,
        drive: &SeenDrive,
        watched: &Observation,
        order: &CarveOrder,
    ) -> Result<OwnedDrive, DriveError>;

    /// Takes back a drive that carries a label of one of `pools`, after a restart, a reboot or a lost API server, and completes
    /// whatever was interrupted. Data is not touched.
    ///
    /// # Errors
    /// [`DriveError::NotOurs`] with the reasons; [`DriveError::Io`].
    fn resume(&self, drive: &SeenDrive, pools: &KnownPools) -> Result<Resumed, DriveError>;

    /// Moves the boundary between storage and context memory while that loses nothing durable; context memory loses its blocks.
    /// The caller has closed the context partition.
    ///
    /// # Errors
    /// [`DriveError::Refused`] where storage would lose data, [`DriveError::Busy`] where the context partition is in use.
    fn recarve(&self, drive: &OwnedDrive, split: &Split) -> Result<OwnedDrive, DriveError>;

    /// Opens a partition for whoever serves it: reading and writing, without a claim. That it still is this drive's is asked of
    /// what was opened, not of its name.
    ///
    /// # Errors
    /// [`DriveError::IdentityChanged`] where the drive is another one or was carved anew; [`DriveError::Io`].
    fn open_partition(&self, drive: &OwnedDrive, role: Role) -> Result<OpenPartition, DriveError>;

    /// Gives a drive back: label and partition table are taken away. Killed on the way it stays ours, in state `Releasing`, and
    /// [`resume`](Self::resume) completes it.
    ///
    /// # Errors
    /// [`DriveError::Busy`] with the uses found, while any of its partitions is in use; [`DriveError::HoldsData`] while its storage
    /// side holds data. Nothing is written then.
    fn release(&self, drive: &OwnedDrive, data: DataOnRelease) -> Result<(), DriveError>;

    /// Makes a drive read blank: the destructive act of a DriveOperation, which names the serial it means. Works from `order.from`
    /// to the end, then the head, reporting progress; `ControlFlow::Break` stops it between chunks.
    ///
    /// # Errors
    /// [`DriveError::WipeRefused`] with every reason (in use, pooled, shared, another serial), nothing written;
    /// [`DriveError::Stopped`] with the offset to go on from.
    fn wipe(
        &self,
        drive: &SeenDrive,
        order: &WipeOrder,
        pools: &KnownPools,
        progress: &mut dyn FnMut(WipeProgress) -> ControlFlow<()>,
    ) -> Result<(), DriveError>;

    /// Reads the SMART log. Not an error when it cannot be read: [`Health::Unknown`] says why.
    fn health(&self, drive: &SeenDrive) -> Health;

    /// A counter that grows when drives may have come, gone or changed. It may grow for nothing; scan slowly besides (a minute),
    /// since not every change makes an event.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// How a drive is to be taken into a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarveOrder {
    /// The pool's identity.
    pub pool_id: Uuid,
    /// The pool's name, at most 63 bytes.
    pub pool_name: String,
    /// The identity that the drive shall have: random, chosen by the caller, so that a repeated order is the same order.
    pub drive_id: Uuid,
    /// How it is split.
    pub split: Split,
}

/// What [`DriveHost::resume`] came to.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is made per drive and moved at once; a box would only be unpacked"
)]
pub enum Resumed {
    /// The drive is ours and complete.
    Owned(OwnedDrive),
    /// It was being given back; that is done now.
    Released,
}

/// What becomes of the bytes on a drive that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataOnRelease {
    /// They stay; the drive is then not blank, and nobody's until it is wiped.
    Keep,
    /// They are erased as a wipe does it; the drive then reads blank.
    Erase,
}

/// A wipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipeOrder {
    /// The serial that the administrator named.
    pub serial: String,
    /// Bytes that an earlier, interrupted run reported done; 0 to begin.
    pub from: u64,
}

/// How far a wipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WipeProgress {
    /// Bytes done; [`WipeOrder::from`] of a run that goes on.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Why something was not done to a drive.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The path is no longer there.
    #[error("{path}: the drive is gone; look again once it is back")]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// The path leads to another drive than the one that was meant. Nothing was written.
    #[error(
        "{path}: expected {expected}, found {found}; the device was renamed or replaced, scan again"
    )]
    IdentityChanged {
        /// The path.
        path: PathBuf,
        /// Who was expected.
        expected: String,
        /// Who was found.
        found: String,
    },
    /// The drive is not provably unused. Nothing was written.
    #[error("{path} is not stranded: {}", sentences(.reasons))]
    NotStranded {
        /// The drive.
        path: PathBuf,
        /// Every reason.
        reasons: Vec<Reason>,
    },
    /// The drive does not carry a label of these pools.
    #[error("{path} is not ours: {}", sentences(.reasons))]
    NotOurs {
        /// The drive.
        path: PathBuf,
        /// Every reason.
        reasons: Vec<Reason>,
    },
    /// A wipe is refused. Nothing was written.
    #[error("{path} is not wiped: {}", sentences(.reasons))]
    WipeRefused {
        /// The drive.
        path: PathBuf,
        /// Every reason.
        reasons: Vec<Reason>,
    },
    /// A wipe names another serial. Nothing was written.
    #[error(
        "{path} is not wiped: the order names serial {named}, the drive has {found}; correct the order"
    )]
    WrongSerial {
        /// The drive.
        path: PathBuf,
        /// The serial named.
        named: String,
        /// The serial found.
        found: String,
    },
    /// The drive or a partition of it is in use.
    #[error("{path} is in use: {}", sentences(.reasons))]
    Busy {
        /// The drive.
        path: PathBuf,
        /// Every use found.
        reasons: Vec<Reason>,
    },
    /// A drive that is to be given back has data on its storage side. Nothing was written.
    #[error(
        "{path} keeps its label: its storage side holds data; move or delete its volumes first"
    )]
    HoldsData {
        /// The drive.
        path: PathBuf,
    },
    /// The wanted carve would lose something durable.
    #[error("{path} keeps its carve: {reason}")]
    Refused {
        /// The drive.
        path: PathBuf,
        /// Why.
        reason: RecarveRefusal,
    },
    /// The drive cannot be carved.
    #[error("{path} cannot be carved: {reason}")]
    Carve {
        /// The drive.
        path: PathBuf,
        /// Why.
        reason: CarveError,
    },
    /// A wipe was told to stop.
    #[error("{path}: the wipe stopped after {done} bytes; start it again from there")]
    Stopped {
        /// The drive.
        path: PathBuf,
        /// Bytes done.
        done: u64,
    },
    /// A system call or device I/O failed.
    #[error(
        "{path}: {action} failed: {source}; check the drive, its permissions and the kernel log"
    )]
    Io {
        /// The object.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

fn sentences(reasons: &[Reason]) -> String {
    reasons
        .iter()
        .map(Reason::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
