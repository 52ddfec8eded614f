//! A store: what is shared by everything that serves one partition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::Core;
use crate::engine::disk::Disk;
use crate::engine::memory::Region;
use crate::engine::pool::Pool;
use crate::engine::queue::Flow;
use crate::error::{OpenError, StoreError};
use crate::expiry::Now;
use crate::hash::Fingerprint;
use crate::latency::LatencyStats;
use crate::namespaces::{Namespace, Share};
use crate::options::{Medium, Options};
use crate::record::MAX_META;
use crate::stats::{NamespaceReport, NamespaceStats, Recovery, Stats};
use crate::superblock::{Identity, Superblock};
use crate::{MAX_KEY, MAX_VALUE, PAGE, evictor, quota, recover, trim, upkeep};

/// Bytes of the private pages that metas are read into and written from: a packed record may straddle three pages.
pub(crate) const SCRATCH: usize = MAX_META + PAGE;

/// How long closing waits for those who still hold the store.
const LETTING_GO: Duration = Duration::from_secs(5);

/// An open context partition. Clones are the same store; [`Store::close`] ends it in order, dropping the last clone does
/// so without waiting.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    _open: Arc<Open>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Store")
            .field("identity", &self.shared.superblock.identity)
            .finish_non_exhaustive()
    }
}

/// Ends the store's own tasks with its last clone.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.core().closed = true;
        self.0.wake_all();
    }
}

/// What the store's tasks and callers share.
pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    pub(crate) disk: Disk,
    pub(crate) scratch: Pool,
    pub(crate) superblock: Superblock,
    pub(crate) options: Options,
    /// A unit was opened: puts that wait look again.
    pub(crate) opened: Notify,
    /// Units have to be opened or closed.
    pub(crate) upkeep: Notify,
    /// Room has to be made.
    pub(crate) room: Notify,
    /// Segments came free that the drive does not know of.
    pub(crate) trim: Notify,
    /// A namespace may hold more than it may.
    pub(crate) quota: Notify,
    /// The store's own tasks that have not ended. The last field: it goes after the disk.
    pub(crate) tasks: tokio::sync::watch::Sender<u32>,
}

impl Shared {
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Now {
        Now::new((self.options.clock)(), self.superblock.created)
    }

    pub(crate) fn fingerprint(&self, namespace: Namespace, key: &[u8]) -> Fingerprint {
        let function = self.core().fingerprint;
        function(&self.superblock.secret, namespace, key)
    }

    pub(crate) fn flow(&self, namespace: Namespace) -> Flow {
        let core = self.core();
        core.namespaces
            .find(namespace)
            .and_then(|slot| {
                core.namespaces.owner(slot).map(|owner| Flow {
                    id: u32::from(slot),
                    weight: owner.weight,
                })
            })
            .unwrap_or(Flow {
                id: u32::MAX - 1,
                weight: 1,
            })
    }

    pub(crate) fn wake_all(&self) {
        self.opened.notify_waiters();
        self.upkeep.notify_one();
        self.room.notify_one();
        self.trim.notify_one();
        self.quota.notify_one();
    }

    /// Byte of the partition at which a unit's byte lies.
    pub(crate) fn address(&self, segment: u32, offset: u64) -> u64 {
        self.core().space.layout.start(segment) + offset
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(StoreError::KeyLength { len: key.len() });
    }
    Ok(())
}

impl Store {
    /// Opens a partition, formatting it where it is blank, and serves what it holds. Must be called inside a tokio
    /// runtime, whose workers then run the store's tasks.
    ///
    /// # Errors
    /// [`OpenError`]: the partition is another's, a newer format, in use, or the kernel refused.
    pub async fn open(
        medium: Medium,
        identity: &Identity,
        options: Options,
    ) -> Result<(Store, Recovery), OpenError> {
        let (engine, fallback) = recover::engine(&medium, &options)?;
        let layout = crate::layout::Layout::new(medium.offset, medium.len)?;
        let (store, mut recovery) = Store::with_engine(
            engine,
            medium.offset,
            medium.len,
            layout,
            identity,
            options,
            |secret, namespace, key| secret.fingerprint(namespace, key),
        )
        .await?;
        recovery.fallback = fallback;
        Ok((store, recovery))
    }

    pub(crate) async fn with_engine(
        engine: Arc<dyn crate::engine::Engine>,
        base: u64,
        len: u64,
        layout: crate::layout::Layout,
        identity: &Identity,
        options: Options,
        fingerprint: crate::hash::FingerprintFn,
    ) -> Result<(Store, Recovery), OpenError> {
        let (shared, recovery) =
            recover::open(engine, base, len, layout, identity, options, fingerprint).await?;
        let shared = Arc::new(shared);
        upkeep::spawn(&shared);
        evictor::spawn(&shared);
        trim::spawn(&shared);
        quota::spawn(&shared);
        recover::write_down(&shared, recovery.forgotten).await?;
        let store = Store {
            _open: Arc::new(Open(Arc::clone(&shared))),
            shared,
        };
        Ok((store, recovery.report))
    }

