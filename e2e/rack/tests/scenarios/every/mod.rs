//! Volumes of every redundancy on one rack, all written to by one machine that holds none of their bytes, and one loss after the other: of
//! processes, of the network, of machines, of a drive. What `none` and `stripe` promise is that I/O waits and goes on; what `mirror` and
//! `raid6` promise is that it goes on without waiting for what was lost.

mod bed;
mod drives;
mod machines;
mod network;
mod processes;
mod versions;
