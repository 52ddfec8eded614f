//! Blocks in this process's memory: for tests of everything in front of the store.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strand_context_store::Span;
use strand_kv_client::arena::{GetSlot, Memory, PutBytes};

use crate::blocks::{Blocks, Described, Landed, Life, Opened, PART, Page, Put, PutOptions, Totals};
use crate::{Namespace, Refused, Room};

/// Keeps everything until it is deleted or expires.
#[derive(Debug, Default)]
pub struct MemoryBlocks {
    blocks: Mutex<BTreeMap<(Namespace, Vec<u8>), Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    value: Arc<[u8]>,
    end: Option<Instant>,
}

impl Kept {
    fn lives(&self) -> bool {
        self.end.is_none_or(|end| Instant::now() < end)
    }
}

impl MemoryBlocks {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(Namespace, Vec<u8>), Kept>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, namespace: Namespace, key: &[u8]) -> Option<Kept> {
        let found = self.all().get(&(namespace, key.to_vec())).cloned();
        found.filter(Kept::lives)
    }

    fn keep(&self, namespace: Namespace, key: &[u8], copy: Vec<u8>, options: PutOptions) -> Put {
        let kept = Kept {
            value: copy.into(),
            end: match options.life {
                Life::Policy | Life::Endless => None,
                Life::For(left) => Instant::now().checked_add(left),
            },
        };
        let mut all = self.all();
        let key = (namespace, key.to_vec());
        if options.only_if_absent && all.get(&key).is_some_and(Kept::lives) {
            return Put::Present;
        }
        all.insert(key, kept);
        Put::Stored
    }
}

/// A value, read in parts.
#[derive(Debug)]
pub struct OpenedCopy(Arc<[u8]>);

impl Opened<()> for OpenedCopy {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.0);
        hasher.finish()
    }

    async fn read(
        &self,
        number: u64,
        mut slot: GetSlot<()>,
    ) -> Result<Option<Landed<()>>, Refused> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(part) = self.0.chunks(PART).nth(number) else {
            return Ok(None);
        };
        slot.bytes_mut()[..part.len()].copy_from_slice(part);
        Ok(Some(Landed {
            slot: Arc::new(slot),
            length: part.len(),
        }))
    }
}

impl Blocks for MemoryBlocks {
    type Arena = ();
    type Opened = OpenedCopy;

    fn map(&self, _get: Memory<'_>, _put: Memory<'_>) -> io::Result<()> {
        Ok(())
    }

    async fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        room: Room<()>,
    ) -> Result<Option<Landed<()>>, Refused> {
        let Some(kept) = self.find(namespace, key) else {
            return Ok(None);
        };
        let length = kept.value.len();
        let mut slot = room.take(length as u64).await?;
        slot.bytes_mut()[..length].copy_from_slice(&kept.value);
        Ok(Some(Landed {
            slot: Arc::new(slot),
            length,
        }))
    }

    async fn open(&self, namespace: Namespace, key: &[u8]) -> Result<Option<OpenedCopy>, Refused> {
        Ok(self.find(namespace, key).map(|kept| OpenedCopy(kept.value)))
    }

    async fn put(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: PutBytes<()>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let mut copy = vec![0; value.length()];
        if !value.copy_to(0, &mut copy) {
            return Ok(Put::Dropped);
        }
        Ok(self.keep(namespace, key, copy, options))
    }

    async fn put_gathered(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: Vec<Span>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let mut copy = vec![0; value.iter().map(Span::len).sum()];
        let mut left = &mut copy[..];
        for span in &value {
            let (here, rest) = left.split_at_mut(span.len());
            span.copy_to(here);
            left = rest;
        }
        Ok(self.keep(namespace, key, copy, options))
    }

    async fn exists(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Result<Vec<bool>, Refused> {
        let present = |key: &Vec<u8>| self.find(namespace, key).is_some();
        Ok(keys.iter().map(present).collect())
    }

    async fn leading_run(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Result<usize, Refused> {
        let present = |key: &&Vec<u8>| self.find(namespace, key).is_some();
        Ok(keys.iter().take_while(present).count())
    }

    async fn describe(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Described>, Refused> {
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        Ok(self.find(namespace, key).map(|kept| Described {
            length: kept.value.len() as u64,
            left: kept.end.map(left),
        }))
    }

    async fn expire(
        &self,
        namespace: Namespace,
        key: &[u8],
        left: Option<Duration>,
    ) -> Result<bool, Refused> {
        let mut all = self.all();
        let kept = all.get_mut(&(namespace, key.to_vec()));
        Ok(kept.filter(|kept| kept.lives()).is_some_and(|kept| {
            kept.end = left.and_then(|left| Instant::now().checked_add(left));
            true
        }))
    }

    async fn delete(&self, namespace: Namespace, key: &[u8]) -> Result<bool, Refused> {
        let gone = self.all().remove(&(namespace, key.to_vec()));
        Ok(gone.is_some_and(|kept| kept.lives()))
    }

    async fn flush(&self, namespace: Namespace) -> Result<(), Refused> {
        self.all().retain(|(owner, _), _| *owner != namespace);
        Ok(())
    }

    async fn scan(&self, namespace: Namespace, cursor: u64, limit: usize) -> Result<Page, Refused> {
        let skip = usize::try_from(cursor).unwrap_or(usize::MAX);
        let all = self.all();
        let mut keys = (all.iter())
            .filter(|((owner, _), kept)| *owner == namespace && kept.lives())
            .map(|((_, key), _)| key.clone())
            .skip(skip);
        let page: Vec<_> = keys.by_ref().take(limit).collect();
        let more = keys.next().is_some();
        Ok(Page {
            cursor: if more { (skip + page.len()) as u64 } else { 0 },
            keys: page,
        })
    }

    async fn totals(&self, namespace: Namespace) -> Result<Totals, Refused> {
        let all = self.all();
        let own = all
            .iter()
            .filter(|((owner, _), kept)| *owner == namespace && kept.lives());
        Ok(own.fold(Totals::default(), |totals, (_, kept)| Totals {
            blocks: totals.blocks + 1,
            bytes: totals.bytes + kept.value.len() as u64,
        }))
    }
}
