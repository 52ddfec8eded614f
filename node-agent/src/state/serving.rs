//! What the drives serve: blocks and volumes, as objects and drives have it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Entry, State};
use kube::ResourceExt;
use strand_api::Provisioning;
use strand_placement::carve::Role;
use strand_placement::verdict::{LabelState, Verdict};
use uuid::Uuid;

use crate::context::{DriveStanding, Wanted, WantedPool};
use crate::volumes::{self};

impl State {
    /// Says what context memory shall serve, where that has changed.
    pub(super) fn serve_context(&mut self, now: Instant) {
        let Some(context) = &self.context else {
            return;
        };
        let wanted = self.wanted(now);
        if wanted != self.wanted {
            context.serve(wanted.clone());
            self.wanted = wanted;
        }
    }

    /// Says what volumes shall be served from, where that has changed. A drive that is failed by its verdict goes on: its volumes are
    /// still in use.
    pub(super) fn serve_volumes(&mut self) {
        let Some(volumes) = &self.volumes else {
            return;
        };
        let owned = self.drives.iter().filter_map(|(name, entry)| {
            let owned = entry.memory.owned.as_ref()?;
            let serves = self.mirror.index.known.contains(&owned.pool_id)
                && owned.state == LabelState::Carved
                && owned.partition(Role::Storage).is_some();
            serves.then(|| (name.clone(), owned.clone()))
        });
        let gone = self
            .drives
            .iter()
            .filter(|(_, entry)| entry.memory.seen.is_none());
        let unknown = |entry: &Entry| {
            let memory = &entry.memory;
            memory.seen.is_some()
                && memory.owned.is_none()
                && memory.trouble.is_none()
                && match &memory.observation {
                    None => true,
                    Some(_) => memory
                        .label()
                        .is_some_and(|label| self.mirror.index.known.contains(&label.pool_id)),
                }
        };
        let cordoned = self.mirror.drives.iter();
        let cordoned = cordoned.filter(|(_, drive)| drive.spec.cordon);
        let thin = self.mirror.index.iter();
        let thin = thin.filter(|(_, pool)| pool.spec.storage.provisioning == Provisioning::Thin);
        let rights = self.mirror.index.iter();
        let rights =
            rights.filter_map(|(_, pool)| Some((pool.name_any(), self.mirror.rights(pool)?)));
        let wanted = volumes::Wanted {
            drives: owned.collect(),
            cordoned: cordoned.map(|(name, _)| name.clone()).collect(),
            thin_pools: thin.map(|(_, pool)| pool.name_any()).collect(),
            rights: rights.collect(),
            gone: match self.scanning.done {
                true => gone.map(|(name, _)| name.clone()).collect(),
                false => Default::default(),
            },
            settled: self.settled() && !self.drives.values().any(unknown),
        };
        if wanted != self.wanted_volumes {
            volumes.serve(wanted.clone());
            self.wanted_volumes = wanted;
        }
    }

    pub(super) fn wanted(&self, now: Instant) -> Wanted {
        let newest = self.maps.newest();
        let map = |id: &Uuid| newest.get(id).map(|newest| newest.map.clone());
        let index = &self.mirror.index;
        let of_api = index.iter().map(|(id, pool)| {
            let wanted = WantedPool {
                name: pool.name_any(),
                policy: Some(pool.spec.context_memory.clone()),
                rights: self.mirror.rights(pool),
                map: map(id),
            };
            (*id, wanted)
        });
        // Before the API was seen, what the kept maps say.
        let remembered = index.known.0.iter().map(|(id, name)| {
            let wanted = WantedPool {
                name: name.clone(),
                policy: None,
                rights: None,
                map: map(id),
            };
            (*id, wanted)
        });
        let drives = self.drives.iter().filter_map(|(name, entry)| {
            let owned = entry.memory.owned.as_ref()?;
            let finding = entry.memory.finding(&index.known, now)?;
            let serves = finding.verdict == Verdict::Pooled
                && owned.state == LabelState::Carved
                && owned.partition(Role::Context).is_some();
            serves.then(|| (name.clone(), owned.clone()))
        });
        Wanted {
            pools: remembered.chain(of_api).collect(),
            drives: drives.collect(),
        }
    }

    /// Takes how context memory says that the drives stand.
    pub(crate) fn stands(&mut self, standing: BTreeMap<String, DriveStanding>) {
        for (name, drive) in &standing {
            if let Some(why) = &drive.failed
                && let Some(entry) = self.drives.get_mut(name)
            {
                entry.memory.taken_out = Some(why.clone());
            }
        }
        let used = standing.into_iter().map(|(name, drive)| (name, drive.used));
        self.context_used = used.collect();
    }
}
