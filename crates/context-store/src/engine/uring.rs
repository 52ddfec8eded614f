//! Transfers by io_uring. Whoever starts a transfer submits it; a task that waits for the ring's descriptor beside all
//! other descriptors of the runtime ends it: between a request on a socket and its reply no other thread has to be woken.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use io_uring::{IoUring, opcode, squeue, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::memory::{Region, Span};
use super::{Engine, Io, Verb, together};

/// Entries of the submission ring, which is submitted early when it is full.
const ENTRIES: u32 = 1024;

/// Regions that can be registered at once. Others still work, at some cost a transfer.
const REGIONS: u16 = 1024;

/// Transfers from here on go by one entry a piece where every piece is registered: pinning so many pages anew costs more
/// than a second command, fewer do not.
const WORTH_SPLITTING: usize = 64 << 10;

/// The one registered file.
const FILE: types::Fixed = types::Fixed(0);

/// How long the end of a ring sleeps before it looks again whether another thread has seen the last completion.
const LOOK_AGAIN: types::Timespec = types::Timespec::new().nsec(5_000_000);

/// The next ring's number.
static RINGS: AtomicU32 = AtomicU32::new(1);

/// An io_uring and the task that sees its completions.
pub(crate) struct Uring {
    ring: Arc<Ring>,
    file: Arc<File>,
    reaper: AbortHandle,
}

pub(super) struct Ring {
    /// What regions know this ring by.
    number: u32,
    uring: IoUring,
    state: Mutex<State>,
    /// Of the table of registered buffers. Held while that changes.
    free_slots: Mutex<Vec<u16>>,
}

/// The ring's queues are touched by whoever holds this.
#[derive(Default)]
struct State {
    /// By the number in their user data.
    transfers: Vec<Option<Transfer>>,
    free: Vec<usize>,
    /// Completions are being told: what is started meanwhile is submitted together, after them.
    reaping: bool,
    /// Something was started meanwhile.
    started: bool,
}

/// What the kernel reads the pieces' addresses from.
struct Vectors(Box<[libc::iovec]>);

// SAFETY: addresses alone, which nobody follows on this side; the memory they name is kept by the pieces.
unsafe impl Send for Vectors {}

/// A transfer that the kernel has.
struct Transfer {
    io: Io,
    vectors: Vectors,
    /// Entries that have not completed.
    left: usize,
    moved: usize,
    failed: Option<io::Error>,
}

impl Uring {
    /// Sets a ring up, with a task on this runtime.
    ///
    /// # Errors
    /// The kernel's: EPERM or ENOSYS where io_uring is forbidden.
    pub(crate) fn new(file: Arc<File>) -> io::Result<Uring> {
        let ring = Arc::new(Ring {
            number: RINGS.fetch_add(1, Ordering::Relaxed),
            uring: set_up(&file)?,
            state: Mutex::default(),
            free_slots: Mutex::new((0..REGIONS).rev().collect()),
        });
        // SAFETY: the ring is open, and its descriptor is only borrowed to be copied.
        let borrowed = unsafe { BorrowedFd::borrow_raw(ring.uring.as_raw_fd()) };
        let own = borrowed.try_clone_to_owned()?;
        // SAFETY: an owned descriptor stays the same one until the AsyncFd drops it.
        let ready = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
        let reaper = tokio::spawn(reap(Arc::downgrade(&ring), ready)).abort_handle();
        Ok(Uring { ring, file, reaper })
    }
}

/// The ring, with the newest set-up that this kernel knows.
fn set_up(file: &File) -> io::Result<IoUring> {
    let ring = IoUring::builder()
        .setup_clamp()
        .setup_coop_taskrun()
        .build(ENTRIES)
        .or_else(|_| IoUring::builder().setup_clamp().build(ENTRIES))?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    if let Err(error) = ring.submitter().register_buffers_sparse(u32::from(REGIONS)) {
        tracing::info!(%error, "arenas cannot be registered with io_uring; each transfer pins its pages");
    }
    Ok(ring)
}

