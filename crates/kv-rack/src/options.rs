//! Settings of a rack.

use std::time::Duration;

use crate::seal::PeerKey;

/// How an agent takes part in a pool.
#[derive(Clone, Debug)]
pub struct RackOptions {
    /// This node's name in the pool map.
    pub node: String,
    /// The pool's identity: it names the pool to peers, and seeds the hash that ranks drives for keys.
    pub pool_id: String,
    /// What all agents of the pool share.
    pub key: PeerKey,
    /// Owners that a block is put to: 1, or 2 for those who want copies.
    pub copies: usize,
    /// Bytes of values that this agent may have asked its peers for and not yet received, over all peers.
    pub in_flight_bytes: usize,
    /// Bytes of memory for values on their way between this node's drives and its peers. A larger value cannot be put
    /// here from another node.
    pub buffer_bytes: usize,
    /// Time without progress after which a peer is taken for dead.
    pub patience: Duration,
    /// How long blocks are still looked for at former owners.
    pub memory: Duration,
}

impl RackOptions {
    /// The defaults: one copy, 32 MiB in flight, 64 MiB of buffers, 50 ms of patience, 1 h of memory.
    #[must_use]
    pub fn new(node: impl Into<String>, pool_id: impl Into<String>, key: PeerKey) -> Self {
        Self {
            node: node.into(),
            pool_id: pool_id.into(),
            key,
            copies: 1,
            in_flight_bytes: 32 << 20,
            buffer_bytes: 64 << 20,
            patience: Duration::from_millis(50),
            memory: Duration::from_secs(3600),
        }
    }
}
