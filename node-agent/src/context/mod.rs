//! Context memory of one node: its drives' stores, its part of the rack, and the doors of its pods.
//!
//! ```text
//!  plans ──Wanted──► serving ──► drive (one store a context partition) ──┐
//!  HTTP ──doors────►    │                                                ├──► pool ── Rack ◄──TCP──► peers
//!  work ──Hold─────►    └──────► doors (records on disk) ── Door ────────┘
//! ```
//!
//! Decisions stay with the agent's plans: they say which drives serve. This module opens what they name, closes what they do
//! not, and never holds the agent's loop up.

mod discard;
mod doors;
mod drive;
mod metrics;
mod network;
mod policies;
mod pool;
mod report;
mod serving;
mod wanted;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strand_drives::DriveHost;
use strand_placement::access::NotGranted;
use tokio::sync::{mpsc, oneshot, watch};

pub use doors::{DoorRequest, is_id};
pub use metrics::ContextMetrics;
pub use report::{ContextReport, DriveReport, DriveStanding, DriveState, Holds, PoolReport};
pub use serving::Hold;
pub use wanted::{Wanted, WantedPool};

use crate::peer_key::NoKey;
use network::Network;
use report::Shown;
use serving::{Ask, Channels, Serving};

/// How an agent serves context memory.
#[derive(Clone, Debug)]
pub struct ContextConfig {
    /// Arena bytes of all pods of this node together.
    pub arena_bytes: usize,
    /// Where peers are listened for; none: this node's drives serve this node alone.
    pub peer_listen: Option<SocketAddr>,
    /// File with the key by which the agents of a cluster know each other, as 64 hexadecimal digits.
    pub peer_key_file: Option<PathBuf>,
    /// What a hit is worth, for the metrics.
    pub prefill: Option<Prefill>,
}

/// What a model computes that finds nothing in context memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefill {
    /// Bytes of cache that a token takes, over all layers.
    pub token_bytes: u64,
    /// Tokens that are computed in a second.
    pub tokens_per_second: f64,
}

impl Prefill {
    /// Seconds in which as many bytes of cache are computed.
    pub fn seconds(self, bytes: u64) -> f64 {
        bytes as f64 / (self.token_bytes as f64 * self.tokens_per_second)
    }
}

/// Why context memory cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Records of doors, or what drives hold, cannot be kept.
    #[error("the state directory cannot be used: {0}; check that it is writable")]
    State(#[source] std::io::Error),
    /// The key is missing or is none.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// The port for peers cannot be had.
    #[error(
        "cannot listen for peers on {address}: {error}; give another address with --peer-listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        error: std::io::Error,
    },
}

