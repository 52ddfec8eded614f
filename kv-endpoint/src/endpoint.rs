//! What all connections of a process share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use crate::chunks::Chunks;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::store::Store;

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// What clients must give with `AUTH`; none asks for nothing.
    pub password: Option<String>,
    /// Length of the values that fixed-width clients ask for, where none of like keys has been seen.
    pub chunk_bytes: Option<usize>,
    /// How long a client may rest within a command or an answer before its connection is closed.
    pub stall: Duration,
    /// Most connections at once; further ones are told so and closed.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            password: None,
            chunk_bytes: None,
            stall: Duration::from_secs(15),
            max_connections: 1024,
        }
    }
}

/// What all connections share.
pub struct Endpoint<S> {
    /// Context memory.
    pub store: S,
    /// How to behave.
    pub config: Config,
    /// What is counted.
    pub metrics: Metrics,
    /// What clients were told to exist.
    pub leases: Leases,
    /// When this began.
    pub started: Instant,
    chunks: Chunks,
    connections: AtomicU64,
}

impl<S: Store> Endpoint<S> {
    /// An endpoint of `store`.
    pub fn new(store: S, config: Config, metrics: Metrics) -> Self {
        Self {
            store,
            config,
            metrics,
            leases: Leases::default(),
            started: Instant::now(),
            chunks: Chunks::default(),
            connections: AtomicU64::new(0),
        }
    }

    /// A number for a new connection, from 1 on.
    pub fn number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The length that a fixed-width client may expect `key` to have; of what is not known, the longest: too short an
    /// answer hangs it.
    pub fn expected(&self, key: &[u8]) -> Option<usize> {
        self.chunks
            .of(key)
            .or(self.config.chunk_bytes)
            .or_else(|| self.chunks.longest())
    }

    /// A fixed-width client sent or got a value of that length.
    pub fn learn(&self, key: &[u8], length: usize) {
        self.chunks.learn(key, length);
    }

    /// Whether a fixed-width client may be told that `key` exists: it may get it next, and what a miss of it has to look like
    /// must be known by then. Asks how long it is, unless keys like it have told.
    pub async fn prepare(&self, key: &[u8]) -> bool {
        if self.chunks.of(key).is_some() {
            return true;
        }
        let Ok(Some(length)) = self.store.length(key).await else {
            // Evicted a moment ago, or the agent has gone. Nobody is told that it exists, so nothing is broken.
            self.leases.deleted(key);
            return false;
        };
        self.learn(key, usize::try_from(length).unwrap_or(usize::MAX));
        true
    }

    /// Whether `password` is the right one; takes as long for each wrong one of the same length.
    pub fn admits(&self, password: &[u8]) -> bool {
        match &self.config.password {
            None => false,
            Some(right) => right.as_bytes().ct_eq(password).into(),
        }
    }
}
