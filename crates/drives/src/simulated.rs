//! Drives in memory, for tests of what is built on [`DriveHost`] and for racks of thousands of agents in one process.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strand_placement::carve::{self, Geometry, MIB, Recarve, Role, Split};
use strand_placement::verdict::{
    Content, Exclusive, Health, KnownPools, Label, LabelSeen, LabelState, Observation, Sharing,
    Transport, Verdict, Watch, judge, wipe_refusals,
};
use tokio::sync::watch;

use crate::host::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, Resumed, WipeOrder, WipeProgress,
};
use crate::identity::{DriveKey, MediumKind, OpenPartition, OwnedDrive, Partition, SeenDrive};

/// Drives in memory. What is observed of each can be set; labels and carves follow the same decisions as on real drives.
pub struct SimulatedHost {
    drives: Mutex<BTreeMap<DriveKey, Simulated>>,
    watch: Duration,
    started: Instant,
    changes: watch::Sender<u64>,
}

struct Simulated {
    seen: SeenDrive,
    state: Observation,
    storage_holds_data: bool,
}

impl SimulatedHost {
    /// A machine without drives, whose drives must be seen unchanged for this long before they are taken.
    pub fn new(watch: Duration) -> SimulatedHost {
        SimulatedHost {
            drives: Mutex::default(),
            watch,
            started: Instant::now(),
            changes: watch::Sender::new(0),
        }
    }

    /// Plugs in a blank, healthy PCIe drive; one with the same serial is replaced.
    pub fn plug(&self, serial: &str, size: u64) -> DriveKey {
        let key = DriveKey {
            model: "Simulated".into(),
            serial: serial.into(),
            namespace: 1,
        };
        let seen = SeenDrive {
            key: key.clone(),
            path: format!("/dev/simulated/{serial}").into(),
            medium: MediumKind::Nvme { device: 0 },
            geometry: Geometry {
                size,
                logical_block: 512,
                optimal_write: MIB as u32,
            },
            transport: Transport::Pcie,
            wwid: None,
            firmware: Some("1.0".into()),
            pci_address: Some("0000:01:00.0".into()),
            numa_node: Some(0),
            stand_in: false,
        };
        let state = Observation {
            serial: serial.into(),
            size,
            transport: Transport::Pcie,
            sharing: Sharing::Private,
            health: Health::Smart(Default::default()),
            exclusive: Exclusive::Opened,
            content: Content::Blank,
            label: LabelSeen::Absent,
            watch: Watch {
                required_ms: self.watch.as_millis() as u64,
                ..Watch::default()
            },
            ..Observation::default()
        };
        self.lock().insert(
            key.clone(),
            Simulated {
                seen,
                state,
                storage_holds_data: false,
            },
        );
        self.bump();
        key
    }

    /// Pulls a drive out.
    pub fn unplug(&self, key: &DriveKey) {
        self.lock().remove(key);
        self.bump();
    }

    /// Changes what is observed of a drive: a mount, a signature, failing health, a label of elsewhere.
    pub fn alter(&self, key: &DriveKey, change: impl FnOnce(&mut Observation)) {
        if let Some(drive) = self.lock().get_mut(key) {
            change(&mut drive.state);
        }
        self.bump();
    }

    /// Says whether a drive's storage partition holds data.
    pub fn set_storage_holds_data(&self, key: &DriveKey, holds: bool) {
        if let Some(drive) = self.lock().get_mut(key) {
            drive.storage_holds_data = holds;
        }
    }

    fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DriveKey, Simulated>> {
        self.drives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        drive: &SeenDrive,
        act: impl FnOnce(&mut Simulated) -> Result<T, DriveError>,
    ) -> Result<T, DriveError> {
        act(self
            .lock()
            .get_mut(&drive.key)
            .ok_or_else(|| DriveError::Gone {
                path: drive.path.clone(),
            })?)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn look(&self, state: &Observation, earlier: Option<&Observation>) -> Observation {
        let mut seen = Observation {
            taken_ms: self.now_ms(),
            ..state.clone()
        };
        if let Some(earlier) = earlier {
            let changed =
                earlier.content != seen.content || earlier.watch.digest != seen.watch.digest;
            seen.watch.changed = changed.then(|| "its content changed".into());
            seen.watch.unchanged_ms = if changed {
                0
            } else {
                earlier.watch.unchanged_ms + seen.taken_ms.saturating_sub(earlier.taken_ms)
            };
        }
        seen
    }
}

impl Simulated {
    /// The label, where one of `pools` has it and nothing contradicts it.
    fn own_label(&self, pools: &KnownPools) -> Result<Label, DriveError> {
        let finding = judge(&self.state, pools);
        match (&self.state.label, finding.verdict) {
            (LabelSeen::Present(label), Verdict::Pooled | Verdict::Failed)
                if pools.contains(&label.pool_id) =>
            {
                Ok(label.clone())
            }
            _ => Err(DriveError::NotOurs {
                path: self.seen.path.clone(),
                reasons: finding.reasons,
            }),
        }
    }

    fn put_label(&mut self, label: Label) {
        self.state.content = Content::NotBlank { at: 0 };
        self.state.label = LabelSeen::Present(label);
    }

