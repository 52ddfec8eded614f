//! The agent's ends of the two arenas.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::fs::SealFlags;
use tokio::sync::oneshot;

use super::memory::{Access, Mapping, create, seal};
use crate::slots::{NoSlots, SLOT, SlotPool, Slots};

/// A memfd and its size in bytes.
pub type Memory<'a> = (BorrowedFd<'a>, usize);

/// Two memfds of the agent's making, mapped and sealed. Belongs to one pod for as long as that pod's door is open,
/// and serves one session after the other: a pod that keeps an old mapping keeps memory that is its own anyway.
///
/// `A` is what the agent's store keeps of them: its own mappings, registered with its drives.
#[derive(Debug)]
pub struct ArenaMemory<A> {
    // First, so that the store lets go of the memory before it is unmapped.
    mapped: A,
    get: Mapping,
    put: Mapping,
    get_memory: OwnedFd,
    put_memory: OwnedFd,
}

impl<A> ArenaMemory<A> {
    /// Arenas of these sizes, each rounded down to slots, one at least. Pages are taken on first use.
    ///
    /// `map` gets GET and PUT with their sizes before GET is sealed: the last moment at which anyone can map it
    /// writable.
    pub fn create(
        get_bytes: usize,
        put_bytes: usize,
        map: impl FnOnce(Memory<'_>, Memory<'_>) -> io::Result<A>,
    ) -> io::Result<Self> {
        let whole = |bytes: usize| (bytes / SLOT).max(1) * SLOT;
        let (get_bytes, put_bytes) = (whole(get_bytes), whole(put_bytes));
        let get_memory = create("strand-get", get_bytes)?;
        let get = Mapping::new(&get_memory, get_bytes, Access::ReadWrite)?;
        let put_memory = create("strand-put", put_bytes)?;
        // Writable, though nothing here writes it: io_uring registers buffers of writable mappings only.
        let put = Mapping::new(&put_memory, put_bytes, Access::ReadWrite)?;
        seal(&put_memory, SealFlags::empty())?;
        let mapped = map(
            (get_memory.as_fd(), get_bytes),
            (put_memory.as_fd(), put_bytes),
        )?;
        seal(&get_memory, SealFlags::FUTURE_WRITE)?;
        Ok(Self {
            mapped,
            get,
            put,
            get_memory,
            put_memory,
        })
    }

    /// What the store keeps of them.
    pub fn mapped(&self) -> &A {
        &self.mapped
    }

    /// Bytes in GET.
    pub fn get_bytes(&self) -> usize {
        self.get.bytes()
    }

    /// Bytes in PUT.
    pub fn put_bytes(&self) -> usize {
        self.put.bytes()
    }

    /// The descriptors to pass to the pod: GET, PUT.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.get_memory.as_fd(), self.put_memory.as_fd()]
    }
}

/// Arenas lent to one session. They come back to the lender when the session, its leases and every operation
/// that still reads or writes them (a drive's DMA among them) are gone.
#[derive(Debug)]
pub struct AgentArenas<A> {
    memory: Option<ArenaMemory<A>>,
    lender: Option<oneshot::Sender<ArenaMemory<A>>>,
    get_slots: Arc<SlotPool>,
}

impl<A> AgentArenas<A> {
    /// Lends `memory` to a session; the receiver yields it when nothing of the session uses it any more.
    pub fn lend(memory: ArenaMemory<A>) -> (Arc<Self>, oneshot::Receiver<ArenaMemory<A>>) {
        let (lender, back) = oneshot::channel();
        let arenas = Self {
            get_slots: SlotPool::new(memory.get_bytes()),
            memory: Some(memory),
            lender: Some(lender),
        };
        (Arc::new(arenas), back)
    }

    /// The memory behind them.
    pub fn memory(&self) -> &ArenaMemory<A> {
        match &self.memory {
            Some(memory) => memory,
            None => unreachable!("the memory leaves in drop alone"),
        }
    }

    /// Slots of GET for a value of `length` bytes, in turn.
    pub async fn take(self: &Arc<Self>, length: usize) -> Result<GetSlot<A>, NoSlots> {
        let slots = self.get_slots.take(length).await?;
        Ok(GetSlot {
            arenas: Arc::clone(self),
            slots,
        })
    }

    /// The bytes that a pod says it wrote. `None`: they lie outside PUT.
    pub fn put_bytes(self: &Arc<Self>, offset: u64, length: u64) -> Option<PutBytes<A>> {
        let offset = usize::try_from(offset).ok()?;
        let length = usize::try_from(length).ok()?;
        self.memory().put.at(offset, length)?;
        Some(PutBytes {
            arenas: Arc::clone(self),
            offset,
            length,
        })
    }

