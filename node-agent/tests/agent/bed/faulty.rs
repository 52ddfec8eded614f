//! Simulated drives with the faults of real ones: not seen for a while, changed without a sign, hanging.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use strand_drives::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, DriveKey, OpenPartition, OwnedDrive, Resumed,
    SeenDrive, SimulatedHost, WipeOrder, WipeProgress,
};
use strand_placement::carve::{Role, Split};
use strand_placement::verdict::{Health, KnownPools, Observation};
use tokio::sync::watch;

pub struct FaultyHost {
    drives: SimulatedHost,
    hidden: Mutex<BTreeSet<DriveKey>>,
    hanging: Mutex<BTreeSet<DriveKey>>,
    freed: Condvar,
    changes: watch::Sender<u64>,
}

impl FaultyHost {
    pub fn new(watch: Duration) -> Self {
        Self {
            drives: SimulatedHost::new(watch),
            hidden: Mutex::default(),
            hanging: Mutex::default(),
            freed: Condvar::new(),
            changes: watch::Sender::new(0),
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn plug(&self, serial: &str, size: u64) -> DriveKey {
        let key = self.drives.plug(serial, size);
        self.tell();
        key
    }

    pub fn unplug(&self, key: &DriveKey) {
        self.drives.unplug(key);
        self.tell();
    }

    /// Takes a drive out of sight, with everything on it.
    pub fn hide(&self, key: &DriveKey) {
        self.hidden.lock().unwrap().insert(key.clone());
        self.tell();
    }

    pub fn show(&self, key: &DriveKey) {
        self.hidden.lock().unwrap().remove(key);
        self.tell();
    }

    pub fn alter(&self, key: &DriveKey, change: impl FnOnce(&mut Observation)) {
        self.alter_silently(key, change);
        self.tell();
    }

    /// Changes a drive without a sign to anybody.
    pub fn alter_silently(&self, key: &DriveKey, change: impl FnOnce(&mut Observation)) {
        self.drives.alter(key, change);
    }

    pub fn set_storage_holds_data(&self, key: &DriveKey, holds: bool) {
        self.drives.set_storage_holds_data(key, holds);
    }

    /// From now on whoever touches the drive waits.
    pub fn hang(&self, key: &DriveKey) {
        self.hanging.lock().unwrap().insert(key.clone());
    }

    pub fn free(&self, key: &DriveKey) {
        self.hanging.lock().unwrap().remove(key);
        self.freed.notify_all();
    }

    fn touch(&self, drive: &SeenDrive) -> Result<(), DriveError> {
        let hanging = self.hanging.lock().unwrap();
        drop(
            self.freed
                .wait_while(hanging, |hanging| hanging.contains(&drive.key))
                .unwrap(),
        );
        match self.hidden.lock().unwrap().contains(&drive.key) {
            true => Err(DriveError::Gone {
                path: drive.path.clone(),
            }),
            false => Ok(()),
        }
    }
}

impl DriveHost for FaultyHost {
    fn scan(&self) -> Result<Vec<SeenDrive>, DriveError> {
        let hidden = self.hidden.lock().unwrap();
        let seen = self.drives.scan()?;
        Ok(seen
            .into_iter()
            .filter(|drive| !hidden.contains(&drive.key))
            .collect())
    }

    fn observe(
        &self,
        drive: &SeenDrive,
        earlier: Option<&Observation>,
    ) -> Result<Observation, DriveError> {
        self.touch(drive)?;
        self.drives.observe(drive, earlier)
    }

    fn adopt(
        &self,
        drive: &SeenDrive,
        watched: &Observation,
        order: &CarveOrder,
    ) -> Result<OwnedDrive, DriveError> {
        self.touch(drive)?;
        self.drives.adopt(drive, watched, order)
    }

    fn resume(&self, drive: &SeenDrive, pools: &KnownPools) -> Result<Resumed, DriveError> {
        self.touch(drive)?;
        self.drives.resume(drive, pools)
    }

    fn recarve(&self, drive: &OwnedDrive, split: &Split) -> Result<OwnedDrive, DriveError> {
        self.touch(&drive.seen)?;
        self.drives.recarve(drive, split)
    }

    fn open_partition(&self, drive: &OwnedDrive, role: Role) -> Result<OpenPartition, DriveError> {
        self.touch(&drive.seen)?;
        self.drives.open_partition(drive, role)
    }

    fn release(&self, drive: &OwnedDrive, data: DataOnRelease) -> Result<(), DriveError> {
        self.touch(&drive.seen)?;
        self.drives.release(drive, data)
    }

    fn wipe(
        &self,
        drive: &SeenDrive,
        order: &WipeOrder,
        pools: &KnownPools,
        progress: &mut dyn FnMut(WipeProgress) -> ControlFlow<()>,
    ) -> Result<(), DriveError> {
        self.touch(drive)?;
        self.drives.wipe(drive, order, pools, progress)
    }

    fn health(&self, drive: &SeenDrive) -> Health {
        match self.touch(drive) {
            Ok(()) => self.drives.health(drive),
            Err(error) => Health::Unknown {
                why: error.to_string(),
            },
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
