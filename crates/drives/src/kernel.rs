//! The real machine's drives.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;

use strand_placement::carve::{self, Layout, Recarve, Role, Split};
use strand_placement::reason::Reason;
use strand_placement::verdict::{
    Health, KnownPools, LabelSeen, LabelState, Observation, Verdict, judge, wipe_refusals,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::carve::holds_data;
use crate::config::HostConfig;
use crate::events::Events;
use crate::held::{Access, Held};
use crate::host::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, Resumed, WipeOrder, WipeProgress,
};
use crate::identity::{MediumKind, OpenPartition, OwnedDrive, SeenDrive};
use crate::label::DiskLabel;
use crate::nvme::{self, KernelNvme, NvmeAdmin};
use crate::observe::Observer;
use crate::own::{gone, grows_in_place};
use crate::table::numbered;
use crate::{partitions, standin, sysfs, uses, wipe};

/// The machine's own drives, through the kernel.
pub struct KernelHost {
    pub(crate) config: HostConfig,
    admin: Box<dyn NvmeAdmin>,
    salt: u64,
    events: Events,
}

impl KernelHost {
    /// Starts to listen for drives that come and go. Needs a tokio runtime; where the kernel's events cannot be had, that is logged
    /// and only [`DriveHost::scan`] tells.
    pub fn start(config: HostConfig) -> KernelHost {
        KernelHost::with_nvme(config, Box::new(KernelNvme))
    }

    pub(crate) fn with_nvme(config: HostConfig, admin: Box<dyn NvmeAdmin>) -> KernelHost {
        let salt = RandomState::new().build_hasher().finish();
        let events = Events::listen(&config);
        KernelHost {
            config,
            admin,
            salt,
            events,
        }
    }

    /// Opens a drive; where the kernel says that it is in use, the error says by whom.
    pub(crate) fn open<'a>(
        &'a self,
        drive: &'a SeenDrive,
        access: Access,
    ) -> Result<Held<'a>, DriveError> {
        match Held::open(drive, access, self.admin.as_ref()) {
            Err(DriveError::Busy { path, .. }) => {
                let look = Held::open(drive, Access::Look, self.admin.as_ref())?;
                let mut reasons = self.uses(&look);
                if reasons.is_empty() {
                    reasons.push(Reason::OpenElsewhere { by: None });
                }
                Err(DriveError::Busy { path, reasons })
            }
            result => result,
        }
    }

    fn observer(&self) -> Observer<'_> {
        Observer {
            roots: &self.config.roots,
            watch: self.config.watch,
            admin: self.admin.as_ref(),
            salt: self.salt,
        }
    }

    /// Who uses a drive or a partition of it.
    pub(crate) fn uses(&self, held: &Held<'_>) -> Vec<Reason> {
        uses::find(&self.config.roots, held.drive, &held.file)
            .found
            .iter()
            .map(Reason::of_use)
            .collect()
    }
}

impl DriveHost for KernelHost {
    fn scan(&self) -> Result<Vec<SeenDrive>, DriveError> {
        let roots = &self.config.roots;
        let mut drives = if self.config.nvme {
            sysfs::nvme_drives(roots)
        } else {
            Vec::new()
        };
        drives.extend(standin::drives(roots, &self.config.stand_ins));
        drives.sort_by(|a, b| (&a.key, &a.path).cmp(&(&b.key, &b.path)));
        drives.dedup_by(|a, b| a.path == b.path);
        let clashes =
            |drive: &SeenDrive| drives.iter().filter(|other| other.key == drive.key).count() > 1;
        let (unclear, clear): (Vec<_>, Vec<_>) = drives.iter().cloned().partition(clashes);
        for drive in unclear {
            warn!(path = %drive.path.display(), key = %drive.key, "two devices claim to be this drive; both are left out");
        }
        Ok(clear)
    }

    fn observe(
        &self,
        drive: &SeenDrive,
        earlier: Option<&Observation>,
    ) -> Result<Observation, DriveError> {
        self.observer()
            .observe(&self.open(drive, Access::Look)?, false, earlier)
    }

