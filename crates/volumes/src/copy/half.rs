//! Copies that are not whole: what is left of them when nobody works on them.

use std::fs;

use tracing::warn;
use uuid::Uuid;

use super::{COPY, CopyOrder, CopyRecord, Half};
use crate::drive::{Drive, Inside, MAKING};
use crate::error::VolumeError;
use crate::legs::{DATA, remove_tree};
use crate::record::{self, LegRecord};

impl Drive {
    /// Says what is left of a copy that is not whole: it can be gone on with from where it `stopped`, or is of no use.
    pub(crate) fn settle(
        &self,
        order: &CopyOrder,
        stopped: CopyRecord,
        copied: Result<LegRecord, VolumeError>,
    ) -> Result<LegRecord, VolumeError> {
        if let Err(error) = &copied {
            let mut inside = self.inside()?;
            let gone = matches!(
                error,
                VolumeError::CopyEnded { .. } | VolumeError::Miscopied { .. }
            );
            match inside.copies.get_mut(&order.name) {
                Some(_) if gone => self.discard(&mut inside, &order.name, stopped.leg.uuid),
                Some(half) => {
                    *half = Half {
                        record: stopped,
                        busy: false,
                    }
                }
                None => {}
            }
        }
        copied
    }

    /// Takes away half-made copies that nobody asks for any more. One that is being worked on is left.
    ///
    /// # Errors
    /// [`VolumeError::NotOpen`].
    pub fn drop_copies(&self, wanted: impl Fn(&str) -> bool) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let left: Vec<(String, Uuid)> = inside
            .copies
            .iter()
            .filter(|(name, half)| !half.busy && !wanted(name))
            .map(|(name, half)| (name.clone(), half.record.leg.uuid))
            .collect();
        for (name, uuid) in left {
            self.discard(&mut inside, &name, uuid);
        }
        Ok(())
    }

    pub(super) fn discard(&self, inside: &mut Inside, name: &str, uuid: Uuid) {
        match remove_tree(&self.aside(MAKING, uuid)) {
            Ok(()) => {
                inside.copies.remove(name);
                inside.ledger.release(uuid);
            }
            Err(error) => warn!(%error, "what is left of a copy stays counted"),
        }
    }

    /// A copy that a killed process left, if this is one: it is kept, and counted.
    pub(crate) fn recover_copy(&self, directory: &str) -> bool {
        let path = self.root.join(MAKING).join(directory);
        let Ok(Some(record)) = record::read::<CopyRecord>(&path.join(COPY)) else {
            return false;
        };
        let sized = fs::metadata(path.join(DATA)).is_ok_and(|data| data.len() == record.leg.size);
        let Ok(mut inside) = self.inside() else {
            return false;
        };
        let leg = &record.leg;
        if !sized || leg.uuid.to_string() != directory || inside.copies.contains_key(&leg.name) {
            return false;
        }
        inside
            .ledger
            .count(leg.uuid, leg.size, Some(leg.provisioning));
        let name = leg.name.clone();
        let busy = false;
        inside.copies.insert(name, Half { record, busy });
        true
    }
}
