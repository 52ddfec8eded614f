//! Questions about blocks that need no transfer, or next to none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Found;
use crate::engine::queue::Flow;
use crate::error::StoreError;
use crate::hash::Fingerprint;
use crate::latency::Operation;
use crate::namespaces::Namespace;
use crate::record::{MAX_META, Meta};
use crate::store::{Shared, Store, check_key};

/// Some of a namespace's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys, in no order that means anything.
    pub keys: Vec<Vec<u8>>,
    /// Where to go on; 0: that was all.
    pub cursor: u64,
}

/// Keeps a block from being evicted. It may still be deleted, replaced or expire.
pub struct Pin {
    shared: Arc<Shared>,
    fingerprint: Fingerprint,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pin")
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut core = self.shared.core();
        if let Some(count) = core.pins.get_mut(&self.fingerprint) {
            *count -= 1;
            if *count == 0 {
                core.pins.remove(&self.fingerprint);
            }
        }
    }
}

impl Store {
    /// Bytes of a block's value; none where there is no such block. Grants nothing.
    #[must_use]
    pub fn len_of(&self, namespace: Namespace, key: &[u8]) -> Option<usize> {
        let (now, fingerprint) = (self.shared.now(), self.shared.fingerprint(namespace, key));
        let entry = self.shared.core().live(namespace, fingerprint, now)?;
        Some(entry.len as usize)
    }

    /// Bytes of a block's value that is to be read next; where there is no such block the miss is counted. Grants nothing.
    #[must_use]
    pub fn len_to_read(&self, namespace: Namespace, key: &[u8]) -> Option<usize> {
        let (now, fingerprint) = (self.shared.now(), self.shared.fingerprint(namespace, key));
        let mut core = self.shared.core();
        let entry = core.live(namespace, fingerprint, now);
        if entry.is_none() {
            core.missed(namespace, fingerprint, now);
        }
        Some(entry?.len as usize)
    }

    /// How long a block still lives: none where there is no such block, none inside where it has no end.
    #[must_use]
    pub fn expires_in(&self, namespace: Namespace, key: &[u8]) -> Option<Option<Duration>> {
        let (now, fingerprint) = (self.shared.now(), self.shared.fingerprint(namespace, key));
        let entry = self.shared.core().live(namespace, fingerprint, now)?;
        Some(now.left(now.widen(entry.expiry)))
    }

    /// Whether a block is there. If so it is leased for [`crate::LEASE`]: it is not evicted meanwhile, as long as the
    /// namespace's leases hold at most a tenth of its share.
    #[must_use]
    pub fn exists(&self, namespace: Namespace, key: &[u8]) -> bool {
        self.exists_many(namespace, &[key]).first() == Some(&true)
    }

    /// [`Store::exists`] for each of many keys, in their order. The keys are taken for a sequence whose front is worth
    /// most: the last is touched first.
    #[must_use]
    pub fn exists_many(&self, namespace: Namespace, keys: &[&[u8]]) -> Vec<bool> {
        let began = Instant::now();
        let now = self.shared.now();
        let mut core = self.shared.core();
        let mut there: Vec<bool> = keys
            .iter()
            .rev()
            .map(|key| {
                let fingerprint =
                    (core.fingerprint)(&self.shared.superblock.secret, namespace, key);
                let Some(entry) = core.live(namespace, fingerprint, now) else {
                    return false;
                };
                core.touch(fingerprint, entry);
                core.lease(fingerprint, &entry, now);
                true
            })
            .collect();
        let took = began.elapsed();
        core.namespaces.took(namespace, Operation::Exists, took);
        there.reverse();
        there
    }

