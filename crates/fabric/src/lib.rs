//! Legs on other nodes, by the kernel's own engines: [`Target`] exports block devices through nvmet's configfs, [`Initiator`]
//! connects to them through `/dev/nvme-fabrics`. Names, keys and the decision what to export are pure.
//!
//! Nothing is remembered here: what is exported and connected is read from the kernel, so an agent that was killed goes on from
//! what it finds, and I/O under way does not notice.

mod error;
mod initiator;
mod name;
mod plan;
pub mod rdma;
mod secret;
mod target;

pub use error::FabricError;
pub use initiator::{Connection, Initiator, Remote};
pub use name::Nqn;
pub use plan::{Step, plan};
pub use secret::Secret;
pub use target::{Export, Exported, Listen, Target, Transport};
