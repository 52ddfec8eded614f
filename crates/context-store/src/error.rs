//! What can go wrong, for whoever calls the store.

use std::io;

use crate::superblock::Identity;

/// Why a partition was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refused.
    #[error(
        "the context partition could not be {doing}: {error}; check the drive and the agent's permissions"
    )]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        #[source]
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "the context partition is in use by another process; stop it (after a kill -9, transfers still in flight keep the \
         partition for a moment: try again)"
    )]
    Busy,
    /// Too small, too large or not aligned.
    #[error("a context partition of {len} bytes at byte {offset} cannot be used: {reason}")]
    Geometry {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Something else lies there.
    #[error(
        "the context partition holds something that is no store of this project and is not blank; wipe it with a \
         DriveOperation that names the drive's serial"
    )]
    NotOurs,
    /// It is a store of another drive or pool.
    #[error(
        "the context partition belongs to drive {} of pool {}, not to drive {} of pool {}; put the drive back or wipe it \
         with a DriveOperation",
        found.drive, found.pool, wanted.drive, wanted.pool
    )]
    OthersDrive {
        /// Who is written on it.
        found: Identity,
        /// Who asked.
        wanted: Identity,
    },
    /// The partition was resized.
    #[error(
        "the context partition was written with {written} bytes and now has {found}; restore its size or wipe it with a \
         DriveOperation"
    )]
    OtherSize {
        /// In the superblock.
        written: u64,
        /// Now.
        found: u64,
    },
    /// Written by a later release.
    #[error(
        "the context partition has format {found}, and this release knows formats up to {known}; upgrade the node agent, \
         or wipe the partition to lose its blocks"
    )]
    Newer {
        /// In the superblock.
        found: u32,
        /// The newest that this code reads.
        known: u32,
    },
}

/// Why an operation could not be carried out at all. A miss or a dropped put is none of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key is empty or too long.
    #[error("a key of {len} bytes is refused; keys have 1 to {max} bytes", max = crate::MAX_KEY)]
    KeyLength {
        /// Bytes.
        len: usize,
    },
    /// The value is empty or too long.
    #[error("a value of {len} bytes is refused; values have 1 byte to {max}, and fit a quarter of the partition", max = crate::MAX_VALUE)]
    ValueLength {
        /// Bytes.
        len: usize,
    },
    /// The caller's memory does not suit.
    #[error("memory of {given} bytes does not suit a value of {needed}: {reason}")]
    Memory {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Too much waits to be read.
    #[error(
        "too much of this namespace waits to be read from the drive; try again, or ask for less at once"
    )]
    Busy,
    /// No room came free in time for what says that blocks are deleted, or expire.
    #[error(
        "no room came free in time to write the deletion or expiry down, and nothing has changed; try again"
    )]
    NoRoom,
    /// Too many namespaces at once.
    #[error(
        "the partition holds blocks of 65,000 namespaces; no further one fits until one of them is empty"
    )]
    TooManyNamespaces,
    /// The drive failed; its health callback has been told.
    #[error("the drive failed: {0}; the agent has counted it against the drive")]
    Drive(#[from] io::Error),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}
