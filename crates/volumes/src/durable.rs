//! When a write to a leg is durable: once it is flushed, as on any drive, or already once it is acknowledged.
//!
//! Whoever has a leg's device and dies with it has lost nothing that he was told is durable. It is otherwise where the leg's machine can lose
//! power alone: a host on another machine finds its way back, and flushes what the leg has lost, with success; and an array has forgotten which
//! blocks it wrote to last. So to their legs each write is made durable before it is acknowledged (docs/decisions/0023).

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::VolumeError;
use crate::record::LegRecord;

/// From this version on the kernel asks a file about the flag when it writes to it. Before, a loop device with direct I/O passed that by.
const SINCE: (u32, u32) = (6, 0);

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
    /// What was acknowledged before is flushed.
    ///
    /// # Errors
    /// [`VolumeError::OldKernel`], [`VolumeError::Io`].
    pub(crate) fn set(self, leg: &str, path: &Path) -> Result<(), VolumeError> {
        let at = VolumeError::at(path, "having its writes made durable in time");
        let at_once = self == Durable::Acknowledged;
        let set = || {
            let data = File::open(path)?;
            let flags = ioctl_getflags(&data)?;
            let mut shall = flags;
            shall.set(IFlags::SYNC, at_once);
            if shall == flags {
                return Ok(());
            }
            if at_once {
                // Most of it before the flag is there, so that little is left to whoever is killed in between.
                data.sync_all()?;
            }
            ioctl_setflags(&data, shall)?;
            data.sync_all()
        };
        if at_once {
            let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
            let kernel = kernel.unwrap_or_default().trim().to_owned();
            if !knows(&kernel) {
                let leg = leg.to_owned();
                return Err(VolumeError::OldKernel { leg, kernel });
            }
        }
        set().map_err(at)
    }
}

/// Whether a kernel of this release heeds the flag.
fn knows(release: &str) -> bool {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || parts.next()?.parse::<u32>().ok();
    matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) >= SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_and_what_is_none_are_not_relied_on() {
        for knowing in ["6.0.0", "6.1.0-31-amd64", "6.12.95+deb12-amd64", "7.0-rc1"] {
            assert!(knows(knowing), "{knowing}");
        }
        for not in [
            "5.15.0-130-generic",
            "5.14.0-503.el9",
            "4.18.0",
            "",
            "linux",
        ] {
            assert!(!knows(not), "{not}");
        }
    }
}
