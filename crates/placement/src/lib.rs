//! Every decision of Strand: functions from observed state to a plan, without I/O. What to adopt, how to
//! carve, what the pool map is, where volumes lie; processes observe, call these, and apply what they say.

pub mod access;
pub mod adopt;
pub mod carve;
pub mod identity;
pub mod map;
pub mod observation;
pub mod operation;
pub mod rack;
pub mod reason;
pub mod rendezvous;
pub mod select;
pub mod status;
pub mod verdict;
pub mod volumes;
pub mod wear;
