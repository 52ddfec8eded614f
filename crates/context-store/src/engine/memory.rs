//! Memory that drives read into and write out of.

use std::any::Any;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::PAGE;

/// Engines that one region can be registered with at once: as many as a node has drives that are worth it.
const ENGINES: usize = 32;

/// No engine. Others are numbered from 1 on, and never again within a process.
const NOBODY: u64 = 0;

/// A mapped piece of memory, page-aligned, that I/O goes straight to and from: an arena, or private pages.
///
/// Its bytes are reached through raw pointers alone, since other processes may hold the same pages: the store never
/// takes a decision from bytes here that it has not first copied into memory of its own.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    /// Nobody outside this process can hold these pages.
    private: bool,
    /// Where engines' tables of registered buffers have it: an engine's number above the slot's 16 bits.
    slots: [AtomicU64; ENGINES],
}

// SAFETY: a region is an address range that stays mapped until drop; every access goes through raw pointers whose users
// state for themselves why they may touch the bytes.
unsafe impl Send for Region {}
// SAFETY: as above; the only field that changes is atomic.
unsafe impl Sync for Region {}

impl Region {
    /// Private zeroed memory of `len` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// The kernel's, where no memory can be mapped.
    pub fn anonymous(len: usize) -> io::Result<Arc<Region>> {
        let len = len.max(1).next_multiple_of(PAGE);
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        Region::mapped(start.cast(), len, true)
    }

    /// Maps the first `len` bytes of a memfd, shared, readable and writable. `len` is a multiple of 4 KiB.
    ///
    /// The memfd must be sealed against shrinking before anyone else gets it: a page that is gone ends the process on
    /// access.
    ///
    /// # Errors
    /// `InvalidInput` where `len` is zero or no multiple of 4 KiB, else the kernel's.
    pub fn map_shared(memfd: impl AsFd, len: usize) -> io::Result<Arc<Region>> {
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("an arena of {len} bytes is no multiple of {PAGE}; round it up"),
            ));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memfd,
                0,
            )?
        };
        Region::mapped(start.cast(), len, false)
    }

    fn mapped(start: *mut u8, len: usize, private: bool) -> io::Result<Arc<Region>> {
        let start = NonNull::new(start)
            .ok_or_else(|| io::Error::other("the kernel mapped memory at address zero"))?;
        Ok(Arc::new(Region {
            start,
            len,
            private,
            slots: [const { AtomicU64::new(NOBODY) }; ENGINES],
        }))
    }

    /// Bytes of the region.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a region has at least one page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A range of the region, or none where it does not lie inside.
    #[must_use]
    pub fn span(self: &Arc<Self>, offset: usize, len: usize) -> Option<Span> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Span {
            region: Arc::clone(self),
            offset,
            len,
            guard: None,
        })
    }

    /// The region's slot in the table of an engine.
    pub(crate) fn registered_slot(&self, engine: u32) -> Option<u16> {
        let all = self.slots.iter().map(|slot| slot.load(Ordering::Acquire));
        let own = |entry: &u64| entry >> 16 == u64::from(engine);
        all.into_iter().find(own).map(|entry| entry as u16)
    }

    /// Notes the region's slot in the table of an engine that it is not noted for. `false`: too many engines have it.
    #[must_use]
    pub(crate) fn note_slot(&self, engine: u32, slot: u16) -> bool {
        let entry = u64::from(engine) << 16 | u64::from(slot);
        let free = |at: &AtomicU64| {
            at.compare_exchange(NOBODY, entry, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        self.slots.iter().any(free)
    }

    /// Forgets the region's slot in the table of an engine.
    pub(crate) fn forget_slot(&self, engine: u32) {
        for slot in &self.slots {
            if slot.load(Ordering::Acquire) >> 16 == u64::from(engine) {
                slot.store(NOBODY, Ordering::Release);
            }
        }
    }

    /// Gives every page its memory now, so that pinning them later takes no faults.
    pub(crate) fn populate(&self) -> io::Result<()> {
        // SAFETY: the range is this region's own mapping; populating changes no byte of it.
        let populated = unsafe {
            madvise(
                self.start.as_ptr().cast(),
                self.len,
                Advice::LinuxPopulateWrite,
            )
        };
        Ok(populated?)
    }

    pub(crate) fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this value's constructor, and no Span is left that could reach it. An engine
        // that registered it holds the pages themselves, not the mapping.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            tracing::error!(%error, len = self.len, "an arena could not be unmapped");
        }
    }
}

