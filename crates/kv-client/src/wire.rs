//! A session's socket: frames in, frames out, without a task between a caller and the system call.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::frame::{HEADER, Header, Malformed, PREAMBLE, body_length};

/// Bytes that a read has room for: some hundred requests.
const READ: usize = 16 * 1024;

/// A socket that many tasks send on and one after the other reads from.
#[derive(Debug)]
pub struct Wire {
    socket: UnixStream,
    out: Mutex<Out>,
    more_out: Notify,
    arrived: Mutex<Inbox>,
}

/// Frames that can wait are sent with the next ones, or after this time, or once there are [`MANY`] bytes.
const LINGER: Duration = Duration::from_millis(1);

/// Bytes of frames that do not wait any longer.
const MANY: usize = 8 * HEADER;

#[derive(Debug, Default)]
struct Out {
    bytes: Vec<u8>,
    sent: usize,
    /// The socket takes no more at present.
    full: bool,
    /// Something waits, and [`Wire::flush`] knows.
    lingers: bool,
    /// Something waits only for what others append meanwhile, and [`Wire::flush`] knows.
    soon: bool,
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other side closed the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    /// What arrived is no frame.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Wire {
    /// A wire over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            out: Mutex::default(),
            more_out: Notify::new(),
            arrived: Mutex::default(),
        }
    }

    /// Appends frames and sends what the socket takes now; [`Wire::flush`] sends the rest.
    pub fn send(&self, frames: impl FnOnce(&mut Vec<u8>)) {
        let mut out = lock(&self.out);
        frames(&mut out.bytes);
        // A socket that fails is reported to whoever reads.
        if !matches!(out.send(self.socket.as_fd()), Ok(true)) {
            self.more_out.notify_one();
        }
    }

    /// Appends frames for [`Wire::send_appended`].
    pub fn append(&self, frames: impl FnOnce(&mut Vec<u8>)) {
        frames(&mut lock(&self.out).bytes);
    }

    /// Sends what was appended, as much as the socket takes now.
    pub fn send_appended(&self) {
        if !lock(&self.out).bytes.is_empty() {
            self.send(|_| {});
        }
    }

    /// Appends frames that [`Wire::flush`] sends with those of tasks that are about to run.
    pub fn send_with_others(&self, frames: impl FnOnce(&mut Vec<u8>)) {
        let mut out = lock(&self.out);
        frames(&mut out.bytes);
        if !std::mem::replace(&mut out.soon, true) {
            self.more_out.notify_one();
        }
    }

    /// Appends frames that can wait a little, to be sent with others.
    pub fn push(&self, frames: impl FnOnce(&mut Vec<u8>)) {
        let mut out = lock(&self.out);
        frames(&mut out.bytes);
        let sent = out.bytes.len() - out.sent < MANY || {
            let sent = out.send(self.socket.as_fd());
            !matches!(sent, Ok(true))
        };
        if sent && !std::mem::replace(&mut out.lingers, true) {
            self.more_out.notify_one();
        }
    }

    /// Bytes that wait to be sent.
    pub fn backlog(&self) -> usize {
        let out = lock(&self.out);
        out.bytes.len() - out.sent
    }

    /// Sends what could not be sent at once. Runs until the socket fails.
    pub async fn flush(&self) -> io::Error {
        loop {
            self.more_out.notified().await;
            if lock(&self.out).only_lingers() {
                // Cut short by what does not.
                let _more = tokio::time::timeout(LINGER, self.more_out.notified()).await;
            }
            if lock(&self.out).soon {
                tokio::task::yield_now().await;
            }
            {
                let mut out = lock(&self.out);
                (out.lingers, out.soon) = (false, false);
            }
            loop {
                let tried = self.socket.try_io(Interest::WRITABLE, || {
                    match lock(&self.out).send(self.socket.as_fd())? {
                        true => Ok(()),
                        false => Err(ErrorKind::WouldBlock.into()),
                    }
                });
                match tried {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if let Err(error) = self.socket.writable().await {
                            return error;
                        }
                    }
                    Err(error) => return error,
                }
            }
        }
    }

    /// Waits for frames and gives each to `on`, until `on` fails or the wire breaks.
    pub async fn read<E: From<Broken>>(
        &self,
        mut on: impl FnMut(Header, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.socket
            .readable()
            .await
            .map_err(|error| E::from(Broken::Io(error)))?;
        let mut arrived = lock(&self.arrived);
        let mut read = Ok(Filled::Empty);
        // What is returned to tokio is only whether to wait for the next readiness: also after a read that emptied the
        // socket, which saves the one that would find it empty.
        let _ = self.socket.try_io(Interest::READABLE, || {
            read = arrived.fill(self.socket.as_fd());
            match &read {
                Ok(Filled::Empty | Filled::Emptied) => Err(ErrorKind::WouldBlock.into()),
                Ok(Filled::More) | Err(_) => Ok(()),
            }
        });
        match read.map_err(E::from)? {
            Filled::Empty => Ok(()),
            Filled::Emptied | Filled::More => arrived.frames(&mut on),
        }
    }

    /// Takes what has arrived without waiting, for a caller that polls. `false`: nothing had, or
    /// another task is reading.
    pub fn poll<E: From<Broken>>(
        &self,
        mut on: impl FnMut(Header, &[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Ok(mut arrived) = self.arrived.try_lock() else {
            return Ok(false);
        };
        if matches!(arrived.fill(self.socket.as_fd())?, Filled::Empty) {
            return Ok(false);
        }
        arrived.frames(&mut on)?;
        Ok(true)
    }

    /// Ends both directions at once, for both sides.
    pub fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

impl Out {
    fn only_lingers(&self) -> bool {
        !self.full && !self.soon
    }

    /// Whether everything was sent.
    fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            match send(
                socket,
                &self.bytes[self.sent..],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(count) => self.sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.full = true;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.full = false;
        self.bytes.clear();
        self.bytes.shrink_to(READ);
        self.sent = 0;
        Ok(true)
    }
}

/// What a look into the socket found.
enum Filled {
    /// Nothing.
    Empty,
    /// All that had arrived.
    Emptied,
    /// As much as there was room for.
    More,
}

/// Bytes that arrived, cut into frames.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Longer than what it holds, so that reading need not clear it first.
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbox {
    fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<Filled, Broken> {
        if self.buffer.len() < self.filled + READ {
            self.buffer.resize(self.filled + READ, 0);
        }
        let read = loop {
            let free = &mut self.buffer[self.filled..];
            match recv(socket, free, RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        match read {
            Ok((0, _)) => Err(Broken::Closed),
            Ok((count, _)) => {
                self.filled += count;
                Ok(match self.filled < self.buffer.len() {
                    true => Filled::Emptied,
                    false => Filled::More,
                })
            }
            Err(rustix::io::Errno::AGAIN) => Ok(Filled::Empty),
            Err(error) => Err(Broken::Io(error.into())),
        }
    }

    /// Appends bytes as if they had arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.truncate(self.filled);
        self.buffer.extend_from_slice(bytes);
        self.filled = self.buffer.len();
    }

    /// Gives every whole frame to `on` and keeps the rest for later.
    pub fn frames<E: From<Broken>>(
        &mut self,
        on: &mut impl FnMut(Header, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = &self.buffer[..self.filled];
        let result = loop {
            let Some((header, rest)) = left.split_first_chunk::<HEADER>() else {
                break Ok(());
            };
            let header = match Header::decode(header) {
                Ok(header) => header,
                Err(malformed) => break Err(E::from(Broken::Malformed(malformed))),
            };
            let Some((body, rest)) = rest.split_at_checked(header.length as usize) else {
                break Ok(());
            };
            left = rest;
            if let Err(error) = on(header, body) {
                break Err(error);
            }
        };
        let kept = left.len();
        self.buffer.copy_within(self.filled - kept..self.filled, 0);
        self.filled = kept;
        if kept == 0 && self.buffer.len() > READ {
            self.buffer = Vec::new();
        }
        result
    }
}

/// Sends a hello or its answer whole, and descriptors with its first byte.
pub async fn send_hello(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        socket.writable().await?;
        let tried = socket.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            Ok(sendmsg(
                socket,
                &[IoSlice::new(&bytes[sent..])],
                &mut control,
                flags,
            )?)
        });
        match tried {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives a hello or its answer: the bytes after its preamble, and the descriptors that came with it. Not a byte more
/// is read than belongs to it.
pub async fn receive_hello(socket: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), Broken> {
    let mut descriptors = Vec::new();
    let mut preamble = [0; PREAMBLE];
    receive(socket, &mut preamble, &mut descriptors).await?;
    let mut body = vec![0; body_length(&preamble)?];
    receive(socket, &mut body, &mut descriptors).await?;
    Ok((body, descriptors))
}

async fn receive(
    socket: &UnixStream,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<(), Broken> {
    let mut read = 0;
    while read < into.len() {
        socket.readable().await?;
        let tried = socket.try_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let message = recvmsg(
                socket,
                &mut [IoSliceMut::new(&mut into[read..])],
                &mut control,
                flags,
            )?;
            for passed in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = passed {
                    descriptors.extend(passed);
                }
            }
            Ok(message.bytes)
        });
        match tried {
            Ok(0) => return Err(Broken::Closed),
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(Broken::Io(error)),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
