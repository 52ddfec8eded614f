//! One pass over one drive: every leg's deed is done, and what is to be told of it comes out. Blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use strand_api::condition::{Condition, condition};
use strand_api::{ByteQuantity, LegPhase, PoolLeg, PoolLegSpec, PoolLegStatus, names};
use strand_volumes::{CopyOrder, Drive, Health, LegRecord, Storage, VolumeError};
use tokio::sync::mpsc;

use super::decide::{Deed, Here, uuid};
use super::evacuate::{self, Copies, Progress};
use super::serving::Ask;

/// Reasons of conditions, besides those that the operator knows.
const SOURCE_NOT_FOUND: &str = "SourceNotFound";
const IN_USE: &str = "InUse";
pub const DRIVE_ERROR: &str = "DriveError";
const NOT_ENFORCED: &str = "NotEnforced";
/// Reason of a leg that is on its way from another drive: nothing is wrong with it.
pub const COPYING: &str = "Copying";
const COPY_FAILED: &str = "CopyFailed";

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
                "DriveFull",
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

/// Everything that a pass needs.
pub struct Pass {
    /// The drive, open.
    pub drive: Arc<Drive>,
    /// Name of its object.
    pub name: String,
    /// The node.
    pub node: String,
    /// Objects of its legs, by name.
    pub objects: BTreeMap<String, PoolLeg>,
    /// What ails it.
    pub ailment: Option<Ailment>,
    /// Legs of which somebody came with an older attachment generation than their record has.
    pub stale: BTreeMap<String, u64>,
    /// Why the limits of its attached legs are not enforced.
    pub unlimited: Option<String>,
    /// All open drives: what legs are copied from.
    pub storage: Arc<Storage>,
    /// Copies under way.
    pub copies: Copies,
    /// To whom news is told.
    pub asks: mpsc::UnboundedSender<Ask>,
}

impl Pass {
    /// Limits the legs that are attached as their objects say.
    pub fn limit(&mut self) {
        let limit = || {
            let records = self.drive.records()?;
            let here = Here {
                objects: &self.objects,
                records: &records,
            };
            self.drive.limit(&here.limits())
        };
        let result = limit();
        self.unlimited = result.err().map(|error| error.to_string());
    }

    /// Does what each leg needs and tells its status as soon as it is known; returns objects for bytes that have none. `taken` says
    /// which names of objects are given already.
    ///
    /// # Errors
    /// [`VolumeError`] where the drive itself was closed meanwhile.
    pub fn run(
        &self,
        taken: impl Fn(&str) -> bool,
        mut tell: impl FnMut(String, PoolLegStatus),
    ) -> Result<Vec<(String, PoolLegSpec)>, VolumeError> {
        // What goes makes room, and what is copied from must be there before its copies.
        let mut order: Vec<(&String, &PoolLeg)> = self.objects.iter().collect();
        order.sort_by_key(|(_, leg)| (!leg.spec.deletion_mark, leg.spec.source.is_some()));
        for (name, leg) in order {
            let records = self.drive.records()?;
            let here = Here {
                objects: &self.objects,
                records: &records,
            };
            let status = self.tend(leg, here.decide(leg));
            tell(name.clone(), status);
        }
        let copied = |name: &str| {
            let leg = self.objects.get(name);
            leg.is_some_and(|leg| leg.spec.copy.is_some() && !leg.spec.deletion_mark)
        };
        self.copies.keep(self.drive.id(), copied);
        self.drive.drop_copies(copied)?;
        let records = self.drive.records()?;
        let here = Here {
            objects: &self.objects,
            records: &records,
        };
        Ok(here.orphans(&self.node, &self.name, taken))
    }

