//! Kubernetes volumes from the pool: the CSI driver `csi.strand.dev`.
//!
//! ```text
//!  sidecars ──gRPC──► Controller ──PoolVolume, PoolSnapshot──► operator, agents
//!  kubelet  ──gRPC──► Node ──mounts, binds, file systems──► kernel
//!                      └──HTTP over a Unix socket──► the node's agent: devices, doors
//! ```
//!
//! - `request` reads what callers ask for: pure.
//! - [`Controller`] writes what shall be into objects and waits for it; it keeps nothing.
//! - [`Node`] makes every mount of ours on its node, and takes it away; the agent hands it devices.
//! - `error` has all that can go wrong, each with its gRPC code.

mod agent;
mod call;
mod cluster;
mod context;
mod controller;
mod error;
mod identity;
mod locks;
mod node;
mod request;
mod serve;

pub use call::Calls;
pub use cluster::Cluster;
pub use controller::Controller;
pub use identity::{DRIVER, Identity};
pub use node::{Node, NodeConfig};
pub use request::topology::{FABRIC, NODE};
pub use serve::{Endpoint, EndpointError, Services, serve};
