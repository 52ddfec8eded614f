//! When a write to a leg is durable: once it is flushed, as on any drive, or already once it is acknowledged.
//!
//! Whoever has a leg's device and dies with it has lost nothing that he was told is durable. It is otherwise where the leg's machine can lose
//! power alone: a host on another machine finds its way back, and flushes what the leg has lost, with success; and an array has forgotten which
//! blocks it wrote to last. So to their legs each write is made durable before it is acknowledged (docs/decisions/0023).

use std::fs::File;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::record::LegRecord;

/// When a write to a leg is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Once it is flushed.
    Flushed,
    /// Once it is acknowledged.
    Acknowledged,
}

impl Durable {
    /// What a leg's writer needs, who is on another machine or not.
    pub(crate) fn of(record: &LegRecord, lent: bool) -> Durable {
        match lent || record.array.is_some() {
            true => Durable::Acknowledged,
            false => Durable::Flushed,
        }
    }

    /// Has the kernel write to a leg's file so, whoever has it open, from now on and after a reboot. What is so already is not touched.
    ///
    /// The loop device has no way to ask for it, nor has the kernel's NVMe target; but XFS does it for every file with this flag
    /// (`FS_SYNC_FL`, which `lsattr` shows as `S`), with FUA where nothing but the bytes is to be written.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn set(self, data: &File) -> std::io::Result<()> {
        let flags = ioctl_getflags(data)?;
        let mut shall = flags;
        shall.set(IFlags::SYNC, self == Durable::Acknowledged);
        if shall != flags {
            ioctl_setflags(data, shall)?;
        }
        Ok(())
    }
}
