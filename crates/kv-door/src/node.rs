//! All doors of one node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::budget::ArenaBudget;
use crate::door::{Door, DoorError, DoorOptions};
use crate::guest::PodUid;
use crate::meter::{Count, Meter, MeterStats};
use crate::{Blocks, Namespace};

/// The blocks of a node and the arena bytes of its pods.
#[derive(Debug)]
pub struct Node<B> {
    pub(crate) blocks: B,
    pub(crate) budget: Arc<ArenaBudget>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) opened: Count,
    pub(crate) refused: Count,
    /// Arena bytes of this node's own pods.
    pub(crate) arena_bytes: Arc<AtomicUsize>,
    meters: Mutex<BTreeMap<Namespace, Arc<Meter>>>,
    epoch: AtomicU64,
}

/// What a node's doors have done, and what is in use.
#[derive(Clone, Debug, PartialEq)]
pub struct DoorStats {
    /// What is in use now.
    pub usage: Usage,
    /// Arena bytes granted to this node's own pods; the budget may be shared.
    pub arena_bytes: usize,
    /// Sessions that were opened.
    pub opened: u64,
    /// Connections that were refused a session.
    pub refused: u64,
    /// Requests of all namespaces together.
    pub total: MeterStats,
    /// Requests by namespace.
    pub namespaces: BTreeMap<Namespace, MeterStats>,
}

/// What is in use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Sessions that are open.
    pub sessions: usize,
    /// Requests that were not answered yet, those of ended sessions included.
    pub requests: usize,
    /// Values in GET that pods have not released.
    pub leases: usize,
    /// Blocks that are open to be read in parts, and puts that come in parts.
    pub streams: usize,
    /// Bytes in which puts are gathered that come in parts, by all that share the budget.
    pub gathered_bytes: usize,
    /// Arena bytes granted to pods by the budget, whichever node's they are; free ones of open doors included.
    pub granted_bytes: usize,
    /// Arenas that sessions, requests or clients of ended sessions still use or map.
    pub arenas: usize,
}

/// [`Usage`], being counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sessions: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) leases: AtomicUsize,
    pub(crate) streams: AtomicUsize,
    pub(crate) arenas: AtomicUsize,
}

/// Counted for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted {
    tally: Arc<Tally>,
    of: fn(&Tally) -> &AtomicUsize,
}

impl Counted {
    pub(crate) fn new(tally: &Arc<Tally>, of: fn(&Tally) -> &AtomicUsize) -> Self {
        of(tally).fetch_add(1, Ordering::Relaxed);
        Self {
            tally: Arc::clone(tally),
            of,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.of)(&self.tally).fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B: Blocks> Node<B> {
    /// Serves `blocks`, with arenas out of `budget` for all pods together.
    pub fn new(blocks: B, budget: Arc<ArenaBudget>) -> Arc<Self> {
        // Another agent's sessions, before or after this one, must not have the same epochs.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let first = since.map_or(0, |since| since.as_nanos() as u64);
        Arc::new(Self {
            blocks,
            budget,
            tally: Arc::default(),
            opened: Count::default(),
            refused: Count::default(),
            arena_bytes: Arc::default(),
            meters: Mutex::default(),
            epoch: AtomicU64::new(first),
        })
    }

    /// Opens a pod's door; needs a tokio runtime. It stays open until the [`Door`] is dropped.
    pub fn open(self: &Arc<Self>, options: DoorOptions) -> Result<Door, DoorError> {
        Door::open(Arc::clone(self), None, options)
    }

    /// The same for a pod of Kubernetes: processes of other pods are refused, however they have come by the socket.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn open_for(
        self: &Arc<Self>,
        pod: PodUid,
        options: DoorOptions,
    ) -> Result<Door, DoorError> {
        Door::open(Arc::clone(self), Some(pod), options)
    }

    /// The blocks.
    pub fn blocks(&self) -> &B {
        &self.blocks
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Usage {
            sessions: load(&self.tally.sessions),
            requests: load(&self.tally.requests),
            leases: load(&self.tally.leases),
            streams: load(&self.tally.streams),
            gathered_bytes: self.budget.gathered(),
            granted_bytes: self.budget.granted(),
            arenas: load(&self.tally.arenas),
        }
    }

    /// What the doors have done since the node was made, and what is in use.
    pub fn stats(&self) -> DoorStats {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = meters.iter().map(|(of, meter)| (*of, meter.stats()));
        let namespaces: BTreeMap<_, _> = stats.collect();
        drop(meters);
        let mut total = MeterStats::default();
        namespaces.values().for_each(|stats| total.add(stats));
        DoorStats {
            usage: self.usage(),
            arena_bytes: self.arena_bytes.load(Ordering::Relaxed),
            opened: self.opened.get(),
            refused: self.refused.get(),
            total,
            namespaces,
        }
    }

    /// The meter of a namespace, whichever doors it has.
    pub(crate) fn meter(&self, namespace: Namespace) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(meters.entry(namespace).or_default())
    }

    pub(crate) fn next_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::Relaxed)
    }
}