/// Tells completions until the ring is gone.
async fn reap(ring: Weak<Ring>, ready: AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut readable) = ready.readable().await else {
            return;
        };
        // Before the look: what completes after it makes the descriptor ready again.
        readable.clear_ready();
        let Some(ring) = ring.upgrade() else { return };
        ring.reap();
    }
}

impl Ring {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, io: Io) {
        let vectors = Vectors(io.pieces.iter().map(vector).collect());
        let entries = entries(&io, &vectors, self.number);
        let transfer = Transfer {
            io,
            vectors,
            left: entries.len(),
            moved: 0,
            failed: None,
        };
        let mut state = self.state();
        let number = state.keep(transfer);
        for entry in entries {
            self.push(&mut state, &entry.user_data(number as u64));
        }
        state.started = state.reaping;
        let now = !state.reaping;
        drop(state);
        if now && !together::waits(self) {
            self.submit();
        }
    }

    /// Puts an entry into the ring, submitting what is there while it is full.
    fn push(&self, _state: &mut State, entry: &squeue::Entry) {
        loop {
            // SAFETY: the state's lock is held, and nobody touches the queue without. Whatever the entry points to stays
            // in the state until its completion was seen.
            let pushed = unsafe { self.uring.submission_shared().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// Hands what is in the ring to the kernel.
    pub(super) fn submit(&self) {
        while let Err(error) = self.uring.submit() {
            match error.raw_os_error() {
                // Short of memory, or too many completions wait to be seen: their task is awake.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                _ => {
                    tracing::error!(%error, "io_uring_enter");
                    return;
                }
            }
        }
    }

    /// Tells every completion that is there.
    fn reap(&self) {
        loop {
            let mut state = self.state();
            let over = self.completed(&mut state);
            state.reaping = !over.is_empty();
            if over.is_empty() {
                let started = std::mem::take(&mut state.started);
                drop(state);
                if started {
                    self.submit();
                }
                return;
            }
            drop(state);
            for transfer in over {
                transfer.finish();
            }
        }
    }

    /// Transfers whose last entry has completed.
    fn completed(&self, state: &mut State) -> Vec<Transfer> {
        let mut over = Vec::new();
        // SAFETY: the state's lock is held, and nobody touches the queue without.
        for entry in unsafe { self.uring.completion_shared() } {
            let number = entry.user_data() as usize;
            let Some(transfer) = state.transfers.get_mut(number).and_then(Option::as_mut) else {
                continue;
            };
            match usize::try_from(entry.result()) {
                Ok(moved) => transfer.moved += moved,
                Err(_) => transfer.failed = Some(io::Error::from_raw_os_error(-entry.result())),
            }
            transfer.left -= 1;
            if transfer.left == 0 {
                over.extend(state.transfers[number].take());
                state.free.push(number);
            }
        }
        over
    }

    /// Waits until the kernel has no transfer any more.
    fn drain(&self) {
        loop {
            self.reap();
            let state = self.state();
            if state.free.len() == state.transfers.len() {
                return;
            }
            drop(state);
            let pause = types::SubmitArgs::new().timespec(&LOOK_AGAIN);
            // Whatever came of it, the next round looks.
            let _waited = self.uring.submitter().submit_with_args(1, &pause);
        }
    }

    fn register(&self, region: &Arc<Region>) -> io::Result<()> {
        let mut free_slots = self.free_slots();
        if region.registered_slot(self.number).is_some() {
            return Ok(());
        }
        let Some(slot) = free_slots.pop() else {
            return Ok(());
        };
        let buffer = libc::iovec {
            iov_base: region.address().cast(),
            iov_len: region.len(),
        };
        let updated = self.update(slot, buffer);
        // The slot of a region that cannot note it is free again: the next one takes the kernel's entry over.
        if updated.is_err() || !region.note_slot(self.number, slot) {
            free_slots.push(slot);
        }
        updated
    }

    fn unregister(&self, region: &Arc<Region>) -> io::Result<()> {
        let mut free_slots = self.free_slots();
        let Some(slot) = region.registered_slot(self.number) else {
            return Ok(());
        };
        region.forget_slot(self.number);
        free_slots.push(slot);
        let nothing = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        self.update(slot, nothing)
    }

    fn update(&self, slot: u16, buffer: libc::iovec) -> io::Result<()> {
        // SAFETY: the region is mapped; the kernel holds its pages until the slot is cleared, so that a later unmapping
        // is harmless. Clearing a slot waits for nothing: transfers in flight hold their pages.
        unsafe {
            self.uring
                .submitter()
                .register_buffers_update(u32::from(slot), &[buffer], None)
        }
    }

    fn free_slots(&self) -> MutexGuard<'_, Vec<u16>> {
        (self.free_slots.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, transfer: Transfer) -> usize {
        match self.free.pop() {
            Some(number) => {
                self.transfers[number] = Some(transfer);
                number
            }
            None => {
                self.transfers.push(Some(transfer));
                self.transfers.len() - 1
            }
        }
    }
}

impl Transfer {
    fn finish(self) {
        let len = self.io.len();
        let result = match self.failed {
            Some(error) => Err(error),
            None if self.moved == len => Ok(()),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} of {len} bytes moved", self.moved),
            )),
        };
        drop(self.vectors);
        self.io.finish(result);
    }
}

