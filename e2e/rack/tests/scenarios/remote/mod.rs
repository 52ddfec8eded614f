//! Volumes on other machines than the one that holds their bytes: real operator, real agents, and a consumer that writes files and
//! notes their sums.

pub mod bed;
mod drained;
mod losses;
mod moves;
mod rdma;
mod unflushed;
