//! Volumes of several legs: arrays by the guests' md, driven by the code that the agent has for it (`rack-arrays` in the guests).

mod fabric;
mod host;
mod mirror;
mod raid6;
mod readers;
mod sizes;
mod volume;
