//! What every process of Strand has: logs, `/metrics`, `/healthz`, `/readyz`, and an end on a signal.

mod health;
mod logs;
mod stop;

pub use health::{Health, router};
pub use logs::{LogArgs, LogFormat};
pub use stop::stopped;
