//! Who asks over the socket: which legs stand for a volume, or why none can be named.

use std::sync::Arc;

use strand_api::PoolLeg;
use strand_volumes::IoLimits;
use uuid::Uuid;

use super::{Attachments, Serving, Unserved};
use crate::volumes::AttachError;
use crate::volumes::find::{self, Found, Named};
use crate::volumes::scratch::{Ground, Offer};
use crate::volumes::slot::{Slot, State};

impl Serving {
    /// The leg that a volume is attached by.
    pub(super) fn to_attach(&self, volume: &str) -> Result<Found, AttachError> {
        let objects: Vec<&PoolLeg> = self.legs.iter().map(|(_, leg)| leg).collect();
        let there = find::of_volume(&self.open_drives(), volume);
        let found = find::to_attach(volume, there, &objects, self.legs.synced());
        found.map_err(|error| self.not_yet(volume, error))
    }

    /// The leg of a volume that has these bytes.
    pub(super) fn leg(&self, volume: &str, uuid: Uuid) -> Result<Found, AttachError> {
        let there = find::of_volume(&self.open_drives(), volume);
        let mut there = there.into_iter();
        match there.find(|(_, record)| record.uuid == uuid) {
            Some(((name, drive), record)) => Ok(Found {
                drive,
                name,
                leg: record.name,
                // What limits the volume limits its array.
                limits: IoLimits::default(),
            }),
            None => {
                let error = AttachError::NotHere {
                    volume: volume.to_owned(),
                };
                Err(self.not_yet(volume, error))
            }
        }
    }

    /// The legs of a volume that may be attached.
    pub(super) fn attachments(&self, volume: &str) -> Attachments {
        let found = find::of_volume(&self.open_drives(), volume);
        if found.is_empty() {
            let error = AttachError::NotHere {
                volume: volume.to_owned(),
            };
            return Err((self.not_yet(volume, error), self.unserved_legs(volume)));
        }
        let found = found.into_iter().map(|((name, drive), record)| Found {
            drive,
            name,
            leg: record.name,
            limits: IoLimits::default(),
        });
        Ok(found.collect())
    }

    /// Where scratch space is, and where it can be made.
    pub(super) fn ground(&self) -> Ground {
        let offers = self.slots.iter().filter_map(|(name, slot)| {
            let pool = slot.owned.pool_name.clone();
            Some(Offer {
                drive: Arc::clone(slot.open()?),
                closed: self.wanted.cordoned.contains(name)
                    || slot.ailment.is_some()
                    || slot.holds > 0,
                thin: self.wanted.thin_pools.contains(&pool),
                name: name.clone(),
                pool,
            })
        });
        Ground {
            offers: offers.collect(),
            rights: self.wanted.rights.clone(),
            waits_for: self.waits_for(),
        }
    }

    /// What keeps it from being known which legs are on this node.
    fn waits_for(&self) -> Option<String> {
        if !self.wanted.settled {
            return Some("this node's drives are not all known yet".to_owned());
        }
        let pending = self.slots.iter().find(|(_, slot)| slot.pending());
        pending.map(|(name, _)| format!("drive {name} is not served yet"))
    }

    pub(super) fn open_drives(&self) -> Vec<Named> {
        let open = self
            .slots
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), Arc::clone(slot.open()?))));
        open.collect()
    }

    /// What is not found may only not have been found yet.
    fn not_yet(&self, volume: &str, error: AttachError) -> AttachError {
        if !matches!(error, AttachError::NotHere { .. }) {
            return error;
        }
        let why = if let Some(why) = self.waits_for() {
            why
        } else {
            let of_volume =
                |leg: &&PoolLeg| leg.spec.volume == volume && leg.spec.snapshot.is_none();
            let leg = self.legs.iter().map(|(_, leg)| leg).find(of_volume);
            match leg.and_then(|leg| Some((leg, self.slots.get(&leg.spec.drive)?))) {
                Some((
                    leg,
                    Slot {
                        state: State::Failed { why, .. },
                        ..
                    },
                )) => {
                    format!("drive {} is not served: {why}", leg.spec.drive)
                }
                _ => return error,
            }
        };
        AttachError::NotYet {
            volume: volume.to_owned(),
            why,
        }
    }

    /// Legs of a volume on drives that could not be opened.
    fn unserved_legs(&self, volume: &str) -> Vec<Unserved> {
        let of_volume = |leg: &PoolLeg| leg.spec.volume == volume && leg.spec.snapshot.is_none();
        let legs = self.legs.iter().filter(|(_, leg)| of_volume(leg));
        legs.filter_map(|(name, leg)| {
            let slot = self.slots.get(&leg.spec.drive)?;
            let failed = matches!(slot.state, State::Failed { .. });
            failed.then(|| (slot.owned.drive_id, name.clone()))
        })
        .collect()
    }
}
