//! The bytes of one drive, behind a trait with two implementations: the held descriptor, and the tests' drive that loses power.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};

use crate::ioctl;

/// The bytes of one drive. Offsets and lengths are in bytes; ranges beyond the end are errors.
pub(crate) trait Medium {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills the buffer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of it; durable only after [`sync`](Self::sync).
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Tells the drive that a range holds nothing; it may read as anything afterwards. Nothing where the drive has no such command.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes a range read as zeroes.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes everything before durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open block device or plain file.
pub(crate) struct Disk<'a> {
    file: &'a File,
    size: u64,
    block_device: bool,
}

impl<'a> Disk<'a> {
    /// Takes the size of what is open. What the page cache holds is dropped, so that reading shows the device.
    pub(crate) fn new(file: &'a File) -> io::Result<Disk<'a>> {
        let metadata = file.metadata()?;
        let block_device = metadata.file_type().is_block_device();
        let size = if block_device {
            ioctl::device_size(file)?
        } else {
            metadata.len()
        };
        fadvise(file, 0, None, Advice::DontNeed)?;
        Ok(Disk {
            file,
            size,
            block_device,
        })
    }
}

impl Medium for Disk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.block_device {
            return punch_hole(self.file, offset, len);
        }
        match ioctl::discard(self.file, offset, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.block_device {
            ioctl::zero_out(self.file, offset, len)
        } else {
            punch_hole(self.file, offset, len)
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset,
        len,
    )?)
}
