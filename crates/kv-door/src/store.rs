//! Blocks of one context partition, moved by its drive straight to and from the arenas.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use strand_context_store::{
    Get, Put as Stored, PutOptions as StoreOptions, Region, Span, Store, StoreError, Value,
};
use strand_kv_client::arena::{GetSlot, Memory, PutBytes};
use strand_kv_client::frame::Code;

use crate::blocks::{Blocks, Described, Landed, Life, Opened, Page, Put, PutOptions, Totals};
use crate::{Namespace, Refused, Room};

/// How often a get looks again when its block was replaced by a longer one while it waited for slots.
const LOOKS: usize = 3;

/// A store behind the door.
#[derive(Debug)]
pub struct StoreBlocks {
    store: Arc<Store>,
}

/// A pod's arenas, as the store's regions.
#[derive(Debug)]
pub struct StoreArena {
    get: Pinned,
    put: Pinned,
}

/// A region that is registered with each drive on its first use there: that takes its pages, and pods may never use theirs.
#[derive(Debug)]
struct Pinned {
    region: Arc<Region>,
    registered: Mutex<Vec<Arc<Registration>>>,
}

/// Ends with the arena, or with the thread that makes it, whichever is later.
#[derive(Debug)]
struct Registration {
    region: Arc<Region>,
    store: Weak<Store>,
}

impl Pinned {
    fn new(memory: Memory<'_>) -> io::Result<Self> {
        Ok(Self {
            region: Region::map_shared(memory.0, memory.1)?,
            registered: Mutex::default(),
        })
    }

    /// The range, for a transfer of this store's drive that `guard` belongs to.
    fn transfer(
        &self,
        store: &Arc<Store>,
        range: (usize, usize),
        guard: Arc<dyn Any + Send + Sync>,
    ) -> Result<Span, Refused> {
        self.register_once(store);
        self.span(range, guard)
    }

    /// The range, kept by `guard`.
    fn span(
        &self,
        range: (usize, usize),
        guard: Arc<dyn Any + Send + Sync>,
    ) -> Result<Span, Refused> {
        let span = self.region.span(range.0, range.1);
        let span = span.ok_or_else(|| Refused::new(Code::Range, "bytes outside the arena"))?;
        Ok(span.guarded(guard))
    }

    fn register_once(&self, store: &Arc<Store>) {
        let mut registered = self
            .registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = |one: &Arc<Registration>| std::ptr::eq(one.store.as_ptr(), Arc::as_ptr(store));
        if !registered.iter().any(known) {
            // What was made for drives that are gone is of no use; a weak reference keeps their place from new ones.
            registered.retain(|one| one.store.strong_count() > 0);
            registered.push(self.register(store));
        }
    }

    /// On a thread of its own: 0.4 to 2.3 s a GiB. Transfers do not wait for it.
    fn register(&self, store: &Arc<Store>) -> Arc<Registration> {
        let registration = Arc::new(Registration {
            region: Arc::clone(&self.region),
            store: Arc::downgrade(store),
        });
        let (store, made) = (Arc::clone(store), Arc::clone(&registration));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.register(&made.region) {
                tracing::warn!(%error, "an arena is used unregistered, which costs processor time; give the agent CAP_IPC_LOCK");
            }
        });
        registration
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else {
            return;
        };
        if let Err(error) = store.unregister(&self.region) {
            tracing::debug!(%error, "an arena could not be unregistered");
        }
    }
}

impl StoreArena {
    /// Slots of GET, for a value that comes from elsewhere than a drive. The span keeps them.
    pub fn landing(slot: &Arc<GetSlot<Self>>) -> Result<Span, Refused> {
        let range = (slot.offset(), slot.capacity());
        (slot.mapped().get).span(range, slot.clone())
    }

    /// A pod's bytes in PUT, for somewhere else than a drive. The span keeps them.
    pub fn source(value: &Arc<PutBytes<Self>>) -> Result<Span, Refused> {
        let range = (value.offset(), value.length());
        (value.mapped().put).span(range, value.clone())
    }

    /// New arenas, as regions.
    pub fn map(get: Memory<'_>, put: Memory<'_>) -> io::Result<Self> {
        Ok(Self {
            get: Pinned::new(get)?,
            put: Pinned::new(put)?,
        })
    }
}