    fn adopt(
        &self,
        drive: &SeenDrive,
        watched: &Observation,
        order: &CarveOrder,
    ) -> Result<OwnedDrive, DriveError> {
        let pool = KnownPools([(order.pool_id, order.pool_name.clone())].into());
        if matches!(&watched.label, LabelSeen::Present(label) if label.pool_id == order.pool_id)
            && let Resumed::Owned(owned) = self.resume(drive, &pool)?
        {
            return Ok(owned);
        }
        let held = self.open(drive, Access::Write)?;
        let seen = self.observer().observe(&held, true, Some(watched))?;
        let finding = judge(&seen, &pool);
        match finding.verdict {
            Verdict::Stranded => {}
            // Carved by an order before this one, whose answer was lost.
            Verdict::Pooled => {
                drop(held);
                if let Resumed::Owned(owned) = self.resume(drive, &pool)? {
                    return Ok(owned);
                }
                return Err(DriveError::NotStranded {
                    path: drive.path.clone(),
                    reasons: finding.reasons,
                });
            }
            _ => {
                return Err(DriveError::NotStranded {
                    path: drive.path.clone(),
                    reasons: finding.reasons,
                });
            }
        }
        let layout =
            carve::layout(&drive.geometry, &order.split).map_err(|reason| DriveError::Carve {
                path: drive.path.clone(),
                reason,
            })?;
        let label = DiskLabel {
            generation: 1,
            state: LabelState::Carving,
            logical_block: drive.geometry.logical_block,
            size: drive.geometry.size,
            pool_id: order.pool_id,
            drive_id: order.drive_id,
            layout,
            previous: None,
            pool_name: order.pool_name.clone(),
            serial: drive.key.serial.clone(),
        };
        info!(path = %drive.path.display(), key = %drive.key, pool = %order.pool_name, "taking a stranded drive");
        self.complete(&held, &label)?.ok_or_else(|| gone(&held))
    }

    fn resume(&self, drive: &SeenDrive, pools: &KnownPools) -> Result<Resumed, DriveError> {
        let held = self.open(drive, Access::Look)?;
        let label = self.own_label(&held, pools)?;
        if self.is_complete(&held, &label)? {
            return self.owned(&held, &label).map(Resumed::Owned);
        }
        let access = match (label.state, &label.previous) {
            // Only the label's second copy is missing, or storage may be in use again where the boundary was being moved.
            (LabelState::Carved, _) => Access::Share,
            (_, Some(previous)) if grows_in_place(&held, previous, &label.layout)? => Access::Share,
            _ => Access::Write,
        };
        drop(held);
        let held = self.open(drive, access)?;
        let label = self.own_label(&held, pools)?;
        info!(path = %drive.path.display(), key = %drive.key, state = ?label.state, "completing what was begun on a drive");
        Ok(self
            .complete(&held, &label)?
            .map_or(Resumed::Released, Resumed::Owned))
    }

    fn recarve(&self, drive: &OwnedDrive, split: &Split) -> Result<OwnedDrive, DriveError> {
        let path = || drive.seen.path.clone();
        let wanted =
            carve::layout(&drive.seen.geometry, split).map_err(|reason| DriveError::Carve {
                path: path(),
                reason,
            })?;
        let (held, label) = match self.open_owned(drive, Access::Write) {
            // Storage may stay in use while it grows into what context memory gives up.
            Err(busy @ DriveError::Busy { .. }) => {
                let (held, label) = self.open_owned(drive, Access::Share)?;
                if wanted != label.layout && !grows_in_place(&held, &label.layout, &wanted)? {
                    return Err(busy);
                }
                (held, label)
            }
            result => result?,
        };
        // On a block device the kernel itself keeps the context partition while it is open.
        let stays = wanted == label.layout || grows_in_place(&held, &label.layout, &wanted)?;
        let unused = if stays {
            Ok(())
        } else {
            self.refuse_use(&held)
        };
        // Whoever was passing through may have written: only now.
        let has_data = holds_data(&held.disk()?, &label.layout)
            .map_err(|error| held.error("reading its storage partition", error))?;
        match carve::recarve(&label.layout, &wanted, has_data) {
            Recarve::Keep => self.owned(&held, &label),
            Recarve::Refused(reason) => Err(DriveError::Refused {
                path: path(),
                reason,
            }),
            Recarve::Move(layout) => {
                unused?;
                self.complete(&held, &label.moving_to(layout))?
                    .ok_or_else(|| gone(&held))
            }
        }
    }

