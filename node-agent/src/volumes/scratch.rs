//! Scratch space of pods: legs that no object speaks of, made and deleted over the node's socket. Each lives as long as the directory in
//! which its pod sees it; the node's CSI part has an eye on that (docs/decisions/0015).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strand_placement::access::{Denied, NotGranted, Rights};
use strand_volumes::{
    Drive, LegOrder, LegRecord, LegSource, Provisioning, Redundancy, VolumeError, VolumeMode,
};
use tokio::sync::oneshot;

use super::serving::Ask;
use super::{AttachError, AttachedVolume, Volumes, blocking, ending};

/// Scratch space that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScratchRequest {
    /// The MemoryPool on whose drives it lies.
    pub pool: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Bytes.
    pub size: u64,
    /// The directory in which its pod sees it.
    pub target: PathBuf,
}

/// Scratch space that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScratchReport {
    /// Its id.
    pub id: String,
    /// The directory in which its pod sees it.
    pub target: PathBuf,
}

/// A drive that could hold some.
pub(super) struct Offer {
    pub name: String,
    pub drive: Arc<Drive>,
    pub pool: String,
    /// It takes no new legs.
    pub closed: bool,
    /// Whether its pool's volumes are thin where nothing else is asked for.
    pub thin: bool,
}

/// Where scratch space is, and where it can be made.
pub(super) struct Ground {
    pub offers: Vec<Offer>,
    /// Who may use the pools, by their names.
    pub rights: BTreeMap<String, Rights>,
    /// What is not known yet.
    pub waits_for: Option<String>,
}

/// The largest leg that fits a drive, and its kind: that of the legs that are there, or else the pool's.
struct Room {
    index: usize,
    kind: Provisioning,
    largest: u64,
}

impl Ground {
    /// The legs of one id, or of all, with the drives that they lie on. One that is attached comes first.
    fn legs(&self, id: Option<&str>) -> Vec<(&Offer, LegRecord)> {
        let mut found = Vec::new();
        for offer in &self.offers {
            // A drive that was closed meanwhile has none.
            for record in offer.drive.records().unwrap_or_default() {
                if record.scratch.is_some() && id.is_none_or(|id| record.volume == id) {
                    found.push((offer, record));
                }
            }
        }
        found.sort_by_key(|(_, record)| record.attached.is_none());
        found
    }

    /// The drive with the most room, for who may use the pool: whoever may make pods can write the inline volume.
    fn choose(&self, request: &ScratchRequest) -> Result<(&Offer, Provisioning), AttachError> {
        let refuse = |why: String| AttachError::NoRoom {
            wanted: request.size,
            pool: request.pool.clone(),
            why,
        };
        let rights = self.rights.get(&request.pool).ok_or(Denied::NoPool);
        match rights.and_then(|rights| rights.share(&request.namespace)) {
            Ok(_) => {}
            Err(Denied::NoPool) => {
                let why = "there is no MemoryPool of that name, or it is being deleted";
                return Err(refuse(why.into()));
            }
            Err(Denied::NotGranted) => {
                return Err(AttachError::Denied(NotGranted {
                    pool: request.pool.clone(),
                    namespace: request.namespace.clone(),
                }));
            }
        }
        let open = |offer: &&Offer| offer.pool == request.pool && !offer.closed;
        let offers: Vec<&Offer> = self.offers.iter().filter(open).collect();
        let rooms = offers.iter().enumerate().filter_map(|(index, offer)| {
            let space = offer.drive.space().ok()?;
            let kind = space.kind.unwrap_or(match offer.thin {
                true => Provisioning::Thin,
                false => Provisioning::Thick,
            });
            let largest = match kind {
                Provisioning::Thick => space.largest.0,
                // What is not free now would fail as it is written.
                Provisioning::Thin => space.largest.1.min(space.free),
            };
            Some(Room {
                index,
                kind,
                largest,
            })
        });
        let Some(room) = rooms.max_by_key(|room| room.largest) else {
            return Err(refuse("none of them takes new volumes".into()));
        };
        let offer = offers[room.index];
        match room.largest >= request.size {
            true => Ok((offer, room.kind)),
            false => Err(refuse(format!(
                "the largest that fits is {} bytes, on drive {}",
                room.largest, offer.name
            ))),
        }
    }
}

/// An attachment of scratch space has no other that it could be mistaken for.
const GENERATION: u64 = 1;

impl Volumes {
    async fn ground(&self, id: &str) -> Result<Ground, AttachError> {
        let (answer, ground) = oneshot::channel();
        self.ask(Ask::Scratch(answer));
        ground.await.map_err(|_| ending(id))
    }

    /// Makes scratch space a block device of this node; what is there of that id stays as it is. It is blank where it was made now.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::NoRoom`] where no drive has room for it.
    pub async fn scratch(
        &self,
        id: &str,
        request: ScratchRequest,
    ) -> Result<AttachedVolume, AttachError> {
        let ground = self.ground(id).await?;
        let there = ground.legs(Some(id)).into_iter().next();
        let (offer, order) = match (there, &ground.waits_for) {
            (Some((offer, record)), _) => (offer, Err(record.name)),
            // It may lie on a drive that is not open yet.
            (None, Some(why)) => {
                return Err(AttachError::NotYet {
                    volume: id.to_owned(),
                    why: why.clone(),
                });
            }
            (None, None) => {
                let (offer, kind) = ground.choose(&request)?;
                (offer, Ok(order(id, request, kind)))
            }
        };
        let drive = Arc::clone(&offer.drive);
        let attached = blocking(id, move || {
            let leg = match order {
                Ok(order) => drive.make(&order)?.name,
                Err(there) => there,
            };
            Ok(drive.attach(&leg, GENERATION, false)?)
        });
        let attached = attached.await;
        self.ask(Ask::Look(offer.name.clone()));
        Ok(AttachedVolume {
            device: attached?.device,
        })
    }

    /// Takes scratch space away, its bytes too; done already where there is none.
    ///
    /// # Errors
    /// [`AttachError`]; [`VolumeError::Busy`] while it is mounted.
    pub async fn end_scratch(&self, id: &str) -> Result<(), AttachError> {
        let ground = self.ground(id).await?;
        for (offer, record) in ground.legs(Some(id)) {
            let drive = Arc::clone(&offer.drive);
            let ended = blocking(id, move || {
                drive.detach(&record.name)?;
                Ok(drive.delete(&record.name, record.uuid)?)
            });
            match ended.await {
                Err(AttachError::Volume(VolumeError::NotFound { .. })) => {}
                ended => ended?,
            }
            self.ask(Ask::Look(offer.name.clone()));
        }
        Ok(())
    }

    /// The scratch space on all open drives.
    ///
    /// # Errors
    /// [`AttachError::NotYet`] while the agent ends.
    pub async fn all_scratch(&self) -> Result<Vec<ScratchReport>, AttachError> {
        let ground = self.ground("scratch").await?;
        let report = |(_, record): (&Offer, LegRecord)| {
            Some(ScratchReport {
                id: record.volume,
                target: record.scratch?,
            })
        };
        Ok(ground.legs(None).into_iter().filter_map(report).collect())
    }
}

fn order(id: &str, request: ScratchRequest, provisioning: Provisioning) -> LegOrder {
    LegOrder {
        name: format!("scratch-{id}"),
        volume: id.to_owned(),
        snapshot: None,
        scratch: Some(request.target),
        owner_uid: String::new(),
        index: 0,
        size: request.size,
        provisioning,
        redundancy: Redundancy::None,
        array: None,
        mode: Some(VolumeMode::Filesystem),
        source: LegSource::Zeroes,
    }
}
