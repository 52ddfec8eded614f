//! Legs on other machines: exports, connections and arrays by the guests' kernels, driven by the code that the agent has for it.

mod fencing;
pub mod legs;
mod mirror;
mod rdma;