fn vector(piece: &Span) -> libc::iovec {
    libc::iovec {
        iov_base: piece.address().cast(),
        iov_len: piece.len(),
    }
}

/// The ring's entries for a transfer: registered pieces by their regions' numbers, all else by addresses.
fn entries(io: &Io, vectors: &Vectors, ring: u32) -> Vec<squeue::Entry> {
    if io.verb == Verb::Flush {
        let flush = opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC);
        return vec![flush.build()];
    }
    if io.pieces.len() == 1 || io.len() >= WORTH_SPLITTING {
        let mut offset = io.offset;
        let by_number = io.pieces.iter().map(|piece| {
            let at = offset;
            offset += piece.len() as u64;
            Some(fixed(
                io.verb,
                piece,
                at,
                piece.region().registered_slot(ring)?,
            ))
        });
        if let Some(entries) = by_number.collect() {
            return entries;
        }
    }
    let (addresses, count) = (vectors.0.as_ptr(), vectors.0.len() as u32);
    vec![match io.verb {
        Verb::Write => opcode::Writev::new(FILE, addresses, count)
            .offset(io.offset)
            .build(),
        _ => opcode::Readv::new(FILE, addresses, count)
            .offset(io.offset)
            .build(),
    }]
}

fn fixed(verb: Verb, piece: &Span, offset: u64, slot: u16) -> squeue::Entry {
    let (address, len) = (piece.address(), piece.len() as u32);
    match verb {
        Verb::Write => opcode::WriteFixed::new(FILE, address, len, slot)
            .offset(offset)
            .build(),
        _ => opcode::ReadFixed::new(FILE, address, len, slot)
            .offset(offset)
            .build(),
    }
}

impl Engine for Uring {
    fn start(&self, io: Io) {
        self.ring.start(io);
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        super::discard(&self.file, offset, len)
    }

    fn register(&self, region: &Arc<Region>) -> io::Result<()> {
        region.populate()?;
        self.ring.register(region)
    }

    fn unregister(&self, region: &Arc<Region>) -> io::Result<()> {
        self.ring.unregister(region)
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    /// Leaves nothing behind that holds the file: the kernel lets go of a ring only some time after its end.
    fn drop(&mut self) {
        self.ring.drain();
        self.reaper.abort();
        if let Err(error) = self.ring.uring.submitter().unregister_files() {
            tracing::debug!(%error, "the ring keeps its file for a while");
        }
    }
}

#[cfg(test)]
mod tests;
