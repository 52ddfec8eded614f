//! The operator's decisions over whole racks: golden scenarios, and properties that hold for every rack.

mod converge;
mod scenarios;
mod world;
