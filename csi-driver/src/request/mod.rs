//! What requests ask for, read once and checked: pure.

pub mod capability;
pub mod id;
pub mod page;
pub mod parameters;
pub mod size;
pub mod topology;
