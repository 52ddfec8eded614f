//! `strandctl kv` and `strandctl bench` as people run them, against a real endpoint and a real native door over memory.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect shall stop there"
)]

mod bed;
mod kv;
mod replay;
