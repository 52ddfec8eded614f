//! The legs of open drives: one pass a drive at a time, and what becomes of each told to the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strand_api::{PoolLeg, PoolLegSpec, PoolLegStatus};
use strand_volumes::VolumeError;

use super::{Ask, Serving};
use crate::effects::reference;
use crate::volumes::StorageStanding;
use crate::volumes::ailment::Ailment;
use crate::volumes::metrics::Seen;
use crate::volumes::slot;
use crate::volumes::tend::Pass;
use crate::volumes::told::{DRIVE_ERROR, unserved};
use crate::volumes::write::{Write, happenings};

/// How often the health of a drive that seems well is looked at: a small file is written to it.
const PROBE: Duration = Duration::from_secs(60);
/// A drive that was not there for so long counts as gone: one that is taken back after a restart is not told as gone.
const GONE: Duration = Duration::from_secs(20);

impl Serving {
    pub(super) fn tend(&mut self, name: &str, now: Instant) {
        let taken: Vec<String> = self.legs.iter().map(|(name, _)| name.clone()).collect();
        let objects = self.legs.iter().filter(|(_, leg)| leg.spec.drive == name);
        let objects: BTreeMap<String, PoolLeg> = objects
            .map(|(name, leg)| (name.clone(), leg.clone()))
            .collect();
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(drive) = slot.open().map(Arc::clone) else {
            return;
        };
        slot.tending = true;
        slot.changed = false;
        let ill = slot.ailment.is_some();
        let probe = slot
            .looked_at
            .is_none_or(|at| ill || now.saturating_duration_since(at) >= PROBE);
        if probe {
            slot.looked_at = Some(now);
        }
        let limits = objects.values().any(|leg| leg.spec.limits.is_some());
        let limit = std::mem::replace(&mut slot.limited, limits) || limits;
        let mut pass = Pass {
            drive,
            name: name.to_owned(),
            node: self.node.clone(),
            objects,
            ailment: slot.ailment.clone(),
            stale: slot.stale.clone(),
            unlimited: None,
            storage: Arc::clone(&self.storage),
            copies: self.copies.clone(),
            connections: self.connections.clone(),
            exports: Arc::clone(&self.exports),
            asks: self.asks.clone(),
        };
        let asks = self.asks.clone();
        tokio::task::spawn_blocking(move || {
            let probe = probe || pass.drive.is_ill();
            let looked = probe.then(|| slot::look(&pass.drive, &pass.name).1);
            if let Some(found) = &looked {
                pass.ailment.clone_from(found);
            }
            if limit {
                pass.limit();
            }
            let tell = |leg, status| {
                let status = Box::new(status);
                let _ = asks.send(Ask::Tended { leg, status });
            };
            let orphans = pass.run(|name| taken.iter().any(|taken| taken == name), tell);
            let standing = slot::standing(&pass.drive);
            let seen = Seen::of(&pass.drive).ok();
            let _ = asks.send(Ask::Passed {
                drive: pass.name.clone(),
                orphans,
                standing,
                looked,
                unlimited: pass.unlimited.is_some(),
                seen,
            });
        });
    }

    pub(super) fn tended(&mut self, name: &str, status: PoolLegStatus) {
        let Some(leg) = self.legs.get(name) else {
            return;
        };
        if leg.status.as_ref() != Some(&status) {
            let failed = status.conditions.iter().any(|c| c.reason == DRIVE_ERROR);
            if let Some(shown) = self.metrics.drives().get_mut(&leg.spec.drive) {
                shown.errors += u64::from(failed);
            }
            self.outbox.put(name, Write::Status(Box::new(status)));
        }
    }

    pub(super) fn passed(
        &mut self,
        name: &str,
        orphans: Result<Vec<(String, PoolLegSpec)>, VolumeError>,
        standing: Option<StorageStanding>,
        looked: Option<Option<Ailment>>,
        unlimited: bool,
    ) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.tending = false;
        slot.tended = true;
        slot.limited |= unlimited;
        if let Some(ailment) = looked {
            if let Some(ailment) = &ailment
                && slot.ailment.as_ref() != Some(ailment)
            {
                tracing::error!(drive = name, reason = ailment.reason, "{}", ailment.message);
            }
            slot.ailment = ailment;
        }
        if standing.is_some() {
            slot.standing = standing;
        }
        // One that was shut down is mounted anew as soon as nothing on it is attached.
        let shut = slot
            .ailment
            .as_ref()
            .is_some_and(|a| a.reason == "FileSystemShutDown");
        match orphans {
            Ok(orphans) => {
                for (leg, spec) in orphans {
                    tracing::info!(
                        drive = name,
                        leg,
                        "bytes without an object are told as orphaned"
                    );
                    self.outbox.put(&leg, Write::Create(Box::new(spec)));
                }
            }
            Err(error) => tracing::debug!(drive = name, %error, "the pass broke off"),
        }
        if shut {
            self.close(name);
        }
        self.show();
    }

    pub(super) fn wrote(
        &mut self,
        name: &str,
        before: Option<Box<PoolLeg>>,
        write: Write,
        result: Result<Option<Box<PoolLeg>>, String>,
    ) {
        let now = Instant::now();
        match result {
            Ok(object) => {
                self.outbox.done(name, None, now);
                let Some(object) = object else { return };
                if let (Write::Status(status), Some(before)) = (&write, before) {
                    let about = reference(&*before);
                    for happening in happenings(&before, status) {
                        let (writer, about) = (self.writer.clone(), about.clone());
                        tokio::spawn(writer.tell(about, happening));
                    }
                }
                let drive = object.spec.drive.clone();
                self.legs
                    .written(*object, matches!(write, Write::Create(_)));
                if matches!(write, Write::Create(_)) {
                    self.touch(&drive);
                }
            }
            Err(error) => {
                tracing::warn!(
                    leg = name,
                    error,
                    "the API server did not take a leg's status; it is tried again"
                );
                self.outbox.done(name, Some(write), now);
            }
        }
    }

    /// Tells legs whose drive has not been served for a while.
    pub(super) fn tell_unserved(&mut self) {
        let now = Instant::now();
        let mut since = BTreeMap::new();
        let mut told = Vec::new();
        for (name, leg) in self.legs.iter() {
            let drive = &leg.spec.drive;
            let slot = self.slots.get(drive);
            if slot.is_some_and(|slot| slot.open().is_some() || slot.holds > 0)
                || !self.wanted.settled
            {
                continue;
            }
            let first = *self.unserved.get(drive).unwrap_or(&now);
            since.insert(drive.clone(), first);
            if now.saturating_duration_since(first) < GONE {
                continue;
            }
            let missing = Ailment {
                reason: "DriveMissing",
                message: format!(
                    "node {} does not serve drive {drive}; see `kubectl get drive {drive}`",
                    self.node
                ),
            };
            let ailment = slot
                .and_then(|slot| slot.ailment.clone())
                .unwrap_or(missing);
            told.extend(unserved(leg, &ailment).map(|status| (name.clone(), status)));
        }
        self.unserved = since;
        for (name, status) in told {
            self.tended(&name, status);
        }
    }
}
