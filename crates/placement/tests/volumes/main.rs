//! Decisions on volumes: golden scenarios, and properties that hold whatever happens to objects, agents and drives.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect stops there"
)]

mod agent;
mod arrays;
mod fencing;
#[path = "../golden/mod.rs"]
mod golden;
mod moving;
mod properties;
mod record;
mod scenarios;
mod spread;
mod world;