    /// How many of the first keys are there without a gap; those are leased and touched, the last one first.
    #[must_use]
    pub fn longest_run(&self, namespace: Namespace, keys: &[&[u8]]) -> usize {
        let now = self.shared.now();
        let run = {
            let mut core = self.shared.core();
            keys.iter()
                .take_while(|key| {
                    let fingerprint =
                        (core.fingerprint)(&self.shared.superblock.secret, namespace, key);
                    core.live(namespace, fingerprint, now).is_some()
                })
                .count()
        };
        let _leased = self.exists_many(namespace, &keys[..run]);
        run
    }

    /// Marks a batch as used, the last key first: call it after the batch was read or written, so that its front outlives
    /// its end.
    pub fn touch_run(&self, namespace: Namespace, keys: &[&[u8]]) {
        let now = self.shared.now();
        let mut core = self.shared.core();
        for key in keys.iter().rev() {
            let fingerprint = (core.fingerprint)(&self.shared.superblock.secret, namespace, key);
            if let Some(entry) = core.live(namespace, fingerprint, now) {
                core.touch(fingerprint, entry);
            }
        }
    }

    /// Keeps a block from being evicted until the pin is dropped; none where there is no such block. Pins are for the
    /// agent's own moves: whoever pins much makes puts drop.
    #[must_use]
    pub fn pin(&self, namespace: Namespace, key: &[u8]) -> Option<Pin> {
        let (now, fingerprint) = (self.shared.now(), self.shared.fingerprint(namespace, key));
        let mut core = self.shared.core();
        core.live(namespace, fingerprint, now)?;
        *core.pins.entry(fingerprint).or_default() += 1;
        drop(core);
        Some(Pin {
            shared: Arc::clone(&self.shared),
            fingerprint,
        })
    }

    /// Some keys of a namespace, from a cursor on (0: from the start). Keys are not kept in memory: each costs a read of
    /// its record's first page. A key that is there all the while is seen once; others may or may not be.
    ///
    /// # Errors
    /// The drive failed.
    pub async fn scan(
        &self,
        namespace: Namespace,
        cursor: u64,
        count: usize,
    ) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let (found, next) = self.shared.scan_index(namespace, cursor, count.max(1));
        for found in found {
            let reading = self.shared.reading(found);
            let flow = Flow {
                id: u32::from(found.entry.owner),
                weight: found.weight,
            };
            let bytes = self.shared.read_meta(&found, flow, MAX_META).await?;
            let decoded = Meta::decode(
                &bytes,
                &self.shared.superblock.secret,
                found.nonce,
                found.entry.place,
            );
            if let Some((meta, _)) = decoded
                && meta.namespace == namespace
                && check_key(&meta.key).is_ok()
            {
                page.keys.push(meta.key);
            }
            drop(reading);
        }
        page.cursor = next;
        Ok(page)
    }
}

impl Shared {
    /// Up to `count` blocks of a namespace from a cursor on, each with a reader, and the next cursor: the first eight
    /// bytes of the last fingerprint, plus one.
    fn scan_index(&self, namespace: Namespace, cursor: u64, count: usize) -> (Vec<Found>, u64) {
        let now = self.now();
        let mut core = self.core();
        let mut start = Fingerprint([0; 12]);
        start.0[..8].copy_from_slice(&cursor.to_be_bytes());
        let mut prints = Vec::new();
        if let Some(slot) = core.namespaces.find(namespace) {
            for shard in core.index.shard_of(start)..core.index.shards() {
                let blocks = core
                    .index
                    .shard(shard)
                    .filter(|(print, entry)| *print >= start && entry.owner == slot)
                    .map(|(print, _)| print);
                prints.extend(blocks.take(count + 1 - prints.len()));
                if prints.len() > count {
                    break;
                }
            }
        }
        let next = if prints.len() > count {
            prints.pop()
        } else {
            None
        };
        let next = next.map_or(0, |print| {
            u64::from_be_bytes(print.0[..8].try_into().unwrap_or_default())
        });
        let found = prints
            .into_iter()
            .filter_map(|print| core.begin_read(namespace, print, now))
            .collect();
        (found, next)
    }
}