/// Why a door was not opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Not a name that a file can have.
    #[error("{id:?} is no id of a door; use up to 128 of a-z, 0-9 and -, as in a pod's uid")]
    Id {
        /// What was given.
        id: String,
    },
    /// A door of this id leads elsewhere.
    #[error("door {id} is open for another pod, pool, namespace or directory; close it first")]
    Differs {
        /// Its id.
        id: String,
    },
    /// No such pool.
    #[error(
        "no MemoryPool {pool} is known to this node's agent; check its name, or try again once the agent has seen the API"
    )]
    NoPool {
        /// Its name.
        pool: String,
    },
    /// Not yet known who may use it.
    #[error(
        "this node's agent has not seen yet which namespaces may use MemoryPool {pool}; it is asked again"
    )]
    NotYet {
        /// The pool's name.
        pool: String,
    },
    /// Pods of this namespace may not use it.
    #[error(transparent)]
    Denied(NotGranted),
    /// The socket could not be bound.
    #[error(transparent)]
    Socket(#[from] strand_kv_door::DoorError),
    /// There is no memory for the pool's blocks on their way.
    #[error("the pool cannot be served on this node: {0}; free some memory")]
    Rack(#[source] std::io::Error),
    /// Its record could not be kept.
    #[error("the door's record could not be written: {0}; check the agent's state directory")]
    Record(#[from] std::io::Error),
    /// The agent is going down.
    #[error("the agent is ending; try again once it is back")]
    Ending,
}

/// An open door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenDoor {
    /// Its socket.
    pub socket: PathBuf,
}

impl OpenDoor {
    fn of(request: &DoorRequest) -> Self {
        Self {
            socket: request.socket(),
        }
    }
}

/// Context memory as the rest of the agent sees it. Clones are the same.
#[derive(Clone)]
pub struct ContextMemory {
    asks: mpsc::UnboundedSender<Ask>,
    standing: watch::Receiver<BTreeMap<String, DriveStanding>>,
    shown: Shown,
    prefill: Option<Prefill>,
}

impl ContextMemory {
    /// Opens the doors of an earlier run again and waits for drives to serve; needs a tokio runtime.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn start(
        config: &ContextConfig,
        node: &str,
        state_dir: Option<&Path>,
        host: Arc<dyn DriveHost>,
    ) -> Result<Self, ContextError> {
        let network = Network::open(config, node)?;
        let (asks, asked) = mpsc::unbounded_channel();
        let (tell, standing) = watch::channel(BTreeMap::new());
        let shown = Shown::default();
        let channels = Channels {
            asks: asks.clone(),
            standing: tell,
            shown: shown.clone(),
        };
        let arena_bytes = config.arena_bytes;
        let serving = Serving::new(network, arena_bytes, state_dir, host, channels)
            .map_err(ContextError::State)?;
        tokio::spawn(serving.run(asked));
        Ok(Self {
            asks,
            standing,
            shown,
            prefill: config.prefill,
        })
    }

    /// Says what shall be served from now on.
    pub fn serve(&self, wanted: Wanted) {
        self.ask(Ask::Serve(Box::new(wanted)));
    }

    /// Closes a drive's context partition until the hold is dropped. None once the agent ends: nothing is open then.
    pub async fn hold(&self, drive: &str) -> Option<Hold> {
        let (held, hold) = oneshot::channel();
        let drive = drive.to_owned();
        self.ask(Ask::Hold { drive, held });
        hold.await.ok()
    }

    /// How the drives stand, where there is something to tell.
    pub fn standing(&self) -> watch::Receiver<BTreeMap<String, DriveStanding>> {
        self.standing.clone()
    }

    /// Opens a pod's door, which stays open over restarts of the agent. Opening it again changes nothing.
    ///
    /// # Errors
    /// [`DoorError`].
    pub async fn open_door(&self, id: &str, request: DoorRequest) -> Result<OpenDoor, DoorError> {
        if !is_id(id) {
            return Err(DoorError::Id { id: id.to_owned() });
        }
        let (answer, opened) = oneshot::channel();
        let id = id.to_owned();
        self.ask(Ask::OpenDoor {
            id,
            request,
            answer,
        });
        opened.await.unwrap_or(Err(DoorError::Ending))
    }

    /// Closes a pod's door. One that is not open is closed already.
    ///
    /// # Errors
    /// [`DoorError::Record`], [`DoorError::Ending`].
    pub async fn close_door(&self, id: &str) -> Result<(), DoorError> {
        let (answer, closed) = oneshot::channel();
        let id = id.to_owned();
        self.ask(Ask::CloseDoor { id, answer });
        closed.await.unwrap_or(Err(DoorError::Ending))
    }

    /// The doors that are open, by id.
    pub async fn doors(&self) -> BTreeMap<String, DoorRequest> {
        let (answer, doors) = oneshot::channel();
        self.ask(Ask::Doors(answer));
        doors.await.unwrap_or_default()
    }

    /// What is served, and how.
    pub fn report(&self) -> ContextReport {
        self.shown.report()
    }

    /// Its metrics, read when they are asked for.
    pub fn metrics(&self) -> ContextMetrics {
        ContextMetrics::new(self.shown.clone(), self.prefill)
    }

    /// Closes all doors, then all stores, in order.
    pub async fn end(&self) {
        let (ended, end) = oneshot::channel();
        self.ask(Ask::End(ended));
        // A task that has ended already needs no waiting.
        let _ = end.await;
    }

    fn ask(&self, ask: Ask) {
        // The task ends only when the agent does; who waits for an answer learns it from the channel.
        let _ = self.asks.send(ask);
    }
}
