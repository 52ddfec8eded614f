//! What every process of Strand has: a beginning, logs, `/metrics`, `/healthz`, `/readyz`, and an end on a signal; with the
//! feature `cluster`, the way to the Kubernetes API; with `confine`, a seccomp profile.

#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "confine")]
mod confine;
mod health;
mod logs;
mod start;
mod stop;

#[cfg(feature = "cluster")]
pub use cluster::connect;
#[cfg(feature = "confine")]
pub use confine::{Rings, confine};
pub use health::{Health, router};
pub use logs::{LogArgs, LogFormat};
pub use start::{start, start_on};
pub use stop::stopped;
