//! What is shown of what is open, and what the agent is told of its drives.

use std::collections::BTreeMap;

use super::Serving;
use super::drives::{Joined, Slot};
use crate::context::pool::Pool;
use crate::context::report::{DriveStanding, DriveState, Open, OpenDrive};

impl Serving {
    /// Shows what is open.
    pub(super) fn show(&self) {
        let serving = self.slots.iter().map(|(name, slot)| {
            let pool = slot
                .drive()
                .and_then(|drive| self.pools.get(&drive.pool_id));
            let (state, message) = match slot {
                Slot::Opening(..) => (DriveState::Opening, None),
                Slot::Serving(serves) if serves.joined == Joined::Yes => {
                    (DriveState::Serving, None)
                }
                Slot::Serving(_) => (DriveState::Waiting, None),
                Slot::Closing => (DriveState::Closing, None),
                Slot::Failed { message, .. } => (DriveState::Failed, Some(message.clone())),
            };
            let serves = match slot {
                Slot::Serving(serves) => Some(serves),
                _ => None,
            };
            let open = OpenDrive {
                pool: pool.map_or_else(String::new, |pool| pool.name().to_owned()),
                state,
                message,
                store: serves.map(|serves| serves.store.clone()),
                recovery_seconds: serves.map(|serves| serves.recovery.took.as_secs_f64()),
            };
            (name.clone(), open)
        });
        let mut drives: BTreeMap<String, OpenDrive> = serving.collect();
        for (name, why) in &self.failed {
            let open = OpenDrive {
                pool: String::new(),
                state: DriveState::TakenOut,
                message: Some(why.clone()),
                store: None,
                recovery_seconds: None,
            };
            drives.insert(name.clone(), open);
        }
        self.shown.set(Open {
            drives,
            pools: self.pools.values().map(Pool::open).collect(),
        });
    }

    /// Tells the agent how its drives stand, where that has changed.
    pub(super) fn tell(&self) {
        let serving = self.slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Serving(serves) => Some((name.clone(), DriveStanding::of(&serves.store.stats()))),
            _ => None,
        });
        let failed = self
            .failed
            .iter()
            .map(|(name, why)| (name.clone(), DriveStanding::failed(why)));
        let standing: BTreeMap<String, DriveStanding> = serving.chain(failed).collect();
        self.standing.send_if_modified(|told| {
            let changed = *told != standing;
            *told = standing;
            changed
        });
    }
}
