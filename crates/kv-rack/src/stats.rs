//! How a rack stands, as plain numbers. Counters only grow.

/// Whether a peer can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Nothing was asked of it yet.
    Idle,
    /// It is being connected to for the first time.
    Connecting,
    /// It can.
    Up,
    /// It cannot; it is probed.
    Dead,
}

/// One peer, as this agent sees it when it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// Its node.
    pub node: String,
    /// Whether it can be asked.
    pub state: PeerState,
    /// Requests sent to it; a batch counts once.
    pub requests: u64,
    /// Gets that it had the block for.
    pub hits: u64,
    /// Gets that it had not, dead as it may have been.
    pub misses: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Times that it was taken for dead.
    pub deaths: u64,
    /// Requests that took too long although the peer was well.
    pub timeouts: u64,
    /// Pieces of values that came when nobody waited for them any more.
    pub late_pieces: u64,
    /// Pieces of values that did not pass their tag.
    pub torn_pieces: u64,
    /// Requests that wait for it now.
    pub waiting: usize,
}

/// A rack, seen from one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RackStats {
    /// Epoch of the map that it goes by.
    pub epoch: i64,
    /// Peers that the maps name.
    pub peers: Vec<PeerStats>,
    /// Gets that found their block on a drive of this node.
    pub local_hits: u64,
    /// Gets that found it nowhere.
    pub misses: u64,
    /// Gets that found it at a former owner.
    pub former_hits: u64,
    /// Gets that found it at the owner after one that was away.
    pub next_hits: u64,
    /// Puts that went to the next owner.
    pub diverted: u64,
    /// Keys that have to be deleted at places that are away.
    pub owed: usize,
    /// Bytes of values asked for and not yet received.
    pub in_flight_bytes: usize,
    /// Bytes of buffers that values for or from peers are in.
    pub buffered_bytes: usize,
    /// Pieces of values from peers that did not pass their tag.
    pub torn_pieces: u64,
}