    /// Pins an arena's pages ahead of transfers, which makes each cheaper. Blocks: 0.4 to 2.3 s a GiB when cold, so call
    /// it from a blocking thread. Regions that are not registered work too.
    ///
    /// # Errors
    /// The kernel's, as when RLIMIT_MEMLOCK is too low; the region then works unregistered.
    pub fn register(&self, region: &Arc<Region>) -> Result<(), StoreError> {
        Ok(self.shared.disk.register(region)?)
    }

    /// Lets a registered arena's pages go. Transfers under way are not disturbed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unregister(&self, region: &Arc<Region>) -> Result<(), StoreError> {
        Ok(self.shared.disk.unregister(region)?)
    }

    /// Gives namespaces their shares; those not named have the usual one. Where one holds more than it may now, its coldest blocks go.
    pub fn set_shares(&self, shares: &[(Namespace, Share)]) {
        self.shared.core().namespaces.set_shares(shares);
        self.shared.quota.notify_one();
    }

    /// The largest value that this partition takes, in bytes.
    #[must_use]
    pub fn largest_value(&self) -> usize {
        let quarter = self.shared.core().space.layout.capacity() / 4;
        usize::try_from(quarter).map_or(MAX_VALUE, |quarter| quarter.min(MAX_VALUE))
    }

    /// How the store stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        use std::sync::atomic::Ordering::Relaxed;
        let millis = self.shared.now().millis;
        let load = self.shared.disk.load();
        let counters = self.shared.disk.counters();
        let mut core = self.shared.core();
        core.leases.expire(millis);
        let endurance = core.governor.state(millis);
        let endurance_left = core.governor.left(millis);
        Stats {
            capacity: core.space.layout.capacity(),
            live_bytes: core.live_bytes,
            blocks: core.index.len() as u64,
            free_segments: core.space.free(),
            segments: core.space.layout.segments,
            segment_len: core.space.layout.segment_len,
            index_bytes: core.index.memory() as u64,
            device_written: counters.written_bytes.load(Relaxed),
            device_read: counters.read_bytes.load(Relaxed),
            device_errors: counters.errors.load(Relaxed),
            queued: load.waiting as u64,
            queued_read_bytes: load.waiting_bytes[0] as u64,
            queued_write_bytes: load.waiting_bytes[1] as u64,
            queued_own_bytes: load.waiting_bytes[2] as u64,
            in_flight: load.flying as u64,
            in_flight_bytes: load.flying_bytes as u64,
            leases: core.leases.len() as u64,
            pins: core.pins.len() as u64,
            endurance: Some(endurance),
            endurance_left,
            engine: self.shared.disk.engine_name(),
            ..core.stats.clone()
        }
    }

    /// How a namespace stands; none where it has no blocks.
    #[must_use]
    pub fn namespace_stats(&self, namespace: Namespace) -> Option<NamespaceStats> {
        let core = self.shared.core();
        let slot = core.namespaces.find(namespace)?;
        let owner = core.namespaces.owner(slot)?;
        Some(NamespaceStats {
            blocks: owner.blocks,
            bytes: owner.bytes,
            share: core.namespaces.share(slot, core.space.layout.capacity()),
            counts: core.namespaces.counts(namespace),
        })
    }

    /// How long the drive's transfers took: `wait` from being queued to being handed to the drive, then `read`, `write` and
    /// `flush` until it was done.
    #[must_use]
    pub fn latencies(&self) -> Vec<LatencyStats> {
        self.shared.disk.counters().latencies()
    }

    /// The namespaces that hold most, at most so many.
    #[must_use]
    pub fn largest_namespaces(&self, most: usize) -> Vec<NamespaceReport> {
        let mut namespaces: Vec<(u64, Namespace)> = {
            let core = self.shared.core();
            let owners = core.namespaces.owners();
            owners.map(|owner| (owner.bytes, owner.namespace)).collect()
        };
        namespaces
            .sort_unstable_by_key(|(bytes, namespace)| (std::cmp::Reverse(*bytes), *namespace));
        namespaces.truncate(most);
        let report = |(_, namespace)| {
            Some(NamespaceReport {
                namespace,
                stats: self.namespace_stats(namespace)?,
                latencies: self.shared.core().namespaces.latencies(namespace),
            })
        };
        namespaces.into_iter().filter_map(report).collect()
    }

    /// Namespaces that have or had blocks since the store was opened.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        let core = self.shared.core();
        core.namespaces
            .owners()
            .map(|owner| owner.namespace)
            .collect()
    }

    /// Ends the store: what was put is flushed, open units get their footers, so that the next opening reads those alone.
    /// Where this was the last clone and nobody reads any more, the partition's file is closed on return.
    pub async fn close(self) {
        self.end().await;
        let mut tasks = self.shared.tasks.subscribe();
        drop(self);
        // A task says that it has ended before it lets go of what it shares: the sender goes with the last of them.
        let gone = async { while tasks.changed().await.is_ok() {} };
        let _in_time = tokio::time::timeout(LETTING_GO, gone).await;
    }

    /// Leaves the medium in order; whoever has a clone finds the store closed.
    pub(crate) async fn end(&self) {
        let mut tasks = self.shared.tasks.subscribe();
        self.shared.core().closed = true;
        self.shared.wake_all();
        // The sender lives in `self.shared`: waiting cannot fail before that.
        drop(tasks.wait_for(|left| *left == 0).await);
    }
}
