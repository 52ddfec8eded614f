//! Transfers by io_uring, all on one thread: it takes what has arrived, submits it with one system call, and sleeps in
//! the kernel until something completes or arrives.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use super::memory::{Region, Span};
use super::{Engine, Io, Verb};

/// Entries of the submission ring; `Disk` keeps fewer transfers than this in flight.
const ENTRIES: u32 = 1024;

/// Regions that can be registered at once. Others still work, at some cost a transfer.
const REGIONS: u16 = 1024;

/// The one registered file.
const FILE: types::Fixed = types::Fixed(0);

/// User data of the read that a write to the event descriptor completes.
const WAKE: u64 = u64::MAX;

/// The next ring's number.
static RINGS: AtomicU32 = AtomicU32::new(1);

/// An io_uring and its thread.
pub(crate) struct Uring {
    shared: Arc<Shared>,
    file: Arc<File>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// What regions know this ring by.
    number: u32,
    inbox: Mutex<Inbox>,
    /// The thread sleeps in the kernel, or is about to.
    asleep: AtomicBool,
    event: OwnedFd,
}

#[derive(Default)]
struct Inbox {
    transfers: Vec<Io>,
    registrations: Vec<Registration>,
    stop: bool,
}

/// A region to pin, and whom to tell.
struct Registration {
    region: Arc<Region>,
    /// Whether to pin it or to let it go.
    pin: bool,
    answer: std::sync::mpsc::SyncSender<io::Result<()>>,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something into the inbox and wakes the thread where it sleeps.
    fn send(&self, put: impl FnOnce(&mut Inbox)) {
        put(&mut self.inbox());
        // Pairs with the fence before the thread looks into the inbox a last time.
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::AcqRel)
            && let Err(error) = rustix::io::write(&self.event, &1u64.to_ne_bytes())
        {
            tracing::error!(%error, "the I/O thread could not be woken");
        }
    }
}

impl Uring {
    /// Sets the ring up on its thread.
    ///
    /// # Errors
    /// The kernel's: EPERM or ENOSYS where io_uring is forbidden.
    pub(crate) fn new(file: Arc<File>) -> io::Result<Uring> {
        let shared = Arc::new(Shared {
            number: RINGS.fetch_add(1, Ordering::Relaxed),
            inbox: Mutex::default(),
            asleep: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        let (answer, ready) = sync_channel(1);
        let (theirs, registered) = (Arc::clone(&shared), Arc::clone(&file));
        let thread = std::thread::Builder::new()
            .name("context-io".to_owned())
            .spawn(move || match set_up(&registered) {
                Ok(ring) => {
                    let told = answer.send(Ok(()));
                    if told.is_ok() {
                        Thread::new(&theirs, ring).run();
                    }
                }
                Err(error) => {
                    let _told = answer.send(Err(error));
                }
            })?;
        ready
            .recv()
            .map_err(|_| io::Error::other("the I/O thread ended at once"))??;
        Ok(Uring {
            shared,
            file,
            thread: Some(thread),
        })
    }

    fn change_registration(&self, region: &Arc<Region>, pin: bool) -> io::Result<()> {
        let (answer, done) = sync_channel(1);
        self.shared.send(|inbox| {
            inbox.registrations.push(Registration {
                region: Arc::clone(region),
                pin,
                answer,
            });
        });
        done.recv()
            .map_err(|_| io::Error::other("the I/O thread ended"))?
    }
}

/// The ring, with the newest set-up that this kernel knows.
fn set_up(file: &File) -> io::Result<IoUring> {
    let ring = IoUring::builder()
        .setup_clamp()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(ENTRIES)
        .or_else(|_| IoUring::builder().setup_clamp().build(ENTRIES))?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    if let Err(error) = ring.submitter().register_buffers_sparse(u32::from(REGIONS)) {
        tracing::info!(%error, "arenas cannot be registered with io_uring; each transfer pins its pages");
    }
    Ok(ring)
}

/// A transfer that the kernel has.
struct Transfer {
    io: Io,
    /// What the kernel reads the pieces' addresses from.
    vectors: Box<[libc::iovec]>,
    len: usize,
}

/// What the thread owns.
struct Thread<'a> {
    shared: &'a Shared,
    ring: IoUring,
    /// By the number in their user data.
    transfers: Vec<Option<Transfer>>,
    free: Vec<usize>,
    free_slots: Vec<u16>,
    /// Where the read of the event descriptor puts its bytes.
    woken: Box<[u8; 8]>,
    stop: bool,
}

impl<'a> Thread<'a> {
    fn new(shared: &'a Shared, ring: IoUring) -> Thread<'a> {
        Thread {
            shared,
            ring,
            transfers: Vec::new(),
            free: Vec::new(),
            free_slots: (0..REGIONS).rev().collect(),
            woken: Box::new([0; 8]),
            stop: false,
        }
    }

    fn run(mut self) {
        self.listen();
        while !(self.stop && self.free.len() == self.transfers.len()) {
            let arrived = self.take_inbox();
            let idle = !arrived && self.ready_to_sleep();
            let submitted = self.ring.submitter().submit_and_wait(usize::from(idle));
            self.shared.asleep.store(false, Ordering::Release);
            if let Err(error) = submitted
                && !matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME)
                )
            {
                tracing::error!(%error, "io_uring_enter");
            }
            self.complete();
        }
    }