/// A range of a [`Region`] that one operation reads into or writes out of.
///
/// Whoever hands a span to the store leaves its bytes to that operation until it is done. The store keeps a copy of the
/// span for as long as a drive may still touch the memory, also when the operation's future was dropped: give the span
/// a guard ([`Span::guarded`]) that returns the slot to its arena, and no late transfer can land in a slot that was
/// given to someone else.
#[derive(Clone)]
pub struct Span {
    region: Arc<Region>,
    offset: usize,
    len: usize,
    guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Span {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Span")
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Span {
    /// The same range, with something that is dropped once no drive can touch the range any more.
    #[must_use]
    pub fn guarded(mut self, guard: Arc<dyn Any + Send + Sync>) -> Span {
        self.guard = Some(guard);
        self
    }

    /// Bytes of the range.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the range has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of this range, or none where it does not lie inside. It keeps the guard.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Span> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Span {
            region: Arc::clone(&self.region),
            offset: self.offset + offset,
            len,
            guard: self.guard.clone(),
        })
    }

    /// Whether a drive can transfer here: starts on a 4 KiB boundary.
    #[must_use]
    pub fn is_aligned(&self) -> bool {
        self.offset.is_multiple_of(PAGE)
    }

    /// Copies the range's first bytes out, as many as both have.
    pub fn copy_to(&self, into: &mut [u8]) {
        let len = into.len().min(self.len);
        // SAFETY: the span lies inside a mapped region, `into` is private memory, so they do not overlap. Another
        // process may write the bytes meanwhile; then the copy holds some mixture, which callers treat as hostile.
        unsafe { std::ptr::copy_nonoverlapping(self.address(), into.as_mut_ptr(), len) };
    }

    /// Copies bytes into the range's start, as many as both have.
    pub fn copy_from(&self, from: &[u8]) {
        let len = from.len().min(self.len);
        // SAFETY: the span lies inside a mapped region, `from` is private memory, so they do not overlap; the span's
        // bytes belong to the operation that holds it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.address(), len) };
    }

    /// Gives the range's bytes to something that changes them in place: a socket that is read from, a cipher that opens
    /// what was received.
    ///
    /// For memory that nobody but this process writes (private pages, a GET arena), and for the operation that holds the
    /// span alone: no drive, no clone of the span and no other access may touch the range meanwhile.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn fill(&self, change: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        // SAFETY: the span lies inside a mapped region, and its bytes belong to the operation that holds it, which is
        // here alone with them. The pod of a GET arena can only read.
        change(unsafe { std::slice::from_raw_parts_mut(self.address(), self.len) })
    }

    /// Shows the range's bytes: for memory that nobody writes meanwhile, and so never for a PUT arena, whose pod may
    /// change it at any instant ([`Span::copy_to`] is for that).
    pub fn with_bytes<R>(&self, show: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: the span lies inside a mapped region, and its bytes belong to the operation that holds it, which does
        // not write them now.
        show(unsafe { std::slice::from_raw_parts(self.address(), self.len) })
    }

    /// XXH3-64 of the range's bytes, as they are at the moment when each is read.
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        // SAFETY: the span lies inside a mapped region. A pod may write an arena's pages meanwhile: the hash reads each
        // byte without acting on its value, and a mixture gives some hash, which is then a mismatch and a miss.
        let bytes = unsafe { std::slice::from_raw_parts(self.address(), self.len) };
        twox_hash::XxHash3_64::oneshot_with_seed(seed, bytes)
    }

    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: the constructors checked that the range lies inside the region.
        unsafe { self.region.address().add(self.offset) }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }
}

/// Private page-aligned memory with one owner.
#[derive(Debug)]
pub struct Buffer {
    region: Arc<Region>,
    len: usize,
}

impl Buffer {
    /// Zeroed memory of `len` bytes.
    ///
    /// # Errors
    /// The kernel's, where no memory can be mapped.
    pub fn zeroed(len: usize) -> io::Result<Buffer> {
        let region = Region::anonymous(len)?;
        Ok(Buffer { region, len })
    }

    /// Gives the memory to an operation; [`Buffer::from_span`] takes it back.
    #[must_use]
    pub fn into_span(self) -> Span {
        Span {
            region: self.region,
            offset: 0,
            len: self.len,
            guard: None,
        }
    }

    /// The memory that [`Buffer::into_span`] gave away, once nobody else holds it.
    #[must_use]
    pub fn from_span(mut span: Span) -> Option<Buffer> {
        let alone = Arc::get_mut(&mut span.region)?;
        (alone.private && span.offset == 0).then_some(Buffer {
            region: span.region,
            len: span.len,
        })
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: private memory, mapped for `region.len() >= len` bytes, and this is its only owner.
        unsafe { std::slice::from_raw_parts(self.region.address(), self.len) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.region.address(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_filled_and_shown_where_it_lies() {
        let region = Region::anonymous(2 * PAGE).unwrap();
        let span = region.span(10, 5).unwrap();
        let filled = span.fill(|bytes| {
            bytes.copy_from_slice(b"hello");
            Ok(bytes.len())
        });
        assert_eq!(filled.unwrap(), 5);
        let whole = region.span(0, PAGE).unwrap();
        whole.with_bytes(|bytes| {
            assert_eq!(&bytes[10..15], b"hello");
            assert!(
                bytes[..10]
                    .iter()
                    .chain(&bytes[15..])
                    .all(|byte| *byte == 0)
            );
        });
        let refused = span.fill(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
