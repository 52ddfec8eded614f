//! Getting and putting one block across owners.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::FutureExt;
use futures::future::{join, join_all};
use strand_context_store::{Namespace, Span};
use strand_kv_client::arena::{GetSlot, PutBytes};
use strand_kv_client::frame::Code;
use strand_kv_client::slots::SLOT;
use strand_kv_door::{Landed, Life, Put, PutOptions, Refused, Room, StoreArena};

use crate::frame::{Key, Reply, Request};
use crate::ledger::Full;
use crate::link::{Got, Lost};
use crate::owners::{Place, Places};
use crate::rack::{Rack, Settled, spot};
use crate::readable::{Readable, Role};

/// How often a value is asked for again that is longer than the room for it. A second time is the rule, for values of
/// more than a slot.
const LOOKS: usize = 4;

type Found = Option<Landed<StoreArena>>;

/// A value to be put.
pub(crate) enum Bytes {
    /// A pod's, in its arena.
    Pod(Arc<PutBytes<StoreArena>>),
    /// The agent's own, in chunks.
    Own(Vec<Span>),
}

impl Bytes {
    fn spans(&self) -> Result<Vec<Span>, Refused> {
        match self {
            Self::Pod(bytes) => Ok(vec![StoreArena::source(bytes)?]),
            Self::Own(spans) => Ok(spans.clone()),
        }
    }
}

/// Why a place did not take a block.
enum Untaken {
    /// It is away: what it has of the key must go.
    Away,
    /// It refused for good.
    Refused(Refused),
}

impl Rack {
    pub(crate) async fn read(
        &self,
        namespace: Namespace,
        key: &[u8],
        room: &Room<StoreArena>,
    ) -> Result<Found, Refused> {
        let mut readable = Readable::new(self.places(namespace, key));
        while let Some((role, place)) = readable.turn(self) {
            let found = if self.is_here(&place.node) {
                self.read_here(&place, namespace, key, room).await?
            } else {
                self.read_there(&place, namespace, key, room).await?
            };
            if found.is_some() {
                match role {
                    Role::Owner => {}
                    Role::Next => _ = self.tally().next_hits.fetch_add(1, Relaxed),
                    Role::Former => _ = self.tally().former_hits.fetch_add(1, Relaxed),
                }
                return Ok(found);
            }
        }
        self.tally().misses.fetch_add(1, Relaxed);
        Ok(None)
    }

    async fn read_here(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        room: &Room<StoreArena>,
    ) -> Result<Found, Refused> {
        let Some(blocks) = self.drive(place) else {
            return Ok(None);
        };
        match blocks.read(namespace, key, room).await {
            // The drive's trouble is a miss; another owner may have the block.
            Err(refused) if refused.code == Code::Store => Ok(None),
            Ok(Some(landed)) => {
                self.tally().local_hits.fetch_add(1, Relaxed);
                Ok(Some(landed))
            }
            other => other,
        }
    }

    async fn read_there(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        room: &Room<StoreArena>,
    ) -> Result<Found, Refused> {
        let Some(peer) = self.peer(&place.node) else {
            return Ok(None);
        };
        let found = self.fetch(place, namespace, key, room).await;
        let count = match &found {
            Ok(Some(_)) => &peer.tally.hits,
            _ => &peer.tally.misses,
        };
        count.fetch_add(1, Relaxed);
        found
    }

    /// A value that fits a slot comes with one round trip: there is a slot for it before it is asked for. A longer one is
    /// asked for again, once there is room and credit for it.
    async fn fetch(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        room: &Room<StoreArena>,
    ) -> Result<Found, Refused> {
        let Ok(link) = self.link(&place.node).await else {
            return Ok(None);
        };
        let mut credit = self.credit(SLOT).await;
        // A slot that is free now; one that has to be waited for is only taken for a value that is there.
        let mut slot = match room.take(1).now_or_never() {
            Some(Ok(slot)) => Some(Arc::new(slot)),
            Some(Err(_)) | None => None,
        };
        for _ in 0..LOOKS {
            let landing = slot.as_ref().map(StoreArena::landing).transpose()?;
            let at = Key {
                drive: place.drive,
                key: key.to_vec(),
            };
            match link.get(namespace, at, landing).await {
                Ok(Got::Landed(length)) => {
                    drop(credit);
                    self.answers(place);
                    return Ok(landed(slot, length));
                }
                Ok(Got::Longer(length)) => {
                    // Given back before more is asked for, and room before credit: a pod that frees no slots keeps its
                    // own gets waiting, and nobody waits for credit that one of those holds.
                    drop((slot.take(), credit.take()));
                    slot = Some(Arc::new(room.take(length as u64).await?));
                    credit = self.credit(length).await;
                }
                Ok(Got::Refused(refused)) => {
                    tracing::debug!(node = %place.node, %refused, "a peer refused to read a block");
                    return Ok(None);
                }
                Ok(Got::Away) => {
                    self.lacks(place);
                    return Ok(None);
                }
                Ok(Got::Miss) => {
                    self.answers(place);
                    return Ok(None);
                }
                Err(Lost) => return Ok(None),
            }
        }
        Ok(None)
    }

