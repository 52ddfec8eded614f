//! What plans are made from besides the drive itself.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use strand_api::{Drive, DriveOperation, MemoryPool};
use strand_drives::CarveOrder;
use strand_placement::carve::Split;
use strand_placement::verdict::KnownPools;
use uuid::Uuid;

use crate::memory::DriveMemory;
use crate::volumes::StorageStanding;

/// Both clocks at one moment.
#[derive(Clone, Debug)]
pub struct Now {
    /// For waiting.
    pub at: Instant,
    /// For people.
    pub wall: Time,
}

/// The cluster's pools by identity.
#[derive(Debug, Default)]
pub struct Pools {
    /// As the verdict needs them.
    pub known: KnownPools,
    by_id: BTreeMap<Uuid, MemoryPool>,
}

impl Pools {
    /// Of two pools with one identity the older has it.
    pub fn new<'a>(pools: impl Iterator<Item = &'a MemoryPool>) -> Self {
        let mut sorted: Vec<&MemoryPool> = pools.collect();
        sorted.sort_by_key(|pool| {
            let created = pool.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (created, pool.name_any())
        });
        let mut index = Self::default();
        for pool in sorted {
            let id = pool.spec.pool_id.as_deref().map(Uuid::parse_str);
            if let Some(Ok(id)) = id
                && !index.by_id.contains_key(&id)
            {
                index.known.0.insert(id, pool.name_any());
                index.by_id.insert(id, pool.clone());
            }
        }
        index
    }

    /// Pools of which no more than identity and name is known, from before the API was seen.
    pub fn remembered(names: impl Iterator<Item = (Uuid, String)>) -> Self {
        Self {
            known: KnownPools(names.collect()),
            by_id: BTreeMap::new(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &MemoryPool)> {
        self.by_id.iter()
    }

    /// The pool with this identity.
    pub fn get(&self, id: &Uuid) -> Option<&MemoryPool> {
        self.by_id.get(id)
    }
}

/// What one drive's plan is made from besides its memory.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Name of the drive's object.
    pub name: &'a str,
    /// The drive's object, if there is one.
    pub object: Option<&'a Drive>,
    /// The pools of this cluster.
    pub pools: &'a Pools,
    /// The oldest operation on this drive that has not ended.
    pub operation: Option<&'a DriveOperation>,
    /// Epoch of the stored map where the API's is missing or older, by pool id.
    pub ahead: &'a BTreeMap<String, i64>,
    /// Address at which this node serves its peers.
    pub peer_address: Option<&'a str>,
    /// Bytes that context memory holds on the drive, in sixteenths of its partition; none while that is not known.
    pub context_used: Option<u64>,
    /// How its storage side stands; none while that is not known.
    pub storage: Option<&'a StorageStanding>,
}

/// What the operator asks for, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// Name of the pool.
    pub pool: &'a str,
    /// Identity of the pool.
    pub pool_id: Uuid,
    /// How the drive shall be split.
    pub split: Split,
}

impl<'a> View<'a> {
    /// What the operator asks for, once it is complete.
    pub fn wish(&self) -> Option<Wish<'a>> {
        let spec = &self.object?.spec;
        Some(Wish {
            pool: spec.pool.as_deref()?,
            pool_id: Uuid::parse_str(spec.pool_id.as_deref()?).ok()?,
            split: Split {
                context_bytes: spec.carve?.context_memory.0,
            },
        })
    }

    /// Whether the object is there and not about to go.
    pub fn lasting(&self) -> bool {
        self.object
            .is_some_and(|object| object.metadata.deletion_timestamp.is_none())
    }

    /// The order to take the drive, if it may be taken now: asked for by a pool that exists and stays, not cordoned, not
    /// just given back, and no operation is about to change the drive.
    pub fn order(&self, memory: &DriveMemory) -> Option<CarveOrder> {
        let wish = self.wish()?;
        let object = self.object?;
        let pool = self.pools.get(&wish.pool_id)?;
        let may = self.lasting()
            && !object.spec.cordon
            && self.operation.is_none()
            && !crate::status::given_back(memory, self)
            && pool.name_any() == wish.pool
            && pool.metadata.deletion_timestamp.is_none();
        may.then(|| CarveOrder {
            pool_id: wish.pool_id,
            pool_name: wish.pool.into(),
            drive_id: memory.drive_id,
            split: wish.split,
        })
    }
}
