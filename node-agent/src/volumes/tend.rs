//! One pass over one drive: every leg's deed is done, and what is to be told of it comes out. Blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use strand_api::{LegPhase, PoolLeg, PoolLegSpec, PoolLegStatus, names};
use strand_fabric::Exported;
use strand_volumes::{CopyOrder, Drive, LegRecord, Storage, VolumeError};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::ailment::Ailment;
use super::connections::Connections;
use super::decide::{Deed, Fetch, Here, is_copied, mode, uuid};
use super::evacuate::{Copies, Progress};
use super::exports::{Exports, Lent, Trouble};
use super::serving::Ask;
use super::told::{COPY_FAILED, DRIVE_ERROR, IN_USE, SOURCE_NOT_FOUND, Told, reason};

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
    /// How legs of other nodes are reached.
    pub connections: Connections,
    /// What of its legs other nodes have.
    pub exports: Arc<Exports>,
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
        let exported = Exports::seen();
        for (name, leg) in order {
            let records = self.drive.records()?;
            let here = Here {
                objects: &self.objects,
                records: &records,
            };
            let exported = exported.as_deref().map_err(Clone::clone);
            let status = self.tend(leg, here.decide(leg), exported);
            tell(name.clone(), status);
        }
        let copied = |name: &str| self.objects.get(name).is_some_and(is_copied);
        self.copies.keep(self.drive.id(), copied);
        self.drive.drop_copies(copied)?;
        let records = self.drive.records()?;
        let here = Here {
            objects: &self.objects,
            records: &records,
        };
        Ok(here.orphans(&self.node, &self.name, taken))
    }

    /// Sees to one leg. `exported` is what the kernel exports, or why that is not known.
    fn tend(
        &self,
        leg: &PoolLeg,
        deed: Deed,
        exported: Result<&[Exported], Trouble>,
    ) -> PoolLegStatus {
        let bytes = match &deed {
            Deed::Keep(record) | Deed::Delete(record) => Some(record.clone()),
            _ => None,
        };
        let lend = || {
            let known = || uuid(leg).and_then(|text| Uuid::parse_str(text).ok());
            let uuid = bytes.as_ref().map(|record| record.uuid).or_else(known)?;
            let bytes = bytes.as_ref().map(|record| (&*self.drive, record));
            Some(match exported {
                Ok(exported) => self.exports.tend(exported, leg, uuid, bytes),
                Err(trouble) => Lent::unknown(leg, trouble),
            })
        };
        // What goes is taken back first; what grows is larger before its consumers look.
        let (lent, mut status) = match leg.spec.deletion_mark {
            true => (lend(), self.done(leg, deed)),
            false => {
                let status = self.done(leg, deed);
                (lend(), status)
            }
        };
        let Some(lent) = lent else {
            return status;
        };
        let told = Told::new(leg, self.ailment.as_ref());
        if !lent.seen {
            let earlier = leg.status.as_ref().and_then(|s| s.observed_generation);
            status.observed_generation = earlier;
        }
        status.exports = lent.exports;
        // A generation that others were let in by is never given again, whatever else is lost.
        let let_in = status.exports.iter().map(|export| export.generation).max();
        let recorded = lent.stale.and_then(|stale| i64::try_from(stale).ok());
        status.attachment_generation = status.attachment_generation.max(let_in).max(recorded);
        status
            .conditions
            .extend(lent.trouble.map(|trouble| told.exported(&trouble)));
        status
    }

    fn done(&self, leg: &PoolLeg, deed: Deed) -> PoolLegStatus {
        let mut told = Told::new(leg, self.ailment.as_ref());
        told.unlimited = self.unlimited.as_deref();
        match deed {
            Deed::Make(order) => match self.drive.make(&order) {
                Ok(record) => self.keep(&told, record),
                Err(error) => told.refused(&error),
            },
            Deed::Copy(order) => self.copy(&told, &order),
            Deed::Fetch(fetch) => self.fetch(&told, &fetch),
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
            // A copy that ends now may still become a leg.
            Deed::Gone if self.copies.is_ending(self.drive.id(), &told.leg.name_any()) => {
                told.ending()
            }
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
        let progress = self
            .copies
            .tend(&self.storage, &self.drive, order, self.wake());
        self.copied(told, progress)
    }

    fn fetch(&self, told: &Told, fetch: &Fetch) -> PoolLegStatus {
        let progress = self
            .copies
            .fetch(&self.connections, &self.drive, fetch, self.wake());
        self.copied(told, progress)
    }

    /// Has the drive looked at again.
    fn wake(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let (asks, drive) = (self.asks.clone(), self.name.clone());
        move || {
            // A task that has ended looks again after the next start.
            let _ = asks.send(Ask::Look(drive.clone()));
        }
    }

    /// What is told of a copy.
    fn copied(&self, told: &Told, progress: Progress) -> PoolLegStatus {
        let from = told.leg.spec.copy.as_ref().map(|copy| &copy.drive);
        let from = from.map_or("", String::as_str);
        match progress {
            Progress::Through(bytes) => told.copying(bytes, from),
            Progress::Waits(bytes, why) => told.waiting(bytes, why),
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
        let mode = spec.volume_mode.map(mode);
        if let Err(error) = self.drive.set_owner(&record.name, &spec.owner_uid, mode) {
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
