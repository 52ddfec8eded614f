//! How bytes get to and from the drive.
//!
//! [`Engine`] has two implementations: [`uring`] and, where io_uring is forbidden, [`threads`]. [`disk`] stands before
//! either: it queues by class and namespace, keeps the depth within its budget, and watches the drive's health.
#![allow(
    unsafe_code,
    reason = "memory that drives write into has no safe type; every use says why it is sound"
)]

pub(crate) mod claim;
pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod faulty;
pub(crate) mod memory;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod share;
pub(crate) mod threads;
pub(crate) mod together;
pub(crate) mod uring;

use std::fs::File;
use std::io;
use std::sync::Arc;

use memory::{Region, Span};

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Write,
    /// All writes completed before this one started are on stable media once it is done.
    Flush,
}

/// Called once, from any thread, when no drive can touch the transfer's memory any more.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One transfer: adjacent bytes on the medium, one or more pieces of memory.
pub(crate) struct Io {
    pub(crate) verb: Verb,
    /// Byte of the medium; a multiple of 4 KiB.
    pub(crate) offset: u64,
    /// Page-aligned; lengths are multiples of 4 KiB.
    pub(crate) pieces: Vec<Span>,
    pub(crate) done: Done,
}

impl Io {
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(Span::len).sum()
    }

    /// Ends the transfer: gives up its memory, then tells who waits.
    pub(crate) fn finish(self, result: io::Result<()>) {
        drop(self.pieces);
        (self.done)(result);
    }
}

/// Something that carries transfers out, in any order.
pub(crate) trait Engine: Send + Sync {
    /// Begins a transfer. Never blocks for long.
    fn start(&self, io: Io);

    /// Deallocates a range; what it reads afterwards is not defined. Blocks.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Pins a region's pages ahead of transfers, where the engine can. Blocks: 0.4 to 2.3 s a GiB when cold.
    fn register(&self, region: &Arc<Region>) -> io::Result<()>;

    /// Lets a region's pages go again.
    fn unregister(&self, region: &Arc<Region>) -> io::Result<()>;

    /// Its name, for people.
    fn name(&self) -> &'static str;
}

/// The best engine that this kernel and its policies allow, and why not io_uring where it is not.
pub(crate) fn best(file: File) -> io::Result<(Arc<dyn Engine>, Option<String>)> {
    let file = Arc::new(file);
    match uring::Uring::new(Arc::clone(&file)) {
        Ok(engine) => Ok((Arc::new(engine), None)),
        Err(error) => {
            let why = format!(
                "io_uring cannot be used ({error}); context memory falls back to threads, which is slower. Allow \
                 io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile and set \
                 kernel.io_uring_disabled to 0"
            );
            Ok((Arc::new(threads::Threads::new(file)?), Some(why)))
        }
    }
}

/// Tells the medium that a range holds nothing: BLKDISCARD on a block device, a punched hole in a file.
fn discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, FileType, fallocate, fstat};
    let kind = FileType::from_raw_mode(fstat(file)?.st_mode);
    if kind == FileType::BlockDevice {
        return claim::discard_blocks(file, offset, len);
    }
    fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset,
        len,
    )?;
    Ok(())
}