    /// Ends all waiting for slots of GET: the session is over.
    pub fn close(&self) {
        self.get_slots.close();
    }

    /// Slots of GET that are out.
    pub fn pinned(&self) -> usize {
        self.get_slots.taken()
    }
}

impl<A> Drop for AgentArenas<A> {
    fn drop(&mut self) {
        if let (Some(memory), Some(lender)) = (self.memory.take(), self.lender.take()) {
            // A lender that is gone has no use for it.
            let _ = lender.send(memory);
        }
    }
}

/// Slots of GET for one value: written by the agent or its drives, then leased to the pod. Whatever writes into them
/// holds this value until the write has ended, so that they are never given to someone else meanwhile.
#[derive(Debug)]
pub struct GetSlot<A> {
    arenas: Arc<AgentArenas<A>>,
    slots: Slots,
}

impl<A> GetSlot<A> {
    /// Where in GET, in bytes.
    pub fn offset(&self) -> usize {
        self.slots.offset()
    }

    /// What the store keeps of the arenas.
    pub fn mapped(&self) -> &A {
        self.arenas.memory().mapped()
    }

    /// The most bytes that the slots take.
    pub fn capacity(&self) -> usize {
        self.slots.bytes()
    }

    /// The first byte, for a drive to write [`GetSlot::capacity`] bytes to, aligned to 1 MiB within the arena and to
    /// the page size in memory. Valid for as long as this value lives.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match self
            .arenas
            .memory()
            .get
            .at(self.slots.offset(), self.slots.bytes())
        {
            Some(start) => start,
            None => unreachable!("slots lie inside their arena"),
        }
    }

    /// All of the slots' bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let capacity = self.capacity();
        let start = self.as_mut_ptr();
        // SAFETY: `start` has `capacity` bytes behind it, which `arenas` keeps mapped. They are exclusive: the pool
        // gave these slots to this value alone, `&mut self` makes this the only slice, and no pod can
        // write GET (see the module).
        unsafe { std::slice::from_raw_parts_mut(start, capacity) }
    }
}

/// What a pod wrote into PUT: hostile, and changing at any instant.
#[derive(Debug)]
pub struct PutBytes<A> {
    arenas: Arc<AgentArenas<A>>,
    offset: usize,
    length: usize,
}

impl<A> PutBytes<A> {
    /// What the store keeps of the arenas.
    pub fn mapped(&self) -> &A {
        self.arenas.memory().mapped()
    }

    /// Bytes in the value.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where in PUT, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The first byte, for a drive to read from. Valid for as long as this value lives. Never make a slice of it: the
    /// pod may write it at any time.
    pub fn as_ptr(&self) -> *const u8 {
        match self.arenas.memory().put.at(self.offset, self.length) {
            Some(start) => start,
            None => unreachable!("the range was checked when it was made"),
        }
    }

    /// Copies bytes from `at` on into private memory. `false`: `into` reaches beyond the value.
    ///
    /// Each byte is read once; a pod that writes meanwhile gets some mix of old and new bytes.
    #[must_use]
    pub fn copy_to(&self, at: usize, into: &mut [u8]) -> bool {
        let inside = at
            .checked_add(into.len())
            .is_some_and(|end| end <= self.length);
        if !inside {
            return false;
        }
        // SAFETY: `at + into.len()` lies inside the value, as just checked, and the value inside the mapping.
        let from = unsafe { self.as_ptr().add(at) };
        let head = from.align_offset(align_of::<u64>()).min(into.len());
        let (first, rest) = into.split_at_mut(head);
        let (words, last) = rest.as_chunks_mut::<{ size_of::<u64>() }>();
        for (index, byte) in first.iter_mut().enumerate() {
            *byte = load_byte(from, index);
        }
        let middle = head;
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: aligned (`head` bytes were skipped for that) and inside the value. Relaxed atomic loads race
            // with nothing, also where the page is written by another process, and are plain loads.
            let source = unsafe { &*from.add(middle + index * word.len()).cast::<AtomicU64>() };
            *word = source.load(Ordering::Relaxed).to_ne_bytes();
        }
        let end = middle + words.len() * size_of::<u64>();
        for (index, byte) in last.iter_mut().enumerate() {
            *byte = load_byte(from, end + index);
        }
        true
    }
}

fn load_byte(from: *const u8, index: usize) -> u8 {
    // SAFETY: called by `copy_to` alone, with an index inside the value; an atomic load as there.
    unsafe { &*from.add(index).cast::<AtomicU8>() }.load(Ordering::Relaxed)
}
