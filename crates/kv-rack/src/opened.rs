//! A block that is read in parts, wherever it lies.

use std::sync::Arc;

use strand_context_store::Namespace;
use strand_kv_client::arena::GetSlot;
use strand_kv_client::slots::SLOT;
use strand_kv_door::{Blocks, Landed, Opened, OpenedValue, Refused, StoreArena};

use crate::frame::{Reply, Request, Spot};
use crate::link::Got;
use crate::rack::{Rack, spot};
use crate::readable::Readable;

/// See [`Blocks::open`].
#[derive(Debug)]
pub struct OpenedBlock(At);

#[derive(Debug)]
enum At {
    Here(OpenedValue),
    There(Remote),
}

/// Each part is asked for by itself: the owner keeps nothing for it but a lease.
#[derive(Debug)]
struct Remote {
    rack: Rack,
    node: Arc<str>,
    spot: Spot,
    length: u64,
    digest: u64,
}

impl Opened<StoreArena> for OpenedBlock {
    fn length(&self) -> u64 {
        match &self.0 {
            At::Here(value) => value.length(),
            At::There(remote) => remote.length,
        }
    }

    fn digest(&self) -> u64 {
        match &self.0 {
            At::Here(value) => value.digest(),
            At::There(remote) => remote.digest,
        }
    }

    async fn read(
        &self,
        number: u64,
        slot: GetSlot<StoreArena>,
    ) -> Result<Option<Landed<StoreArena>>, Refused> {
        match &self.0 {
            At::Here(value) => value.read(number, slot).await,
            At::There(remote) => remote.read(number, slot).await,
        }
    }
}

impl Remote {
    async fn read(
        &self,
        number: u64,
        slot: GetSlot<StoreArena>,
    ) -> Result<Option<Landed<StoreArena>>, Refused> {
        let Ok(number) = u32::try_from(number) else {
            return Ok(None);
        };
        let slot = Arc::new(slot);
        let Ok(link) = self.rack.link(&self.node).await else {
            return Ok(None);
        };
        let _credit = self.rack.credit(SLOT).await;
        let landing = StoreArena::landing(&slot)?;
        let part = link.part(self.spot.clone(), number, self.digest, landing);
        Ok(match part.await {
            Ok(Got::Landed(length)) => Some(Landed { slot, length }),
            _ => None,
        })
    }
}

impl Rack {
    pub(crate) async fn open_block(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<OpenedBlock>, Refused> {
        let mut readable = Readable::new(self.places(namespace, key));
        while let Some((_, place)) = readable.turn(self) {
            if self.is_here(&place.node) {
                let Some(blocks) = self.drive(&place) else {
                    continue;
                };
                if let Some(value) = blocks.open(namespace, key).await? {
                    return Ok(Some(OpenedBlock(At::Here(value))));
                }
                continue;
            }
            let spot = spot(&place, namespace, key);
            let reply = self.ask(&place.node, &Request::Open(spot.clone())).await;
            if let Ok(Reply::Opened(length, digest)) = reply {
                let remote = Remote {
                    rack: self.clone(),
                    node: place.node,
                    spot,
                    length,
                    digest,
                };
                return Ok(Some(OpenedBlock(At::There(remote))));
            }
        }
        Ok(None)
    }
}
