//! A memfd and its mapping.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a memfd in this process's address space.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is plain memory that lives until the drop of this value; which thread uses or drops it
// does not matter. Who may touch which bytes is decided by the types around it.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out raw pointers only.
unsafe impl Sync for Mapping {}

/// What a mapping allows this process.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Read,
    ReadWrite,
}

impl Mapping {
    pub(super) fn new(memory: &impl AsFd, bytes: usize, access: Access) -> io::Result<Self> {
        let size = u64::try_from(fstat(memory)?.st_size).unwrap_or(0);
        if bytes == 0 || size < bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an arena of {size} bytes was passed for one of {bytes}"),
            ));
        }
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that exists.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                memory,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of `offset`, with `length` bytes behind it inside the mapping.
    pub(super) fn at(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        if end > self.bytes {
            return None;
        }
        // SAFETY: `offset` lies inside the mapping or one past its end, as just checked.
        Some(unsafe { self.start.as_ptr().add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; every pointer into it is tied to a value that holds
        // this one alive. A failure would leave the range mapped, which harms nothing.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.bytes) };
    }
}

/// A memfd of `bytes`, closed on exec, not executable where the kernel (6.3) can promise that.
pub(super) fn create(name: &str, bytes: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    ftruncate(&memory, bytes as u64)?;
    Ok(memory)
}

/// Seals the size for ever, and with it the set of seals.
pub(super) fn seal(memory: &OwnedFd, more: SealFlags) -> io::Result<()> {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL | more;
    Ok(fcntl_add_seals(memory, seals)?)
}
