//! x

pub mod carve;
pub mod reason;
pub mod verdict;
