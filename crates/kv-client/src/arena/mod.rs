//! Memory shared between an agent and a pod, and the only unsafe code here.
//!
//! | | agent | pod |
//! | --- | --- | --- |
//! | GET | maps it writable, then seals FUTURE_WRITE, SHRINK, GROW, SEAL: [`GetSlot`] | can only read: [`ReadLease`] |
//! | PUT | sealed SHRINK, GROW, SEAL; reads it as hostile bytes: [`PutBytes`] | writes it: [`WriteLease`] |
//!
//! What makes plain slices sound where they are given out, and where they are not:
//! - The agent's slots of GET: no pod can write them (no writable mapping can be made after the seal, and
//!   the agent's own is made before), and [`Slots`](crate::slots::Slots) are exclusive inside the agent. So `&mut [u8]`.
//! - A pod's lease on GET: the agent writes a slot only while no lease on it is out. A pod trusts its node's agent
//!   as it trusts its kernel; the agent could read or write all of the pod's blocks anyway. So `&[u8]`.
//! - A pod's slots of PUT: the agent only reads them, and the pod's own pool is exclusive. So `&mut [u8]`.
//! - The agent's view of PUT: the pod may write at any instant. Never a slice: a raw pointer for a drive's DMA, or
//!   [`PutBytes::copy_to`], which reads through atomics.
//!
//! Neither side can be killed by the other through a mapping: without SHRINK no page can go away under it, and a
//! punched hole (possible in PUT alone) reads as zeroes.
#![allow(unsafe_code)]

mod agent;
mod memory;
mod pod;

pub use agent::{AgentArenas, ArenaMemory, GetSlot, Memory, PutBytes};
pub use pod::{PodArenas, ReadLease, WriteLease};
