//! Context memory in this process, for tests: bounded room as in the arenas, and an agent that can go away.

use std::collections::BTreeMap;
use std::ops::{Bound, Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{Connection, Error, MAX_KEY, NamespaceStats, Page, Put, PutOptions, Store, Ttl};

const SLOT: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    get: Arc<Semaphore>,
    put: Arc<Semaphore>,
    arena: usize,
}

#[derive(Default)]
struct State {
    down: bool,
    values: BTreeMap<Vec<u8>, Entry>,
}

struct Entry {
    bytes: Arc<Vec<u8>>,
    ends: Option<Instant>,
}

/// A value, and its share of the GET budget.
pub struct MemoryValue {
    bytes: Arc<Vec<u8>>,
    _slots: OwnedSemaphorePermit,
}

/// Room, and its share of the PUT budget.
pub struct MemoryRoom {
    bytes: Vec<u8>,
    _slots: OwnedSemaphorePermit,
}

impl MemoryStore {
    /// With so many MiB for values on their way out, and as many for those on their way in.
    pub fn new(arena_mib: usize) -> Self {
        Self {
            state: Arc::default(),
            get: Arc::new(Semaphore::new(arena_mib)),
            put: Arc::new(Semaphore::new(arena_mib)),
            arena: arena_mib * SLOT,
        }
    }

    /// As if the agent had gone away, or come back.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// As if `key` had been evicted, lease or not.
    pub fn evict(&self, key: &[u8]) {
        self.state().values.remove(key);
    }

    /// MiB in use on the way out and on the way in.
    pub fn in_use(&self) -> (usize, usize) {
        let all = self.arena / SLOT;
        (
            all - self.get.available_permits(),
            all - self.put.available_permits(),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        state
            .values
            .retain(|_, e| e.ends.is_none_or(|end| end > now));
        state
    }

    fn up(&self, call: &'static str) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state();
        if state.down {
            return Err(Error::Down {
                call,
                reason: "it was stopped".into(),
            });
        }
        Ok(state)
    }

    async fn slots(&self, of: &Arc<Semaphore>, length: usize) -> Option<OwnedSemaphorePermit> {
        let slots = u32::try_from(length.div_ceil(SLOT).max(1)).ok()?;
        let permit = of.clone().acquire_many_owned(slots);
        tokio::time::timeout(PATIENCE, permit).await.ok()?.ok()
    }
}

fn check(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        length => Err(Error::KeyLength { length }),
    }
}

impl Store for MemoryStore {
    type Value = MemoryValue;
    type Room = MemoryRoom;

    fn connection(&self) -> Connection {
        if self.state().down {
            return Connection::Down {
                reason: "it was stopped".into(),
            };
        }
        Connection::Up {
            epoch: 1,
            version: 1,
            get_bytes: self.arena as u64,
            put_bytes: self.arena as u64,
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<MemoryValue>, Error> {
        check(key)?;
        let Ok(found) = self
            .up("get")
            .map(|s| s.values.get(key).map(|e| e.bytes.clone()))
        else {
            return Ok(None);
        };
        let Some(bytes) = found else { return Ok(None) };
        let slots = self.slots(&self.get, bytes.len()).await;
        Ok(slots.map(|_slots| MemoryValue { bytes, _slots }))
    }

    async fn reserve(&self, length: usize) -> Result<Option<MemoryRoom>, Error> {
        if length > self.arena {
            return Err(Error::ValueLength {
                length: length as u64,
                max: self.arena as u64,
            });
        }
        if self.state().down {
            return Ok(None);
        }
        let slots = self.slots(&self.put, length).await;
        Ok(slots.map(|_slots| MemoryRoom {
            bytes: vec![0; length],
            _slots,
        }))
    }

    async fn commit(
        &self,
        room: MemoryRoom,
        key: &[u8],
        options: PutOptions,
    ) -> Result<Put, Error> {
        check(key)?;
        let Ok(mut state) = self.up("put") else {
            return Ok(Put::Dropped);
        };
        if options.only_if_absent && state.values.contains_key(key) {
            return Ok(Put::Present);
        }
        let entry = Entry {
            bytes: Arc::new(room.bytes),
            ends: options.ttl.map(|ttl| Instant::now() + ttl),
        };
        state.values.insert(key.to_vec(), entry);
        Ok(Put::Stored)
    }

    async fn exists(&self, keys: &[Vec<u8>]) -> Result<Vec<bool>, Error> {
        keys.iter().try_for_each(|key| check(key))?;
        let state = self.state();
        Ok(keys
            .iter()
            .map(|key| !state.down && state.values.contains_key(key))
            .collect())
    }

    async fn length(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        check(key)?;
        let found = self.up("length").ok();
        Ok(found.and_then(|s| s.values.get(key).map(|e| e.bytes.len() as u64)))
    }

    async fn ttl(&self, key: &[u8]) -> Result<Ttl, Error> {
        check(key)?;
        let Ok(state) = self.up("ttl") else {
            return Ok(Ttl::Absent);
        };
        Ok(match state.values.get(key) {
            None => Ttl::Absent,
            Some(Entry { ends: None, .. }) => Ttl::Forever,
            Some(Entry {
                ends: Some(end), ..
            }) => Ttl::Left(end.duration_since(Instant::now())),
        })
    }

    async fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        check(key)?;
        let mut state = self.up("expire")?;
        Ok(state.values.get_mut(key).is_some_and(|entry| {
            entry.ends = ttl.map(|ttl| Instant::now() + ttl);
            true
        }))
    }

    async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        check(key)?;
        Ok(self.up("delete")?.values.remove(key).is_some())
    }

    async fn flush(&self) -> Result<(), Error> {
        self.up("flush")?.values.clear();
        Ok(())
    }

    async fn scan(&self, cursor: u64, limit: u32) -> Result<Page, Error> {
        // The cursor counts keys: enough where no test deletes during a scan.
        let state = self.up("scan")?;
        let keys: Vec<Vec<u8>> = state
            .values
            .range::<[u8], _>((Bound::Unbounded, Bound::Unbounded))
            .skip(cursor as usize)
            .take(limit as usize)
            .map(|(key, _)| key.clone())
            .collect();
        let next = cursor + keys.len() as u64;
        let cursor = if next < state.values.len() as u64 {
            next
        } else {
            0
        };
        Ok(Page { cursor, keys })
    }

    async fn stats(&self) -> Result<NamespaceStats, Error> {
        let state = self.up("stats")?;
        Ok(NamespaceStats {
            blocks: state.values.len() as u64,
            bytes: state.values.values().map(|e| e.bytes.len() as u64).sum(),
        })
    }
}

impl AsRef<[u8]> for MemoryValue {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for MemoryRoom {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for MemoryRoom {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
