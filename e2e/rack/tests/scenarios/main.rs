//! What is promised about real drives and networks, each promise as a scenario on a rack of virtual machines.
//!
//! `make rack-test` runs them; by themselves they are left out, since they need QEMU, root and minutes.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that meets an error it did not expect stops there"
    )
)]

#[cfg(test)]
mod arrays;
#[cfg(test)]
mod bed;
#[cfg(test)]
mod csi;
#[cfg(test)]
mod every;
#[cfg(test)]
mod fabric;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod power;
#[cfg(test)]
mod redundant;
#[cfg(test)]
mod remote;
