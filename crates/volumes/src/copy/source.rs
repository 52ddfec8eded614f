//! What legs are copied from.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::{ALIGNED, DIRECT};
use crate::drive::Drive;
use crate::error::VolumeError;
use crate::record::LegRecord;

/// What bytes are copied from.
pub(crate) trait Source {
    /// They, for direct I/O.
    fn open(&self) -> io::Result<File>;

    /// Where the next data at or after `offset` begin, or the end: what lies between reads as zeroes.
    fn next_data(&self, bytes: &File, offset: u64, end: u64) -> io::Result<u64>;

    /// Whether nobody can have written to them since the copy began.
    fn is_still(&self) -> Result<bool, VolumeError>;

    /// What it means that they cannot be read.
    fn lost(&self, action: &'static str, error: io::Error) -> VolumeError;
}

/// A leg of another drive of this node.
pub(super) struct Here<'a>(pub &'a Drive, pub &'a LegRecord);

impl Source for Here<'_> {
    fn open(&self) -> io::Result<File> {
        File::options()
            .read(true)
            .custom_flags(DIRECT)
            .open(self.0.data(&self.1.name))
    }

    fn next_data(&self, bytes: &File, offset: u64, end: u64) -> io::Result<u64> {
        match seek(bytes, SeekFrom::Data(offset)) {
            Ok(at) => Ok((at / ALIGNED as u64 * ALIGNED as u64).clamp(offset, end)),
            Err(Errno::NXIO) => Ok(end),
            Err(error) => Err(error.into()),
        }
    }

    fn is_still(&self) -> Result<bool, VolumeError> {
        Ok(self.0.inside()?.copied.contains(&self.1.uuid))
    }

    fn lost(&self, action: &'static str, error: io::Error) -> VolumeError {
        VolumeError::at(&self.0.data(&self.1.name), action)(error)
    }
}
