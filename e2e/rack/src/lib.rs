//! A rack of virtual machines: real NVMe drives as far as the kernel can tell, a network that can be broken, and hands that pull
//! drives and power cords.
//!
//! ```text
//!   test ──► Rack ─┬─ Guest ── QEMU ─┬─ NVMe drives: sparse files, one a drive, each in a slot of its own
//!                  │   │             ├─ network to the host (10.0.2.2): the API server of Cluster
//!                  │   │             ├─ network between the guests (10.77.0.N) ──► Network, a switch in this process
//!                  │   └─ Control ───┴─ a virtio-serial port: scripts in, their output back
//!                  └─ Network: link down, partition, delay, loss
//! ```
//!
//! Every wait is for a state, with a bound: emulated machines are 5 to 50 times slower than real ones, and nothing here asserts how
//! long something took. What a rack makes is gone when it is dropped, also when its test panics or is killed; of a test that
//! panics the logs stay in `target/rack-logs/`.
//!
//! How to run it, what it cannot show: `docs/rack-bed.md`.

mod cache;
pub mod cluster;
pub mod control;
pub mod cpio;
pub mod csi;
pub mod drive;
pub mod guest;
mod host;
pub mod image;
pub mod network;
pub mod qmp;
pub mod rack;
pub mod switch;
pub mod wait;

pub use cache::Lost;
pub use cluster::Cluster;
pub use control::Said;
pub use csi::CsiNode;
pub use drive::{DrivePlan, Fault};
pub use guest::Guest;
pub use rack::Rack;