    pub(crate) async fn write(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: Bytes,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let places = self.places(namespace, key);
        if options.only_if_absent && self.is_elsewhere(&places, namespace, key).await {
            return Ok(Put::Present);
        }
        let owners = places.owners.iter();
        let puts = owners.map(|place| self.write_at(place, namespace, key, &value, options));
        let (mut outcomes, ()) = join(
            join_all(puts),
            self.clear(
                places.former.iter().chain(&places.former_next),
                namespace,
                key,
            ),
        )
        .await;
        let mut diverted = false;
        for (place, outcome) in places.owners.iter().zip(&mut outcomes) {
            if !matches!(outcome, Err(Untaken::Away)) {
                continue;
            }
            // What the owner still has of the key is never served again, or the block is not put.
            let next = places.next.as_ref().filter(|_| !diverted);
            match self.settle(place, namespace, key, next).await {
                Ok(Settled::Later) => {}
                // It is back already, without the block.
                Ok(Settled::Now) => {
                    *outcome = Ok(Put::Dropped);
                    continue;
                }
                Err(Full) => return Ok(Put::Dropped),
            }
            if let Some(next) = next {
                diverted = true;
                let options = PutOptions {
                    life: self.shorter(options.life),
                    ..options
                };
                *outcome = self.write_at(next, namespace, key, &value, options).await;
                if let Err(Untaken::Away) = outcome {
                    self.clear(std::iter::once(next), namespace, key).await;
                } else {
                    self.tally().diverted.fetch_add(1, Relaxed);
                }
            }
        }
        if !diverted && places.owners.iter().any(|place| self.was_away(place)) {
            self.clear(places.next.iter(), namespace, key).await;
        }
        self.outcome(&places, outcomes, namespace, key).await
    }

    /// What the first owner that is there says. A copy that was not taken must not be an older one.
    async fn outcome(
        &self,
        places: &Places,
        outcomes: Vec<Result<Put, Untaken>>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Put, Refused> {
        let mut said = None;
        for (place, outcome) in places.owners.iter().zip(outcomes) {
            match (&said, outcome) {
                (None, Ok(put)) => said = Some(put),
                (None, Err(Untaken::Refused(refused))) => return Err(refused),
                (Some(Put::Stored), Ok(Put::Dropped) | Err(Untaken::Refused(_))) => {
                    self.clear(std::iter::once(place), namespace, key).await;
                }
                _ => {}
            }
        }
        Ok(said.unwrap_or(Put::Dropped))
    }

    async fn write_at(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        value: &Bytes,
        options: PutOptions,
    ) -> Result<Put, Untaken> {
        if self.is_here(&place.node) {
            let blocks = self.drive(place).ok_or(Untaken::Away)?;
            let put = match value {
                Bytes::Pod(bytes) => blocks.write(namespace, key, bytes, options).await,
                Bytes::Own(spans) => {
                    blocks
                        .write_spans(namespace, key, spans.clone(), options)
                        .await
                }
            };
            return put.map_err(Untaken::Refused);
        }
        let spans = value.spans().map_err(Untaken::Refused)?;
        let link = (self.link(&place.node).await).map_err(|Lost| Untaken::Away)?;
        let at = Key {
            drive: place.drive,
            key: key.to_vec(),
        };
        match link.put(namespace, at, spans, options).await {
            Ok(Reply::Stored) => {
                self.answers(place);
                Ok(Put::Stored)
            }
            Ok(Reply::Present) => Ok(Put::Present),
            Ok(Reply::Refused(refused)) => Err(Untaken::Refused(refused)),
            Ok(Reply::Away) => {
                self.lacks(place);
                Err(Untaken::Away)
            }
            Ok(_) => Ok(Put::Dropped),
            Err(Lost) => {
                // What became of it is not known: the peer is asked nothing more before that is settled.
                link.end();
                Err(Untaken::Away)
            }
        }
    }

    /// Deletes what places beside the owners may have of a key, now or once they are back.
    async fn clear(&self, places: impl Iterator<Item = &Place>, namespace: Namespace, key: &[u8]) {
        let clear = |place| async move {
            if self.settle(place, namespace, key, None).await.is_err() {
                self.ledger().shun(place);
            }
        };
        join_all(places.map(clear)).await;
    }

    /// Whether a key is at a place other than its first owner.
    async fn is_elsewhere(&self, places: &Places, namespace: Namespace, key: &[u8]) -> bool {
        let mut readable = Readable::new(places.clone());
        let _first = readable.turn(self);
        while let Some((_, place)) = readable.turn(self) {
            let spot = spot(&place, namespace, key);
            let there = if self.is_here(&place.node) {
                let described = self.host().drives.describe(&spot).await;
                matches!(described, Some(Ok(Some(_))))
            } else {
                let reply = self.ask(&place.node, &Request::Describe(spot)).await;
                matches!(reply, Ok(Reply::Described(_)))
            };
            if there {
                return true;
            }
        }
        false
    }

    /// A block that is put beside its owner lives no longer than it is looked for there.
    fn shorter(&self, life: Life) -> Life {
        let memory = self.options().memory;
        Life::For(match life {
            Life::Policy | Life::Endless => memory,
            Life::For(life) => life.min(memory),
        })
    }
}

fn landed(slot: Option<Arc<GetSlot<StoreArena>>>, length: usize) -> Found {
    slot.map(|slot| Landed { slot, length })
}
