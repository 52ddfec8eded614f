//! The fallback: preadv and pwritev on a few threads.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::memory::{Region, Span};
use super::{Engine, Io, Verb};

/// Enough to keep a drive busy with large blocks; more would only add switches.
const THREADS: usize = 8;

/// Transfers on threads of their own.
pub(crate) struct Threads {
    file: Arc<File>,
    queue: Mutex<Sender<Io>>,
}

impl Threads {
    pub(crate) fn new(file: Arc<File>) -> io::Result<Threads> {
        let (sender, receiver) = channel::<Io>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..THREADS {
            let (file, receiver) = (Arc::clone(&file), Arc::clone(&receiver));
            std::thread::Builder::new()
                .name(format!("context-io-{number}"))
                .spawn(move || serve(&file, &receiver))?;
        }
        Ok(Threads {
            file,
            queue: Mutex::new(sender),
        })
    }
}

/// Works until the engine is dropped.
fn serve(file: &File, queue: &Mutex<Receiver<Io>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(io) = next else { return };
        let result = match io.verb {
            Verb::Flush => rustix::fs::fdatasync(file).map_err(io::Error::from),
            verb => transfer(file, verb, io.offset, &io.pieces),
        };
        io.finish(result);
    }
}

fn transfer(file: &File, verb: Verb, offset: u64, pieces: &[Span]) -> io::Result<()> {
    let mut at = offset;
    for piece in pieces {
        let mut done = 0;
        while done < piece.len() {
            let position = i64::try_from(at)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "beyond 2^63 bytes"))?;
            let left = piece.len() - done;
            // SAFETY: `done < piece.len()`, so the address stays inside the piece's region.
            let address = unsafe { piece.address().add(done) };
            // SAFETY: `left` bytes at `address` lie inside a region that `piece` keeps mapped; the transfer owns them.
            let moved = unsafe {
                match verb {
                    Verb::Write => libc::pwrite64(file.as_raw_fd(), address.cast(), left, position),
                    _ => libc::pread64(file.as_raw_fd(), address.cast(), left, position),
                }
            };
            match moved {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                moved if moved < 0 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                moved => {
                    done += moved.unsigned_abs();
                    at += moved.unsigned_abs() as u64;
                }
            }
        }
    }
    Ok(())
}

impl Engine for Threads {
    fn start(&self, io: Io) {
        let sent = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(io);
        if let Err(unsent) = sent {
            unsent
                .0
                .finish(Err(io::Error::other("the I/O threads ended")));
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        super::discard(&self.file, offset, len)
    }

    fn register(&self, _region: &Arc<Region>) -> io::Result<()> {
        Ok(())
    }

    fn unregister(&self, _region: &Arc<Region>) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "threads"
    }
}
