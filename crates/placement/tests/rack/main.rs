//! The operator's decisions over whole racks: golden scenarios, and properties that hold for every rack.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect stops there"
)]

mod converge;
#[path = "../golden/mod.rs"]
mod golden;
mod scenarios;
mod world;