    /// Says that the thread sleeps, unless something has arrived.
    fn ready_to_sleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let inbox = self.shared.inbox();
        let empty = inbox.transfers.is_empty() && inbox.registrations.is_empty();
        let stopping = inbox.stop || self.stop;
        empty && !(stopping && self.free.len() == self.transfers.len())
    }

    fn listen(&mut self) {
        let event = types::Fd(self.shared.event.as_raw_fd());
        let entry = opcode::Read::new(event, self.woken.as_mut_ptr(), 8)
            .build()
            .user_data(WAKE);
        self.push(&entry);
    }

    /// Turns everything in the inbox into entries; whether there was anything.
    fn take_inbox(&mut self) -> bool {
        let inbox = std::mem::take(&mut *self.shared.inbox());
        // `take` cleared the flag: keep what was said once.
        self.stop |= inbox.stop;
        let arrived = !inbox.transfers.is_empty() || !inbox.registrations.is_empty();
        for registration in inbox.registrations {
            let done = self.register(&registration);
            let _waiting = registration.answer.send(done);
        }
        for io in inbox.transfers {
            self.begin(io);
        }
        arrived
    }

    fn begin(&mut self, io: Io) {
        let vectors: Box<[libc::iovec]> = io.pieces.iter().map(vector).collect();
        let entry = entry(&io, &vectors, self.shared.number);
        let transfer = Transfer {
            len: io.len(),
            io,
            vectors,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.transfers[number] = Some(transfer);
                number
            }
            None => {
                self.transfers.push(Some(transfer));
                self.transfers.len() - 1
            }
        };
        self.push(&entry.user_data(number as u64));
    }

    /// Puts an entry into the ring, submitting what is there while it is full.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: whatever the entry points to stays in `self` until its completion was seen.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            if let Err(error) = self.ring.submit() {
                tracing::debug!(%error, "a full ring was not taken at once");
                self.complete();
            }
        }
    }

    fn complete(&mut self) {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            if entry.user_data() == WAKE {
                self.listen();
                continue;
            }
            let number = entry.user_data() as usize;
            if let Some(transfer) = self.transfers.get_mut(number).and_then(Option::take) {
                self.free.push(number);
                drop(transfer.vectors);
                transfer.io.finish(outcome(entry.result(), transfer.len));
            }
        }
    }

    fn register(&mut self, registration: &Registration) -> io::Result<()> {
        let region = &registration.region;
        let number = self.shared.number;
        let (slot, buffer) = match (registration.pin, region.registered_slot(number)) {
            (true, Some(_)) | (false, None) => return Ok(()),
            (true, None) => {
                let Some(slot) = self.free_slots.pop() else {
                    return Ok(());
                };
                let buffer = libc::iovec {
                    iov_base: region.address().cast(),
                    iov_len: region.len(),
                };
                (slot, buffer)
            }
            (false, Some(slot)) => {
                let nothing = libc::iovec {
                    iov_base: std::ptr::null_mut(),
                    iov_len: 0,
                };
                region.forget_slot(number);
                (slot, nothing)
            }
        };
        // SAFETY: the region is mapped; the kernel holds its pages until the slot is cleared, so that a later unmapping
        // is harmless. Clearing a slot waits for nothing: transfers in flight hold their pages.
        let updated = unsafe {
            self.ring
                .submitter()
                .register_buffers_update(u32::from(slot), &[buffer], None)
        };
        // The slot of a region that cannot note it is free again: the next one takes the kernel's entry over.
        let noted = registration.pin && updated.is_ok() && region.note_slot(number, slot);
        if !noted {
            self.free_slots.push(slot);
        }
        updated
    }
}

fn outcome(answer: i32, len: usize) -> io::Result<()> {
    match usize::try_from(answer) {
        Err(_) => Err(io::Error::from_raw_os_error(-answer)),
        Ok(moved) if moved == len => Ok(()),
        Ok(moved) => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{moved} of {len} bytes moved"),
        )),
    }
}

fn vector(piece: &Span) -> libc::iovec {
    libc::iovec {
        iov_base: piece.address().cast(),
        iov_len: piece.len(),
    }
}

/// The ring's entry for a transfer: one registered piece goes by its region's number, all else by addresses.
fn entry(io: &Io, vectors: &[libc::iovec], ring: u32) -> squeue::Entry {
    let count = vectors.len() as u32;
    match (io.verb, io.pieces.as_slice()) {
        (Verb::Flush, _) => opcode::Fsync::new(FILE)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        (verb, [piece]) => {
            let (address, len) = (piece.address(), piece.len() as u32);
            match (verb, piece.region().registered_slot(ring)) {
                (Verb::Read, Some(slot)) => opcode::ReadFixed::new(FILE, address, len, slot)
                    .offset(io.offset)
                    .build(),
                (Verb::Read, None) => opcode::Read::new(FILE, address, len)
                    .offset(io.offset)
                    .build(),
                (_, Some(slot)) => opcode::WriteFixed::new(FILE, address, len, slot)
                    .offset(io.offset)
                    .build(),
                (_, None) => opcode::Write::new(FILE, address, len)
                    .offset(io.offset)
                    .build(),
            }
        }
        (Verb::Read, _) => opcode::Readv::new(FILE, vectors.as_ptr(), count)
            .offset(io.offset)
            .build(),
        (Verb::Write, _) => opcode::Writev::new(FILE, vectors.as_ptr(), count)
            .offset(io.offset)
            .build(),
    }
}

impl Engine for Uring {
    fn start(&self, io: Io) {
        self.shared.send(|inbox| inbox.transfers.push(io));
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        super::discard(&self.file, offset, len)
    }

    fn register(&self, region: &Arc<Region>) -> io::Result<()> {
        region.populate()?;
        self.change_registration(region, true)
    }

    fn unregister(&self, region: &Arc<Region>) -> io::Result<()> {
        self.change_registration(region, false)
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.shared.send(|inbox| inbox.stop = true);
        if let Some(thread) = self.thread.take()
            // The last holder of the engine may be the thread itself, in a transfer's completion.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ended = thread.join();
        }
    }
}
