//! Volumes of several legs, made by the real operator and had by real agents: what each redundancy does when a leg, a node, a link or a
//! consumer is lost.

pub mod bed;
mod emptied;
mod errors;
mod mirror;
mod moved;
mod node_drained;
mod raid6;
mod readers;
mod rebuilt;
mod snapshots;
mod split;
mod stripe;
mod unflushed;
