//! One drive's storage side on its way into service and out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strand_drives::{DriveError, DriveHost, OwnedDrive};
use strand_placement::carve::Role;
use strand_volumes::{Drive, Storage, VolumeError};
use tokio::sync::{mpsc, oneshot};

use super::StorageStanding;
use super::ailment::Ailment;
use super::serving::Ask;

/// Between two attempts to open a storage side that could not be opened.
pub const RETRY: Duration = Duration::from_secs(10);

/// Why a storage side is not served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The partition cannot be opened as what it was.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// What lies on it cannot be served.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The work broke off.
    #[error("opening it broke off; please report this")]
    Broken,
}

impl OpenError {
    /// Whether trying again alone does not help.
    pub fn lasts(&self) -> bool {
        matches!(
            self,
            OpenError::Volume(
                VolumeError::TooSmall { .. }
                    | VolumeError::NotOurs { .. }
                    | VolumeError::Damaged { .. }
            )
        )
    }
}

/// How far a storage side is.
pub enum State {
    /// Nothing is under way.
    Closed,
    Opening,
    Open(Arc<Drive>),
    Closing,
    Failed {
        why: String,
        retry_at: Instant,
    },
}

/// One drive.
pub struct Slot {
    pub owned: OwnedDrive,
    pub state: State,
    /// A pass is under way.
    pub tending: bool,
    /// A pass has ended since it was opened.
    pub tended: bool,
    /// Something has changed since the last pass began.
    pub changed: bool,
    pub ailment: Option<Ailment>,
    /// When it was last looked at, or a look was begun.
    pub looked_at: Option<Instant>,
    pub standing: Option<StorageStanding>,
    pub stale: BTreeMap<String, u64>,
    /// Whether anything on it may be limited.
    pub limited: bool,
    /// When free space is told to it next; none before it is open, and while that is under way.
    pub trim_at: Option<Instant>,
    pub holds: usize,
    pub waiting: Vec<oneshot::Sender<Hold>>,
}

impl Slot {
    pub fn new(owned: OwnedDrive) -> Self {
        Self {
            owned,
            state: State::Closed,
            tending: false,
            tended: false,
            changed: true,
            ailment: None,
            looked_at: None,
            standing: None,
            stale: BTreeMap::new(),
            // What an earlier process has limited.
            limited: true,
            trim_at: None,
            holds: 0,
            waiting: Vec::new(),
        }
    }

    /// The drive, while it is open.
    pub fn open(&self) -> Option<&Arc<Drive>> {
        match &self.state {
            State::Open(drive) => Some(drive),
            _ => None,
        }
    }

    /// Whether it may still be opened without anybody's doing.
    pub fn pending(&self) -> bool {
        matches!(self.state, State::Closed | State::Opening | State::Closing)
    }
}

/// While it lives, a drive's storage side stays as the hold found it.
pub struct Hold {
    pub(super) drive: String,
    pub(super) asks: mpsc::UnboundedSender<Ask>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A task that has ended holds nothing open.
        let _ = self.asks.send(Ask::LetGo(std::mem::take(&mut self.drive)));
    }
}

/// Opens a drive's storage side. Blocks.
pub fn open(
    host: &dyn DriveHost,
    storage: &Storage,
    owned: &OwnedDrive,
) -> Result<Arc<Drive>, OpenError> {
    let partition = host.open_partition(owned, Role::Storage)?;
    Ok(storage.open(owned, partition)?)
}

/// Closes it as far as it can be: made blank without legs, unmounted without attachments. Whether it is closed now. Blocks.
pub fn close(storage: &Storage, owned: &OwnedDrive) -> bool {
    let id = owned.drive_id;
    match storage.close_blank(id) {
        Ok(true) => return true,
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "not made blank"),
    }
    match storage.close(id) {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "its volumes are in use, and stay so");
            false
        }
    }
}

/// What a look at an open drive finds. Blocks.
pub fn look(drive: &Drive, name: &str) -> (Option<StorageStanding>, Option<Ailment>) {
    let ailment = drive
        .health()
        .ok()
        .and_then(|health| Ailment::of(&health, name));
    (standing(drive), ailment)
}

/// How its space stands.
pub fn standing(drive: &Drive) -> Option<StorageStanding> {
    let space = drive.space().ok()?;
    let used = u128::from(space.size.saturating_sub(space.free)) * 1000;
    Some(StorageStanding {
        usable: space.usable.saturating_sub(space.scratch),
        used_thousandths: used
            .checked_div(space.size.into())
            .map_or(0, |part| part as u64),
        ailment: None,
    })
}