impl StoreBlocks {
    /// Serves this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Reads a block into slots taken from `room`, and verifies all of it. `None` is a miss.
    pub async fn read(
        &self,
        namespace: Namespace,
        key: &[u8],
        room: &Room<StoreArena>,
    ) -> Result<Option<Landed<StoreArena>>, Refused> {
        for _ in 0..LOOKS {
            let Some(length) = self.store.len_to_read(namespace, key) else {
                return Ok(None);
            };
            let slot = Arc::new(room.take(length as u64).await?);
            let range = (slot.offset(), slot.capacity());
            let span = (slot.mapped().get).transfer(&self.store, range, slot.clone())?;
            match self.store.get(namespace, key, &[span]).await {
                Ok(Get::Hit { len, .. }) => return Ok(Some(Landed { slot, length: len })),
                Ok(Get::Miss) => return Ok(None),
                Err(StoreError::Memory { .. }) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(None)
    }

    /// Stores a pod's bytes.
    pub async fn write(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: &Arc<PutBytes<StoreArena>>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let range = (value.offset(), value.length());
        let span = (value.mapped().put).transfer(&self.store, range, value.clone())?;
        self.write_spans(namespace, key, vec![span], options).await
    }

    /// Stores bytes that lie elsewhere, in spans that suit [`Store::put`].
    pub async fn write_spans(
        &self,
        namespace: Namespace,
        key: &[u8],
        spans: Vec<Span>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let options = StoreOptions {
            ttl: match options.life {
                Life::Policy => None,
                Life::Endless => Some(Duration::MAX),
                Life::For(life) => Some(life),
            },
            if_absent: options.only_if_absent,
        };
        match self.store.put(namespace, key, spans, options).await {
            Ok(Stored::Stored(_)) => Ok(Put::Stored),
            Ok(Stored::Present) => Ok(Put::Present),
            Ok(Stored::Dropped(_)) => Ok(Put::Dropped),
            Err(error) => Err(refused(error)),
        }
    }
}

/// A block of a store, read in parts.
#[derive(Debug)]
pub struct OpenedValue {
    value: Value,
    store: Arc<Store>,
}

impl Opened<StoreArena> for OpenedValue {
    fn length(&self) -> u64 {
        self.value.len() as u64
    }

    fn digest(&self) -> u64 {
        self.value.digest()
    }

    async fn read(
        &self,
        number: u64,
        slot: GetSlot<StoreArena>,
    ) -> Result<Option<Landed<StoreArena>>, Refused> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if number >= self.value.chunks() {
            return Ok(None);
        }
        let slot = Arc::new(slot);
        let range = (slot.offset(), slot.capacity());
        let span = (slot.mapped().get).transfer(&self.store, range, slot.clone())?;
        let read = self.value.read(number, &span).await.map_err(refused)?;
        Ok(read.map(|length| Landed { slot, length }))
    }
}

impl Blocks for StoreBlocks {
    type Arena = StoreArena;
    type Opened = OpenedValue;

    fn map(&self, get: Memory<'_>, put: Memory<'_>) -> io::Result<StoreArena> {
        StoreArena::map(get, put)
    }

    async fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        room: Room<StoreArena>,
    ) -> Result<Option<Landed<StoreArena>>, Refused> {
        self.read(namespace, key, &room).await
    }

    async fn open(&self, namespace: Namespace, key: &[u8]) -> Result<Option<OpenedValue>, Refused> {
        let value = (self.store.open_value(namespace, key).await).map_err(refused)?;
        Ok(value.map(|value| OpenedValue {
            value,
            store: Arc::clone(&self.store),
        }))
    }

    async fn put(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: PutBytes<StoreArena>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        let value = Arc::new(value);
        self.write(namespace, key, &value, options).await
    }

    async fn put_gathered(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: Vec<Span>,
        options: PutOptions,
    ) -> Result<Put, Refused> {
        self.write_spans(namespace, key, value, options).await
    }

    async fn exists(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Result<Vec<bool>, Refused> {
        Ok(self.store.exists_many(namespace, &slices(keys)))
    }

    async fn leading_run(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Result<usize, Refused> {
        Ok(self.store.longest_run(namespace, &slices(keys)))
    }

    async fn describe(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Described>, Refused> {
        let length = self.store.len_of(namespace, key);
        let left = self.store.expires_in(namespace, key);
        Ok(length.zip(left).map(|(length, left)| Described {
            length: length as u64,
            left,
        }))
    }

    async fn expire(
        &self,
        namespace: Namespace,
        key: &[u8],
        left: Option<Duration>,
    ) -> Result<bool, Refused> {
        (self.store.expire(namespace, key, left).await).map_err(refused)
    }

    async fn delete(&self, namespace: Namespace, key: &[u8]) -> Result<bool, Refused> {
        self.store.delete(namespace, key).await.map_err(refused)
    }

    async fn flush(&self, namespace: Namespace) -> Result<(), Refused> {
        self.store.flush_namespace(namespace).await.map_err(refused)
    }

    async fn scan(&self, namespace: Namespace, cursor: u64, limit: usize) -> Result<Page, Refused> {
        let page = (self.store.scan(namespace, cursor, limit).await).map_err(refused)?;
        Ok(Page {
            cursor: page.cursor,
            keys: page.keys,
        })
    }

    async fn totals(&self, namespace: Namespace) -> Result<Totals, Refused> {
        let stats = self.store.namespace_stats(namespace);
        Ok(stats.map_or(Totals::default(), |stats| Totals {
            blocks: stats.blocks,
            bytes: stats.bytes,
        }))
    }
}

fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    keys.iter().map(Vec::as_slice).collect()
}

/// A store's error in the door's terms.
pub fn refused(error: StoreError) -> Refused {
    let code = match error {
        StoreError::KeyLength { .. } => Code::Key,
        StoreError::ValueLength { .. } => Code::Length,
        StoreError::Busy | StoreError::NoRoom => Code::Busy,
        StoreError::Memory { .. }
        | StoreError::TooManyNamespaces
        | StoreError::Drive(_)
        | StoreError::Closed => Code::Store,
    };
    Refused::new(code, error.to_string())
}
