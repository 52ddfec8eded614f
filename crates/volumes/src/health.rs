//! What is wrong with a drive's storage side.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise, statvfs};
use rustix::io::Errno;

use crate::drive::Drive;

/// The state of a drive's storage side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Good,
    /// The file system has no room left: its thin legs' writes fail.
    Full,
    /// The file system stopped itself after an error; what was acknowledged before is on the drive. Detach the drive's legs, then close
    /// and open it.
    ShutDown,
    /// The file system or the drive takes no writes.
    ReadOnly,
    /// The drive does not answer as it should.
    DriveFailed {
        /// What was tried, and the kernel's answer.
        why: String,
    },
}

impl Drive {
    /// Whether [`Drive::health`] would find something for certain. This writes nothing, so that it can be asked often; it sees a file
    /// system that was shut down or is full.
    pub fn is_ill(&self) -> bool {
        fs::read_dir(&self.root).is_err() || is_full(&self.root)
    }
}

/// Reads the drive, and writes a small file to its file system.
pub(crate) fn probe(root: &Path, device: &File) -> Health {
    match write(root) {
        Ok(()) => match is_full(root) {
            true => Health::Full,
            false => Health::Good,
        },
        Err(error) => judge(&error, read(device)),
    }
}

/// A write failed as `error` says; reading the drive itself went as `read` says.
fn judge(error: &io::Error, read: io::Result<()>) -> Health {
    if let Err(error) = read {
        return Health::DriveFailed {
            why: format!("reading it: {error}"),
        };
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => Health::Full,
        Some(Errno::ROFS) => Health::ReadOnly,
        Some(Errno::IO | Errno::UCLEAN) => Health::ShutDown,
        _ => Health::DriveFailed {
            why: format!("writing to its file system: {error}"),
        },
    }
}

fn write(root: &Path) -> io::Result<()> {
    let path = root.join("probe");
    let mut file = File::create(&path)?;
    file.write_all(b"probe")?;
    file.sync_all()?;
    fs::remove_file(path)
}

/// Less than a MiB: the next writes fail.
fn is_full(root: &Path) -> bool {
    statvfs(root).is_ok_and(|space| space.f_bavail * space.f_frsize < 1 << 20)
}

fn read(device: &File) -> io::Result<()> {
    fadvise(device, 0, None, Advice::DontNeed)?;
    device.read_exact_at(&mut [0; 4096], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_that_answers_is_not_blamed_for_its_file_system() {
        let errno = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert_eq!(judge(&errno(Errno::IO), Ok(())), Health::ShutDown);
        assert_eq!(judge(&errno(Errno::NOSPC), Ok(())), Health::Full);
        assert_eq!(judge(&errno(Errno::ROFS), Ok(())), Health::ReadOnly);
        let failed = judge(&errno(Errno::IO), Err(errno(Errno::IO)));
        assert!(matches!(failed, Health::DriveFailed { .. }));
    }
}
