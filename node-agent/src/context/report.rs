//! What is served, as metrics, `/context` and the API tell it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use strand_context_store::{Stats, Store};
use strand_kv_door::{Namespace, Node};
use strand_kv_rack::Rack;
use strand_placement::status::sixteenths;

/// How a drive's context memory stands, as far as its Drive object tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveStanding {
    /// Bytes in use, in sixteenths of the partition.
    pub used: u64,
    /// Why the drive was taken out, if it was.
    pub failed: Option<String>,
}

impl DriveStanding {
    pub(super) fn of(stats: &Stats) -> Self {
        Self {
            used: sixteenths(stats.live_bytes, stats.capacity),
            failed: None,
        }
    }

    pub(super) fn failed(why: &str) -> Self {
        Self {
            used: 0,
            failed: Some(why.to_owned()),
        }
    }
}

/// What is open now; the serving task keeps it current, whoever shows it reads the counters behind it.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Open>>);

#[derive(Clone, Default)]
pub(super) struct Open {
    pub(super) drives: BTreeMap<String, OpenDrive>,
    pub(super) pools: Vec<OpenPool>,
}

#[derive(Clone)]
pub(super) struct OpenDrive {
    pub(super) pool: String,
    pub(super) state: DriveState,
    pub(super) message: Option<String>,
    pub(super) store: Option<Store>,
    pub(super) recovery_seconds: Option<f64>,
}

#[derive(Clone)]
pub(super) struct OpenPool {
    pub(super) name: String,
    pub(super) epoch: i64,
    pub(super) doors: usize,
    /// Names of the namespaces whose pods have doors here.
    pub(super) namespaces: BTreeMap<Namespace, String>,
    /// Names of all that had a door here since the agent started.
    pub(super) names: BTreeMap<Namespace, String>,
    pub(super) node: Arc<Node<Rack>>,
    pub(super) rack: Rack,
}

impl Shown {
    pub(super) fn set(&self, open: Open) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    pub(super) fn get(&self) -> Open {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn report(&self) -> ContextReport {
        let open = self.get();
        let drives = open.drives.into_iter().map(|(name, drive)| {
            let holds = drive.store.as_ref().map(|store| Holds::of(&store.stats()));
            let report = DriveReport {
                pool: drive.pool,
                state: drive.state,
                message: drive.message,
                holds,
            };
            (name, report)
        });
        let pools = open.pools.iter().map(|pool| PoolReport {
            name: pool.name.clone(),
            epoch: pool.epoch,
            doors: pool.doors,
            sessions: pool.node.usage().sessions,
            arena_bytes: pool.node.usage().granted_bytes,
        });
        ContextReport {
            drives: drives.collect(),
            pools: pools.collect(),
        }
    }
}

/// Context memory of a node, as `/context` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextReport {
    /// By name of the Drive object.
    pub drives: BTreeMap<String, DriveReport>,
    /// Pools that this node has drives or doors of.
    pub pools: Vec<PoolReport>,
}

/// One drive's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveReport {
    /// Its pool.
    pub pool: String,
    /// How far it is.
    pub state: DriveState,
    /// What stands against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it holds, while it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holds>,
}

/// How far a drive's context memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriveState {
    /// It is read back.
    Opening,
    /// It is read back; no pool map names it yet, or what it held is being discarded.
    Waiting,
    /// It serves.
    Serving,
    /// It is being closed.
    Closing,
    /// It cannot be opened; that is tried again.
    Failed,
    /// It was taken out for its faults.
    TakenOut,
}

/// What a drive holds and has done since it was opened. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holds {
    /// What it can hold.
    pub capacity: u64,
    /// Bytes of its blocks.
    pub bytes: u64,
    /// Its blocks.
    pub blocks: u64,
    /// Memory of its index.
    pub index_bytes: u64,
    /// Gets that found their block.
    pub hits: u64,
    /// Gets that did not.
    pub misses: u64,
    /// Puts that were dropped.
    pub dropped: u64,
    /// Bytes written to the drive.
    pub written: u64,
    /// How its I/O is done.
    pub engine: String,
}

impl Holds {
    fn of(stats: &Stats) -> Self {
        Self {
            capacity: stats.capacity,
            bytes: stats.live_bytes,
            blocks: stats.blocks,
            index_bytes: stats.index_bytes,
            hits: stats.hits,
            misses: stats.misses,
            dropped: stats.dropped_no_space
                + stats.dropped_busy
                + stats.dropped_first_touch
                + stats.dropped_budget
                + stats.dropped_quota,
            written: stats.device_written,
            engine: stats.engine.to_owned(),
        }
    }
}

/// One pool's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Epoch of the map in use; 0 before the first.
    pub epoch: i64,
    /// Pods' doors on this node.
    pub doors: usize,
    /// Sessions of those pods.
    pub sessions: usize,
    /// Arena bytes granted to them.
    pub arena_bytes: usize,
}
