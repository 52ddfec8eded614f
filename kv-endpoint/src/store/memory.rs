//! Context memory in this process, for tests: bounded room as in the arenas, and an agent that can go away.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{
    Connection, Error, Lost, MAX_KEY, NamespaceStats, Next, Page, Put, PutOptions, Store, Ttl,
    Upload, Value,
};

const SLOT: usize = 1 << 20;
const LONGEST: usize = 128 << 20;
const PATIENCE: Duration = Duration::from_secs(300);

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
    /// What follows after so many bytes cannot be read.
    torn: Option<usize>,
}

/// A value, and where its reader stands.
pub struct MemoryValue {
    store: MemoryStore,
    bytes: Arc<Vec<u8>>,
    torn: Option<usize>,
    given: usize,
    /// Of a value that is there whole.
    slots: Option<OwnedSemaphorePermit>,
}

/// A part of a value, and its share of the GET budget.
pub struct MemoryPart {
    bytes: Arc<Vec<u8>>,
    range: std::ops::Range<usize>,
    _slots: OwnedSemaphorePermit,
}

/// A value that comes in, and the share of the PUT budget that is filled now.
pub struct MemoryUpload {
    store: MemoryStore,
    bytes: Vec<u8>,
    given: usize,
    slots: Option<OwnedSemaphorePermit>,
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

    /// As if what follows the first `bytes` bytes of `key` had gone bad on the drive.
    pub fn tear(&self, key: &[u8], bytes: usize) {
        if let Some(entry) = self.state().values.get_mut(key) {
            entry.torn = Some(bytes);
        }
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
    type Upload = MemoryUpload;

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

    async fn fetch(&self, key: &[u8]) -> Result<Option<MemoryValue>, Error> {
        check(key)?;
        let found = self.up("get").ok().and_then(|state| {
            let entry = state.values.get(key)?;
            Some((entry.bytes.clone(), entry.torn))
        });
        let Some((bytes, torn)) = found else {
            return Ok(None);
        };
        let mut value = MemoryValue {
            store: self.clone(),
            bytes,
            torn,
            given: 0,
            slots: None,
        };
        if value.bytes.len() <= self.arena {
            value.slots = self.slots(&self.get, value.bytes.len()).await;
            if value.slots.is_none() || torn.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(value))
    }

    async fn upload(&self, key: &[u8], length: usize) -> Result<Option<MemoryUpload>, Error> {
        check(key)?;
        if length == 0 {
            return Err(Error::Empty);
        }
        if length > LONGEST {
            return Err(Error::ValueLength {
                length: length as u64,
                max: LONGEST as u64,
            });
        }
        if self.state().down {
            return Ok(None);
        }
        let mut upload = MemoryUpload {
            store: self.clone(),
            bytes: vec![0; length],
            given: 0,
            slots: None,
        };
        if length <= self.arena {
            upload.slots = self.slots(&self.put, length).await;
            if upload.slots.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(upload))
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

    async fn delete(&self, keys: &[Vec<u8>]) -> Result<u64, Error> {
        keys.iter().try_for_each(|key| check(key))?;
        let mut state = self.up("delete")?;
        let deleted = keys
            .iter()
            .filter(|key| state.values.remove(*key).is_some());
        Ok(deleted.count() as u64)
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

impl Value for MemoryValue {
    type Bytes = MemoryPart;

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn next(&mut self) -> Result<Option<MemoryPart>, Lost> {
        let (start, length) = (self.given, self.bytes.len());
        if start == length {
            return Ok(None);
        }
        let (end, slots) = match self.slots.take() {
            Some(slots) => (length, Some(slots)),
            None => {
                let end = length.min(start + SLOT);
                (end, self.store.slots(&self.store.get, end - start).await)
            }
        };
        let torn = self.torn.is_some_and(|torn| end > torn);
        let Some(_slots) = slots.filter(|_| !torn) else {
            return Err(Lost {
                length: length as u64,
                given: start as u64,
                reason: "it went bad".into(),
            });
        };
        self.given = end;
        Ok(Some(MemoryPart {
            bytes: self.bytes.clone(),
            range: start..end,
            _slots,
        }))
    }
}

impl AsRef<[u8]> for MemoryPart {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl Upload for MemoryUpload {
    async fn next(&mut self) -> Next<'_> {
        let (start, length) = (self.given, self.bytes.len());
        if start == length {
            return Next::Full;
        }
        let end = if length <= self.store.arena {
            length
        } else {
            // What was filled is with the agent.
            self.slots = None;
            self.slots = self.store.slots(&self.store.put, 1).await;
            length.min(start + SLOT)
        };
        if self.slots.is_none() {
            return Next::Dropped;
        }
        self.given = end;
        Next::Fill(&mut self.bytes[start..end])
    }

    async fn commit(self, key: &[u8], options: PutOptions) -> Result<Put, Error> {
        let Ok(mut state) = self.store.up("put") else {
            return Ok(Put::Dropped);
        };
        if self.given < self.bytes.len() {
            return Ok(Put::Dropped);
        }
        if options.only_if_absent && state.values.contains_key(key) {
            return Ok(Put::Present);
        }
        let entry = Entry {
            bytes: Arc::new(self.bytes),
            ends: options.ttl.map(|ttl| Instant::now() + ttl),
            torn: None,
        };
        state.values.insert(key.to_vec(), entry);
        Ok(Put::Stored)
    }
}
