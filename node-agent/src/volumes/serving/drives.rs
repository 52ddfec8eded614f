//! Storage sides: opened, held closed for somebody, closed, and shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use strand_drives::OwnedDrive;
use strand_volumes::Drive;
use tokio::sync::oneshot;

use super::{Ask, Serving};
use crate::volumes::StorageStanding;
use crate::volumes::ailment::Ailment;
use crate::volumes::metrics::Seen;
use crate::volumes::slot::{self, Hold, OpenError, RETRY, State};
use crate::volumes::trim;

impl Serving {
    pub(super) fn open(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = State::Opening;
        let owned = Box::new(slot.owned.clone());
        let (host, storage) = (Arc::clone(&self.host), Arc::clone(&self.storage));
        let (asks, drive) = (self.asks.clone(), name.to_owned());
        tokio::spawn(async move {
            let of = owned.clone();
            let opening = tokio::task::spawn_blocking(move || slot::open(&*host, &storage, &of));
            let result = opening.await.unwrap_or(Err(OpenError::Broken));
            let _ = asks.send(Ask::Opened {
                drive,
                owned,
                result,
            });
        });
    }

    pub(super) fn opened(
        &mut self,
        name: &str,
        owned: &OwnedDrive,
        result: Result<Arc<Drive>, OpenError>,
    ) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        match result {
            Ok(drive) => {
                tracing::info!(drive = name, root = %drive.root().display(), "its storage side is served");
                slot.standing = slot::standing(&drive);
                slot.ailment = None;
                slot.looked_at = None;
                slot.state = State::Open(drive);
                slot.tended = false;
                slot.trim_at.get_or_insert(Instant::now() + trim::FIRST);
                slot.changed = true;
            }
            // It was carved anew meanwhile.
            Err(_) if slot.owned != *owned => slot.state = State::Closed,
            Err(error) => {
                let why = error.to_string();
                if slot
                    .ailment
                    .as_ref()
                    .is_none_or(|ailment| ailment.message != why)
                {
                    tracing::warn!(drive = name, %error, "its storage side is not served; it is tried again");
                }
                slot.ailment = Some(Ailment {
                    reason: "NotServed",
                    message: why.clone(),
                });
                if error.lasts() {
                    slot.standing = Some(StorageStanding::default());
                }
                slot.state = State::Failed {
                    why,
                    retry_at: Instant::now() + RETRY,
                };
            }
        }
        self.show();
    }

    pub(super) fn hold(&mut self, drive: String, held: oneshot::Sender<Hold>) {
        match self.slots.get_mut(&drive) {
            Some(slot) => {
                slot.holds += 1;
                slot.waiting.push(held);
            }
            None => {
                // There is nothing to close; letting go of it changes nothing.
                let _ = held.send(Hold {
                    drive,
                    asks: self.asks.clone(),
                });
            }
        }
    }

    /// Closes a storage side, unless a leg on it is attached. For whoever holds it, one without legs is made blank besides. What was
    /// shut down is opened again at once.
    pub(super) fn close(&mut self, name: &str) {
        let gone = self.wanted.gone.contains(name);
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = State::Closing;
        let owned = slot.owned.clone();
        let blank = slot.holds > 0 && !gone;
        let storage = Arc::clone(&self.storage);
        let (asks, drive) = (self.asks.clone(), name.to_owned());
        tokio::spawn(async move {
            let closing = tokio::task::spawn_blocking(move || match blank {
                true => slot::close(&storage, &owned),
                false => storage.close(owned.drive_id).is_ok(),
            });
            let closed = closing.await.unwrap_or(false);
            let _ = asks.send(Ask::Closed { drive, closed });
        });
    }

    pub(super) fn closed(&mut self, name: &str, closed: bool) {
        let open = self
            .slots
            .get(name)
            .and_then(|slot| self.storage.drive(slot.owned.drive_id));
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = match open {
            Some(drive) if !closed => State::Open(drive),
            _ => State::Closed,
        };
        // One that is gone and in use is looked at again with the next look.
        slot.changed = false;
        self.give_holds(name);
    }

    pub(super) fn give_holds(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        for held in std::mem::take(&mut slot.waiting) {
            // Who does not wait any more drops the hold, which lets the drive go.
            let _ = held.send(Hold {
                drive: name.to_owned(),
                asks: self.asks.clone(),
            });
        }
    }

    /// Shows what a pass saw of a drive.
    pub(super) fn saw(&mut self, name: &str, seen: Option<Seen>, failed: bool) {
        let mut drives = self.metrics.drives();
        let shown = drives.entry(name.to_owned()).or_default();
        shown.errors += u64::from(failed);
        shown.seen = seen.or(shown.seen.take());
    }

    /// Begins to tell drives what is free on them, where that is due.
    pub(super) fn trim(&mut self) {
        let now = Instant::now();
        for (name, slot) in &mut self.slots {
            let State::Open(drive) = &slot.state else {
                continue;
            };
            if slot.trim_at.is_none_or(|at| at > now) {
                continue;
            }
            slot.trim_at = None;
            let (asks, drive) = (self.asks.clone(), Arc::clone(drive));
            let name = name.clone();
            tokio::spawn(async move {
                let bytes = trim::trim(drive).await;
                let _ = asks.send(Ask::Trimmed { drive: name, bytes });
            });
        }
    }

    pub(super) fn trimmed(&mut self, name: &str, bytes: u64) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.trim_at = Some(Instant::now() + trim::AGAIN);
        }
        if let Some(shown) = self.metrics.drives().get_mut(name) {
            shown.trimmed += bytes;
        }
    }

    pub(super) fn show(&mut self) {
        let mut drives = self.metrics.drives();
        drives.retain(|name, _| self.slots.contains_key(name));
        for (name, slot) in &self.slots {
            let shown = drives.entry(name.clone()).or_default();
            shown.ailment = slot.ailment.as_ref().map(|ailment| ailment.reason);
            if slot.open().is_none() {
                shown.seen = None;
            }
        }
        drop(drives);
        let standing: BTreeMap<String, StorageStanding> = self
            .slots
            .iter()
            .filter_map(|(name, slot)| {
                let standing = StorageStanding {
                    ailment: slot.ailment.clone(),
                    ..slot.standing.clone()?
                };
                Some((name.clone(), standing))
            })
            .collect();
        self.standing.send_if_modified(|shown| {
            let changed = *shown != standing;
            *shown = standing;
            changed
        });
    }
}