    fn open_partition(&self, drive: &OwnedDrive, role: Role) -> Result<OpenPartition, DriveError> {
        let (held, label) = self.open_owned(drive, Access::Look)?;
        let carved = |layout: &Layout| {
            let parts = numbered(layout).map(|(number, _, extent)| {
                format!(
                    "partition {number} of {} bytes at byte {}",
                    extent.len, extent.start
                )
            });
            let parts: Vec<String> = parts.collect();
            format!("drive {} with {}", drive.drive_id, parts.join(" and "))
        };
        let found = numbered(&label.layout).find(|(_, found, _)| *found == role);
        let Some((number, _, extent)) = found.filter(|_| label.layout == drive.layout) else {
            return Err(DriveError::IdentityChanged {
                path: drive.seen.path.clone(),
                expected: carved(&drive.layout),
                found: carved(&label.layout),
            });
        };
        let opened = partitions::open(&held, &self.config.roots, number, extent.start);
        let (file, offset) = opened.map_err(|error| held.error("opening its partition", error))?;
        Ok(OpenPartition {
            file,
            offset,
            len: extent.len,
        })
    }

    fn release(&self, drive: &OwnedDrive, data: DataOnRelease) -> Result<(), DriveError> {
        let (held, label) = self.open_owned(drive, Access::Write)?;
        self.refuse_use(&held)?;
        let holds_data = holds_data(&held.disk()?, &label.layout)
            .map_err(|error| held.error("reading its storage partition", error))?;
        if holds_data {
            return Err(DriveError::HoldsData {
                path: drive.seen.path.clone(),
            });
        }
        let state = match data {
            DataOnRelease::Keep => LabelState::Releasing,
            DataOnRelease::Erase => LabelState::Erasing,
        };
        info!(path = %drive.seen.path.display(), key = %drive.seen.key, ?data, "giving a drive back");
        self.complete(&held, &label.next(state)).map(|_| ())
    }

    fn wipe(
        &self,
        drive: &SeenDrive,
        order: &WipeOrder,
        pools: &KnownPools,
        progress: &mut dyn FnMut(WipeProgress) -> ControlFlow<()>,
    ) -> Result<(), DriveError> {
        let path = || drive.path.clone();
        if order.serial != drive.key.serial {
            return Err(DriveError::WrongSerial {
                path: path(),
                named: order.serial.clone(),
                found: drive.key.serial.clone(),
            });
        }
        let held = match self.open(drive, Access::Write) {
            Err(DriveError::Busy { path, reasons }) => {
                return Err(DriveError::WipeRefused { path, reasons });
            }
            result => result?,
        };
        let seen = self.observer().observe(&held, true, None)?;
        let reasons = wipe_refusals(&seen, pools);
        if !reasons.is_empty() {
            return Err(DriveError::WipeRefused {
                path: path(),
                reasons,
            });
        }
        partitions::settle(&held, &self.config.roots, None)
            .map_err(|error| held.error("taking its partition devices away", error))?;
        held.check()?;
        info!(path = %drive.path.display(), key = %drive.key, from = order.from, "wiping a drive");
        let disk = held.disk()?;
        match wipe::wipe(&disk, order.from, progress)
            .map_err(|error| held.error("wiping it", error))?
        {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(done) => Err(DriveError::Stopped { path: path(), done }),
        }
    }

    fn health(&self, drive: &SeenDrive) -> Health {
        match drive.medium {
            MediumKind::Nvme { .. } => match self.open(drive, Access::Look) {
                Ok(held) => nvme::health(self.admin.as_ref(), &held.file),
                Err(error) => Health::Unknown {
                    why: error.to_string(),
                },
            },
            MediumKind::Loop { .. } | MediumKind::File { .. } => Health::None,
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }
}