    fn tend(&self, leg: &PoolLeg, deed: Deed) -> PoolLegStatus {
        let mut told = Told::new(leg, self.ailment.as_ref());
        told.unlimited = self.unlimited.as_deref();
        match deed {
            Deed::Make(order) => match self.drive.make(&order) {
                Ok(record) => self.keep(&told, record),
                Err(error) => told.refused(&error),
            },
            Deed::Copy(order) => self.copy(&told, &order),
            Deed::Keep(record) => self.keep(&told, record),
            Deed::Delete(record) => match self.drive.delete(&record.name, record.uuid) {
                Ok(()) => told.deleted(),
                Err(error) => {
                    let reason = match &error {
                        VolumeError::Busy { .. } => IN_USE,
                        _ => DRIVE_ERROR,
                    };
                    told.there(&record, None, Some((reason, error.to_string())))
                }
            },
            Deed::Gone => told.deleted(),
            Deed::Missing(uuid) => told.failed(
                names::NOT_FOUND,
                format!(
                    "drive {} has no bytes with UUID {uuid}; nothing takes their place. See docs/storage.md",
                    self.name
                ),
            ),
            Deed::Taken(other) => told.failed(
                names::NAME_TAKEN,
                format!(
                    "drive {} has other bytes of that name, of volume {} with UUID {}",
                    self.name, other.volume, other.uuid
                ),
            ),
            Deed::NoSource(source) => told.failed(
                SOURCE_NOT_FOUND,
                format!("drive {} does not have leg {source}, of which this one is a copy", self.name),
            ),
            Deed::Nothing => PoolLegStatus {
                phase: Some(LegPhase::Orphaned),
                ..told.blank()
            },
        }
    }

    fn copy(&self, told: &Told, order: &CopyOrder) -> PoolLegStatus {
        let (asks, drive) = (self.asks.clone(), self.name.clone());
        let wake = move || {
            // A task that has ended looks again after the next start.
            let _ = asks.send(Ask::Look(drive.clone()));
        };
        let from = told.leg.spec.copy.as_ref().map(|copy| &copy.drive);
        let from = from.map_or("", String::as_str);
        match self.copies.tend(&self.storage, &self.drive, order, wake) {
            Progress::Through(bytes) => told.copying(bytes, from),
            Progress::NoSource => told.failed(
                SOURCE_NOT_FOUND,
                format!("what it is copied from is not served: drive {from} is away, or does not have it"),
            ),
            Progress::Failed(error) => {
                if let VolumeError::Stale { name, recorded, .. } = &*error {
                    let (drive, leg, recorded) = (from.to_owned(), name.clone(), *recorded);
                    // As above.
                    let _ = self.asks.send(Ask::Stale { drive, leg, recorded });
                }
                let reason = match reason(&error) {
                    DRIVE_ERROR => COPY_FAILED,
                    other => other,
                };
                told.failed(reason, error.to_string())
            }
        }
    }

    /// Bytes that are there: as large as asked, and their owner's.
    fn keep(&self, told: &Told, record: LegRecord) -> PoolLegStatus {
        let spec = &told.leg.spec;
        let mut trouble = None;
        if record.owner_uid != spec.owner_uid
            && let Err(error) = self.drive.set_owner(&record.name, &spec.owner_uid)
        {
            trouble = Some((DRIVE_ERROR, error.to_string()));
        }
        let mut now = record;
        if spec.snapshot.is_none() && spec.size.0 > now.size {
            match self.drive.grow_leg(&now.name, spec.size.0) {
                Ok(grown) => now = grown,
                Err(error) => trouble = Some((reason(&error), error.to_string())),
            }
        }
        let stale = self.stale.get(&now.name).copied();
        let used = self.drive.allocated(&now.name).ok();
        PoolLegStatus {
            used: told.used(used, now.size),
            ..told.there(&now, stale, trouble)
        }
    }
}

fn reason(error: &VolumeError) -> &'static str {
    match error {
        VolumeError::NoSpace { .. } | VolumeError::Full { .. } => names::NO_SPACE,
        VolumeError::NameTaken { .. } => names::NAME_TAKEN,
        _ => DRIVE_ERROR,
    }
}

/// How a leg's status is told: on top of what was told before.
struct Told<'a> {
    leg: &'a PoolLeg,
    ailment: Option<&'a Ailment>,
    unlimited: Option<&'a str>,
    earlier: &'a [Condition],
    now: Time,
}

impl<'a> Told<'a> {
    fn new(leg: &'a PoolLeg, ailment: Option<&'a Ailment>) -> Self {
        Self {
            leg,
            ailment,
            unlimited: None,
            earlier: leg.status.as_ref().map_or(&[], |status| &status.conditions),
            now: Time(Timestamp::now()),
        }
    }

    fn condition(&self, type_: &str, reason: &str, message: &str) -> Condition {
        let generation = self.leg.metadata.generation;
        condition(
            self.earlier,
            &self.now,
            type_,
            false,
            reason,
            message,
            generation,
        )
    }

    fn blank(&self) -> PoolLegStatus {
        PoolLegStatus {
            observed_generation: self.leg.metadata.generation,
            ..PoolLegStatus::default()
        }
    }

