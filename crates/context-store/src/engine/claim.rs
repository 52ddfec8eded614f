//! The exclusive claim on a partition's bytes, and the ioctl that deallocates them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `BLKDISCARD`: linux/fs.h.
const BLKDISCARD: u32 = opcode::none(0x12, 119);

/// Deallocates a range of a block device.
pub(super) fn discard_blocks(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64, start and length in bytes.
    unsafe { ioctl(file, Setter::<BLKDISCARD, [u64; 2]>::new([offset, len]))? };
    Ok(())
}

/// Claims a range of an open file for this open file description alone (`F_OFD_SETLK`, fcntl(2)).
///
/// The kernel gives such a lock up when the last reference to the description goes, and each transfer in flight holds
/// one. So whoever gets the claim after a `kill -9` knows that no transfer of the dead process is still on its way.
pub(crate) fn claim(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let bad = |_| io::Error::new(io::ErrorKind::InvalidInput, "range beyond 2^63 bytes");
    let lock = libc::flock64 {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(offset).map_err(bad)?,
        l_len: i64::try_from(len).map_err(bad)?,
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid struct flock64 that the kernel only reads, and the descriptor is open.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