    fn owned(&self, label: &Label) -> OwnedDrive {
        let partition = |(role, extent): (carve::Role, carve::Extent)| Partition {
            role,
            extent,
            path: self.seen.path.clone(),
            offset: extent.start,
        };
        OwnedDrive {
            seen: self.seen.clone(),
            pool_id: label.pool_id,
            pool_name: label.pool_name.clone(),
            drive_id: label.drive_id,
            generation: label.generation,
            state: label.state,
            layout: label.layout,
            partitions: label.layout.partitions().map(partition).collect(),
        }
    }
}

fn pool_of(drive: &OwnedDrive) -> KnownPools {
    KnownPools([(drive.pool_id, drive.pool_name.clone())].into())
}

impl DriveHost for SimulatedHost {
    fn scan(&self) -> Result<Vec<SeenDrive>, DriveError> {
        Ok(self
            .lock()
            .values()
            .map(|drive| drive.seen.clone())
            .collect())
    }

    fn observe(
        &self,
        drive: &SeenDrive,
        earlier: Option<&Observation>,
    ) -> Result<Observation, DriveError> {
        self.with(drive, |drive| Ok(self.look(&drive.state, earlier)))
    }

    fn adopt(
        &self,
        drive: &SeenDrive,
        watched: &Observation,
        order: &CarveOrder,
    ) -> Result<OwnedDrive, DriveError> {
        let pool = KnownPools([(order.pool_id, order.pool_name.clone())].into());
        self.with(drive, |drive| {
            if let Ok(label) = drive.own_label(&pool) {
                return Ok(drive.owned(&label));
            }
            let finding = judge(&self.look(&drive.state, Some(watched)), &pool);
            let path = || drive.seen.path.clone();
            if finding.verdict != Verdict::Stranded {
                return Err(DriveError::NotStranded {
                    path: path(),
                    reasons: finding.reasons,
                });
            }
            let layout = carve::layout(&drive.seen.geometry, &order.split).map_err(|reason| {
                DriveError::Carve {
                    path: path(),
                    reason,
                }
            })?;
            let label = Label {
                generation: 2,
                state: LabelState::Carved,
                pool_id: order.pool_id,
                pool_name: order.pool_name.clone(),
                drive_id: order.drive_id,
                serial: drive.seen.key.serial.clone(),
                layout,
                previous: None,
                contradiction: None,
            };
            drive.put_label(label.clone());
            Ok(drive.owned(&label))
        })
    }

    fn resume(&self, drive: &SeenDrive, pools: &KnownPools) -> Result<Resumed, DriveError> {
        self.with(drive, |drive| {
            drive
                .own_label(pools)
                .map(|label| Resumed::Owned(drive.owned(&label)))
        })
    }

    fn recarve(&self, owned: &OwnedDrive, split: &Split) -> Result<OwnedDrive, DriveError> {
        self.with(&owned.seen, |drive| {
            let label = drive.own_label(&pool_of(owned))?;
            let path = || drive.seen.path.clone();
            let wanted =
                carve::layout(&drive.seen.geometry, split).map_err(|reason| DriveError::Carve {
                    path: path(),
                    reason,
                })?;
            match carve::recarve(&label.layout, &wanted, drive.storage_holds_data) {
                Recarve::Keep => Ok(drive.owned(&label)),
                Recarve::Refused(reason) => Err(DriveError::Refused {
                    path: path(),
                    reason,
                }),
                Recarve::Move(layout) => {
                    let label = Label {
                        generation: label.generation + 2,
                        layout,
                        ..label
                    };
                    drive.put_label(label.clone());
                    Ok(drive.owned(&label))
                }
            }
        })
    }

    fn open_partition(&self, owned: &OwnedDrive, _: Role) -> Result<OpenPartition, DriveError> {
        Err(DriveError::Io {
            path: owned.seen.path.clone(),
            action: "opening its partition",
            source: io::Error::other("a simulated drive holds no bytes"),
        })
    }

    fn release(&self, owned: &OwnedDrive, data: DataOnRelease) -> Result<(), DriveError> {
        self.with(&owned.seen, |drive| {
            drive.own_label(&pool_of(owned))?;
            if drive.storage_holds_data {
                return Err(DriveError::HoldsData {
                    path: drive.seen.path.clone(),
                });
            }
            drive.state.label = LabelSeen::Absent;
            if data == DataOnRelease::Erase {
                drive.state.content = Content::Blank;
            }
            Ok(())
        })
    }

    fn wipe(
        &self,
        drive: &SeenDrive,
        order: &WipeOrder,
        pools: &KnownPools,
        progress: &mut dyn FnMut(WipeProgress) -> ControlFlow<()>,
    ) -> Result<(), DriveError> {
        self.with(drive, |drive| {
            let path = drive.seen.path.clone();
            if order.serial != drive.seen.key.serial {
                return Err(DriveError::WrongSerial {
                    path,
                    named: order.serial.clone(),
                    found: drive.seen.key.serial.clone(),
                });
            }
            let reasons = wipe_refusals(&drive.state, pools);
            if !reasons.is_empty() {
                return Err(DriveError::WipeRefused { path, reasons });
            }
            let total = drive.seen.geometry.size;
            // One chunk: there is nothing to stop between.
            let _ = progress(WipeProgress { done: total, total });
            drive.state.label = LabelSeen::Absent;
            drive.state.content = Content::Blank;
            drive.state.signatures.clear();
            drive.storage_holds_data = false;
            Ok(())
        })
    }

    fn health(&self, drive: &SeenDrive) -> Health {
        match self.lock().get(&drive.key) {
            Some(drive) => drive.state.health.clone(),
            None => Health::Unknown {
                why: "the drive is gone".into(),
            },
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
