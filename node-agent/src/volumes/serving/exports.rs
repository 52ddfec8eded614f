//! When legs are reached by other nodes after a reboot, and exports that no pass over a drive sees: of drives that are gone or cannot be
//! opened, and of legs that are not there any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use strand_api::{PoolLeg, PoolLegStatus};
use strand_volumes::Drive;
use uuid::Uuid;

use super::{Ask, Serving};
use crate::volumes::decide::uuid;
use crate::volumes::exports::{Exports, of};
use crate::volumes::slot::{Slot, State};

/// How long the legs of one drive wait for another drive that is not served yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// A leg that no pass sees.
struct Unseen {
    name: String,
    object: PoolLeg,
    uuid: Uuid,
    /// Its drive, where that is still open although it is gone.
    drive: Option<Arc<Drive>>,
}

impl Serving {
    /// Lets other nodes reach their legs, once every drive that holds some was looked at.
    pub(super) fn open_exports(&mut self, now: Instant) {
        if self.opening || self.exports.is_open() || !self.legs.synced() || !self.wanted.settled {
            return;
        }
        let since = *self.settled_at.get_or_insert(now);
        let lends = |leg: &PoolLeg| !leg.spec.exports.is_empty();
        let drives: BTreeSet<&String> = self
            .legs
            .iter()
            .filter(|(_, leg)| lends(leg))
            .map(|(_, leg)| &leg.spec.drive)
            .collect();
        let waits = |drive: &&String| match self.slots.get(*drive) {
            None => self.wanted.drives.contains_key(*drive),
            Some(slot) => match slot.state {
                State::Open(_) => !slot.tended,
                _ => slot.pending(),
            },
        };
        let waited = now.saturating_duration_since(since) >= PATIENCE;
        if !waited && drives.into_iter().any(|drive| waits(&drive)) {
            return;
        }
        self.opening = true;
        let (exports, asks) = (Arc::clone(&self.exports), self.asks.clone());
        tokio::task::spawn_blocking(move || {
            exports.open();
            // A task that has ended looks again after the next start.
            let _ = asks.send(Ask::Reached);
        });
    }

    /// Whether no pass sees to a leg.
    pub(super) fn unseen(&self, leg: &PoolLeg) -> bool {
        let drive = &leg.spec.drive;
        self.wanted.gone.contains(drive) || self.slots.get(drive).and_then(Slot::open).is_none()
    }

    /// Fences what no pass sees and nobody shall reach any more, and tells what is left.
    pub(super) fn sweep_exports(&mut self) {
        if !self.sweep_due || self.sweeping || !self.legs.synced() || !self.wanted.settled {
            return;
        }
        let mut unseen = Vec::new();
        let mut served = BTreeSet::new();
        for (name, object) in self.legs.iter() {
            let Some(uuid) = uuid(object).and_then(|text| Uuid::parse_str(text).ok()) else {
                continue;
            };
            let drive = &object.spec.drive;
            let open = self.slots.get(drive).and_then(Slot::open);
            if self.unseen(object) {
                unseen.push(Unseen {
                    name: name.clone(),
                    object: object.clone(),
                    uuid,
                    drive: open.cloned(),
                });
            } else {
                served.insert(uuid);
            }
        }
        // Bytes whose object is about to be made again, or that may still be found.
        let complete = !self.slots.values().any(Slot::pending);
        let drives = self.open_drives();
        (self.sweeping, self.sweep_due) = (true, false);
        let (exports, asks) = (Arc::clone(&self.exports), self.asks.clone());
        tokio::task::spawn_blocking(move || {
            for (_, drive) in drives {
                let records = drive.records().unwrap_or_default();
                served.extend(records.iter().map(|record| record.uuid));
            }
            let told = sweep(&exports, &unseen, &served, complete);
            let _ = asks.send(Ask::Swept);
            for (leg, status) in told {
                let status = Box::new(status);
                let _ = asks.send(Ask::Tended { leg, status });
            }
        });
    }
}

/// What is to be told of legs that no pass sees. Blocks.
fn sweep(
    exports: &Exports,
    unseen: &[Unseen],
    served: &BTreeSet<Uuid>,
    complete: bool,
) -> BTreeMap<String, PoolLegStatus> {
    let Ok(seen) = Exports::seen() else {
        // The passes over drives say so; nothing is told of what nobody knows.
        return BTreeMap::new();
    };
    for export in &seen {
        let nqn = export.nqn;
        let leg = unseen.iter().find(|leg| leg.uuid == nqn.uuid());
        let keep = match leg {
            Some(leg) => {
                let wanted = leg.object.spec.exports.iter();
                let mut wanted = wanted.map(|export| export.generation.unsigned_abs());
                leg.object.spec.orphaned || wanted.any(|wanted| wanted == nqn.generation())
            }
            None => served.contains(&nqn.uuid()) || !complete,
        };
        if !keep && let Err((_, why)) = exports.fence(nqn) {
            tracing::warn!(%nqn, why, "an export that nobody shall have is still there; it is tried again");
        }
    }
    let Ok(seen) = Exports::seen() else {
        return BTreeMap::new();
    };
    let mut told = BTreeMap::new();
    for leg in unseen {
        let wanted = &leg.object.spec.exports;
        let now = exports.told(&seen, leg.uuid, wanted);
        if let (Some(drive), None, true) =
            (&leg.drive, of(&seen, leg.uuid).next(), wanted.is_empty())
            && let Err(error) = take_back(drive, leg)
        {
            tracing::debug!(%error, leg = leg.name, "its device stays");
        }
        let Some(status) = &leg.object.status else {
            continue;
        };
        let observed = status.observed_generation < leg.object.metadata.generation;
        if status.exports != now || observed {
            let status = PoolLegStatus {
                observed_generation: leg.object.metadata.generation,
                exports: now,
                ..status.clone()
            };
            told.insert(leg.object.name_any(), status);
        }
    }
    told
}

fn take_back(drive: &Drive, leg: &Unseen) -> Result<(), strand_volumes::VolumeError> {
    let records = drive.records()?;
    match records.iter().find(|record| record.uuid == leg.uuid) {
        Some(record) => drive.take_back(&record.name),
        None => Ok(()),
    }
}
