//! Storage sides on real loop devices and XFS. Needs root.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod attachments;
mod bed;
mod copying;
mod durable;
mod faults;
mod fetching;
mod kill;
mod legs;
mod limits;
mod room;
mod sides;
