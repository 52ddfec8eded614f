//! All drives of a pool as one store of KV-cache blocks.
//!
//! [`Rack`] stands behind the doors of a node. It ranks the drives of the pool map for a key ([`owners`]), serves what is
//! on a drive of its own from there, and asks the owner's agent for the rest: one hop, and the owner never asks on.
//!
//! ```text
//!  Rack: value (get, put), batch (everything else) ── owners, ledger: where blocks may lie, what is owed where
//!    │ local: drives                    │ remote
//!    ▼                                  ▼
//!  StoreBlocks                 Peer (up or dead) ─ Link (small lane, bulk lane, watch)
//!                                       │ greet: hello, proof · seal: keys, tags · frame: bytes
//!                                       │ calls, landing: what waits, and where bytes go
//!                                       ▼
//!  another agent:   Peers (port) ─ Host ─ guests, buffers ─ its drives
//! ```

mod batch;
mod blocks;
mod buffers;
mod calls;
mod drives;
pub mod frame;
mod greet;
mod guests;
mod host;
mod inbox;
mod landing;
mod ledger;
mod line;
mod link;
mod listen;
mod opened;
mod options;
mod owners;
mod peer;
mod pulse;
mod rack;
mod readable;
mod seal;
mod stats;
mod sync;
mod value;

pub use listen::Peers;
pub use opened::OpenedBlock;
pub use options::RackOptions;
pub use rack::Rack;
pub use seal::PeerKey;
pub use stats::{PeerState, PeerStats, RackStats};
