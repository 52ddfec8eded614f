//! A Kubernetes on this machine, for tests of what is installed: real control plane, real kubelets, real Pods.
//!
//! ```text
//!   guard ── cleans up when the bed is gone, however it went
//!   test ──► a network, mounts and processes of its own (`enter`)
//!              ├─ ControlPlane  etcd · kube-apiserver · controller manager · scheduler · snapshot controller   10.255.0.1, 10.96.0.1
//!              ├─ Node node-1   containerd · kubelet · its pods    10.255.0.11, pods 10.244.1.0/24   ┐ each with a network, mounts
//!              └─ Node node-2                                      10.255.0.12, pods 10.244.2.0/24   ┘ and processes of its own
//! ```
//!
//! Nodes share the machine's kernel, devices and loop devices; everything else is a node's own, so that what is installed needs no
//! other values than on a real cluster. How it works, what it cannot show: `docs/e2e.md`.

pub mod cluster;
pub mod control_plane;
pub mod enter;
pub mod guard;
pub mod images;
pub mod node;
pub mod policies;
pub mod process;
pub mod wait;

use std::path::PathBuf;

pub use cluster::Cluster;

/// The repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What `e2e/tools/build` has made of this name.
pub fn tool(name: &str) -> PathBuf {
    repository().join(".cache/tools").join(name)
}