    fn healthy(&self) -> Option<Condition> {
        let Ailment { reason, message } = self.ailment?;
        Some(self.condition(names::HEALTHY, reason, message))
    }

    fn limited(&self) -> Option<Condition> {
        let message = self.unlimited.filter(|_| self.leg.spec.limits.is_some())?;
        Some(self.condition(names::LIMITED, NOT_ENFORCED, message))
    }

    fn deleted(&self) -> PoolLegStatus {
        PoolLegStatus {
            phase: Some(LegPhase::Deleted),
            uuid: uuid(self.leg).map(str::to_owned),
            ..self.blank()
        }
    }

    fn failed(&self, reason: &str, message: String) -> PoolLegStatus {
        let ready = self.condition(names::READY, reason, &message);
        PoolLegStatus {
            phase: Some(LegPhase::Failed),
            uuid: uuid(self.leg).map(str::to_owned),
            conditions: [Some(ready), self.healthy()]
                .into_iter()
                .flatten()
                .collect(),
            ..self.blank()
        }
    }

    /// It was not made. What the drive has no room for can be placed elsewhere; what a fault kept from being made is tried again.
    fn refused(&self, error: &VolumeError) -> PoolLegStatus {
        let failed = self.failed(reason(error), error.to_string());
        match reason(error) {
            DRIVE_ERROR => PoolLegStatus {
                phase: Some(LegPhase::Pending),
                ..failed
            },
            _ => failed,
        }
    }

    /// What it takes on the drive, as far as it is worth a write.
    fn used(&self, now: Option<u64>, size: u64) -> Option<ByteQuantity> {
        let told = self.leg.status.as_ref().and_then(|s| s.used);
        let step = (size / 16).max(1);
        let now = now?.min(size);
        match told {
            Some(told) if told.0 <= size && told.0.abs_diff(now) < step => Some(told),
            _ => Some(ByteQuantity((now.div_ceil(step) * step).min(size))),
        }
    }

    /// It is being copied from another drive.
    fn copying(&self, through: u64, from: &str) -> PoolLegStatus {
        let message = format!("it is being copied from drive {from}");
        let copied = evacuate::told(through, self.leg.spec.size.0);
        PoolLegStatus {
            phase: Some(LegPhase::Pending),
            copied: Some(ByteQuantity(copied)),
            ..self.failed(COPYING, message)
        }
    }

    fn there(
        &self,
        record: &LegRecord,
        stale: Option<u64>,
        trouble: Option<(&str, String)>,
    ) -> PoolLegStatus {
        let spec = &self.leg.spec;
        let ready = trouble.map(|(reason, message)| self.condition(names::READY, reason, &message));
        let told = self
            .leg
            .status
            .as_ref()
            .and_then(|s| s.attachment_generation);
        // An object that was made again, or took another's place, has to know of attachments before it.
        let again = ((spec.uuid.is_some() || spec.copy.is_some())
            && record.attachment_generation > 0)
            .then_some(record.attachment_generation);
        let generation = stale.or(again.filter(|_| told.is_none()));
        PoolLegStatus {
            phase: Some(match spec.orphaned {
                true => LegPhase::Orphaned,
                false => LegPhase::Ready,
            }),
            uuid: Some(record.uuid.to_string()),
            size: ByteQuantity(record.size),
            taken_at: spec.snapshot.as_ref().and_then(|_| taken_at(record)),
            attachment_generation: generation
                .and_then(|generation| i64::try_from(generation).ok())
                .or(told),
            conditions: [ready, self.healthy(), self.limited()]
                .into_iter()
                .flatten()
                .collect(),
            ..self.blank()
        }
    }
}

/// To the second, as the API keeps times.
fn taken_at(record: &LegRecord) -> Option<Time> {
    let seconds = i64::try_from(record.made_at_ms / 1000).ok()?;
    Timestamp::from_second(seconds).ok().map(Time)
}

/// The status of a leg whose drive is not served, where it was told as usable.
pub fn unserved(leg: &PoolLeg, ailment: &Ailment) -> Option<PoolLegStatus> {
    let live = leg.status.as_ref()?;
    live.uuid
        .as_ref()
        .filter(|_| live.phase != Some(LegPhase::Deleted))?;
    let mut status = live.clone();
    status.conditions.retain(|c| c.type_ != names::HEALTHY);
    status
        .conditions
        .extend(Told::new(leg, Some(ailment)).healthy());
    Some(status)
}
