//! The native door to context memory, as the agent sees it.
//!
//! A [`Node`] has the blocks and a total of arena bytes; it opens a [`Door`] for each pod: a Unix socket, a namespace,
//! a share of the bytes. Which socket a pod connects to says who it is, and who connects is looked at (`guest`). Each connection is a session with its own
//! epoch, its own leases and arenas that no other pod ever maps:
//!
//! ```text
//!  node     Node ── ArenaBudget (bytes of all pods, of all nodes that share it)
//!  door     Door: accept task ── Arenas (this pod's memory, reused session after session)
//!  session  one task reads frames, one task a request answers (serve), replies go straight to the socket
//!  streams  values that do not fit an arena: read in parts, gathered from parts
//!  blocks   Blocks: the context store, or an in-memory one for tests
//! ```
//!
//! Whatever a pod sends is copied into private memory once and then checked; what it writes into PUT stays
//! hostile. A session that ends, however it ends, gives back every slot: leases go with it, requests that still
//! read or write the arena keep it until they are done.

mod arenas;
mod blocks;
mod budget;
mod door;
mod families;
mod greet;
mod guest;
mod memory;
mod meter;
mod node;
mod refused;
mod room;
mod serve;
mod session;
mod socket;
mod store;
mod streams;

pub use blocks::{Blocks, Described, Landed, Life, Opened, PART, Page, Put, PutOptions, Totals};
pub use budget::ArenaBudget;
pub use door::{Door, DoorError, DoorOptions};
pub use families::families;
pub use guest::PodUid;
pub use memory::{MemoryBlocks, OpenedCopy};
pub use meter::{MeterStats, OperationStats};
pub use node::{DoorStats, Node, Usage};
pub use refused::Refused;
pub use room::Room;
pub use store::{OpenedValue, StoreArena, StoreBlocks, refused};
pub use strand_context_store::Namespace;
