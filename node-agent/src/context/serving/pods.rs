//! Doors of pods: opened, kept on record, opened again, closed.

use std::collections::btree_map::Entry;

use strand_placement::access::{Denied, NotGranted};

use super::Serving;
use crate::context::doors::{DoorRecord, DoorRequest};
use crate::context::pool::Pool;
use crate::context::wanted::WantedPool;
use crate::context::{DoorError, OpenDoor};

impl Serving {
    pub(super) fn reopen_doors(&mut self) {
        let Some(records) = self.kept.as_ref().map(|kept| kept.doors.clone()) else {
            return;
        };
        let doors = match records.all() {
            Ok(doors) => doors,
            Err(error) => {
                tracing::error!(%error, "the doors of this node's pods cannot be read; pods get misses until they are opened anew");
                return;
            }
        };
        for (id, record) in doors {
            // A pod that is gone took its directory along; its volume's unpublishing may have found no agent.
            let gone = !record.request.directory.is_dir();
            let opened = if gone {
                records.forget(&id).map_err(DoorError::from)
            } else {
                self.bind(&id, record).map(|_| ())
            };
            if let Err(error) = opened {
                tracing::error!(door = id, %error, "a pod's door cannot be opened again");
            }
        }
    }

    pub(super) fn open_door(
        &mut self,
        id: &str,
        request: DoorRequest,
    ) -> Result<OpenDoor, DoorError> {
        let known = self.pools.values().find_map(|pool| pool.door(id));
        if let Some(known) = known {
            return match known.same_door(&request) {
                true => Ok(OpenDoor::of(&request)),
                false => Err(DoorError::Differs { id: id.to_owned() }),
            };
        }
        let by_name = |wanted: &WantedPool| wanted.name == request.pool;
        let pool_id = self.wanted.pools.iter().find(|(_, pool)| by_name(pool));
        let Some((pool_id, pool)) = pool_id else {
            return Err(DoorError::NoPool { pool: request.pool });
        };
        // Admission has asked this too, but anybody may write the inline volume by hand, and admission is fail-open.
        may_use(pool, &request)?;
        let record = DoorRecord {
            pool_id: *pool_id,
            request,
        };
        if let Some(kept) = &self.kept {
            kept.doors.keep(id, &record)?;
        }
        let opened = self.bind(id, record);
        if opened.is_err()
            && let Some(kept) = &self.kept
        {
            kept.doors.forget(id)?;
        }
        opened
    }

    fn bind(&mut self, id: &str, record: DoorRecord) -> Result<OpenDoor, DoorError> {
        let DoorRecord { pool_id, request } = record;
        let pool = match self.pools.entry(pool_id) {
            Entry::Occupied(pool) => pool.into_mut(),
            Entry::Vacant(place) => {
                let policy = self.policies.of(&pool_id);
                let network = &self.network;
                let new = Pool::new(pool_id, &request.pool, &policy, network, &self.budget);
                place.insert(new.map_err(DoorError::Rack)?)
            }
        };
        let opened = pool.open_door(id, request);
        self.serve();
        opened
    }

    pub(super) fn close_door(&mut self, id: &str) -> Result<(), DoorError> {
        if let Some(kept) = &self.kept {
            kept.doors.forget(id)?;
        }
        for pool in self.pools.values_mut() {
            pool.close_door(id);
        }
        self.serve();
        Ok(())
    }
}

fn may_use(pool: &WantedPool, request: &DoorRequest) -> Result<(), DoorError> {
    let Some(rights) = &pool.rights else {
        return Err(DoorError::NotYet {
            pool: pool.name.clone(),
        });
    };
    match rights.share(&request.namespace) {
        Ok(_) => Ok(()),
        Err(Denied::NoPool) => Err(DoorError::NoPool {
            pool: pool.name.clone(),
        }),
        Err(Denied::NotGranted) => Err(DoorError::Denied(NotGranted {
            pool: pool.name.clone(),
            namespace: request.namespace.clone(),
        })),
    }
}
