//! Tests of what the crate keeps to itself: formats, crash safety, and NVMe drives, which only fixtures can show here.

mod crash;
mod formats;
mod lost;
mod nvme;
mod power;
