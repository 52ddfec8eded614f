//! A connection after its hello, on its way out: frames are sealed in the order in which they are written.
//!
//! Whoever has something to say queues it and, unless somebody else is at it, seals and writes what is queued: no task
//! stands between a caller and the system call. Frames without payload go before values; values take turns, a piece each.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strand_context_store::Span;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::frame::{HEADER, Header, PIECE};
use crate::pulse::Pulse;
use crate::seal::Sealer;

/// Bytes of small frames that are written at once.
const BATCH: usize = 64 << 10;

/// Bytes of a value on their way out, which keep their memory.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) id: u64,
    pub(crate) source: Source,
    /// Where the source lies in its value.
    pub(crate) offset: usize,
    /// Bytes of the value.
    pub(crate) total: usize,
}

/// Memory that is sent.
#[derive(Debug)]
pub(crate) enum Source {
    /// The agent's own, not needed afterwards: sealed where it is.
    Own(Span),
    /// A pod's, which may change at any instant, or what is needed again: copied once, and what is sealed and sent is the copy.
    Kept(Span),
}

impl Source {
    fn span(&self) -> &Span {
        let (Self::Own(span) | Self::Kept(span)) = self;
        span
    }
}

/// The sending half of a connection.
pub(crate) struct Line {
    pub(crate) socket: TcpStream,
    pub(crate) pulse: Arc<Pulse>,
    out: Mutex<Out>,
    room: Notify,
    /// The other side has to take or give something from now on.
    pub(crate) owed: Notify,
}

struct Out {
    small: VecDeque<Small>,
    values: VecDeque<Turn>,
    /// Away while somebody writes.
    writer: Option<Writer>,
    /// The socket takes no more; [`Line::flush`] goes on.
    full: bool,
    broken: bool,
}

/// What is to be sent of one value, in order.
struct Turn {
    id: u64,
    sending: VecDeque<Sending>,
    /// Bytes of the first that were sent.
    at: usize,
}

struct Small {
    operation: u16,
    id: u64,
    body: Vec<u8>,
}

struct Writer {
    sealer: Sealer,
    head: Vec<u8>,
    payload: Payload,
    sent: usize,
    copy: Vec<u8>,
}

enum Payload {
    None,
    Copy(usize),
    Span(Span),
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Copy(len) => *len,
            Self::Span(span) => span.len(),
        }
    }
}

impl Line {
    pub(crate) fn new(socket: TcpStream, sealer: Sealer, pulse: Arc<Pulse>) -> Self {
        Self {
            socket,
            pulse,
            out: Mutex::new(Out {
                small: VecDeque::new(),
                values: VecDeque::new(),
                writer: Some(Writer {
                    sealer,
                    head: Vec::new(),
                    payload: Payload::None,
                    sent: 0,
                    copy: Vec::new(),
                }),
                full: false,
                broken: false,
            }),
            room: Notify::new(),
            owed: Notify::new(),
        }
    }

    /// Sends a frame without payload.
    pub(crate) fn send(&self, id: u64, encode: impl FnOnce(&mut Vec<u8>) -> u16) {
        let mut body = Vec::new();
        let operation = encode(&mut body);
        let small = Small {
            operation,
            id,
            body,
        };
        {
            let mut out = self.lock();
            if out.broken {
                return;
            }
            out.small.push_back(small);
        }
        self.pump();
    }

    /// Sends bytes of a value. `false`: the connection is broken.
    pub(crate) fn send_value(&self, sending: Sending) -> bool {
        let mut out = self.lock();
        if out.broken {
            return false;
        }
        match out.values.iter_mut().find(|turn| turn.id == sending.id) {
            Some(turn) => turn.sending.push_back(sending),
            None => out.values.push_back(Turn {
                id: sending.id,
                sending: VecDeque::from([sending]),
                at: 0,
            }),
        }
        drop(out);
        self.pump();
        true
    }

    /// Forgets what was not sent yet of a value that nobody waits for.
    pub(crate) fn forget(&self, id: u64) {
        let gone: VecDeque<_> = {
            let mut out = self.lock();
            let all = std::mem::take(&mut out.values).into_iter();
            let (gone, kept) = all.partition(|turn| turn.id == id);
            out.values = kept;
            gone
        };
        drop(gone);
    }

    /// Whether something waits to be sent.
    pub(crate) fn backlog(&self) -> bool {
        let out = self.lock();
        !out.small.is_empty() || !out.values.is_empty() || out.writer.is_none() || out.full
    }

    /// Sends what could not be sent at once. Runs until the socket fails.
    pub(crate) async fn flush(&self) -> io::Error {
        loop {
            self.room.notified().await;
            loop {
                {
                    let out = self.lock();
                    if out.broken {
                        return io::ErrorKind::BrokenPipe.into();
                    }
                    if !out.full {
                        break;
                    }
                }
                if let Err(error) = self.socket.writable().await {
                    return error;
                }
                self.lock().full = false;
                self.pump();
            }
        }
    }

    /// Writes what is queued until nothing is, or the socket takes no more, or somebody else is at it.
    fn pump(&self) {
        let mut writer = {
            let mut out = self.lock();
            if out.full || out.broken {
                return;
            }
            let Some(writer) = out.writer.take() else {
                return;
            };
            writer
        };
        loop {
            match writer.push(&self.socket, &self.pulse) {
                Ok(true) => {}
                Ok(false) => {
                    let mut out = self.lock();
                    if !out.broken {
                        out.writer = Some(writer);
                        out.full = true;
                    }
                    drop(out);
                    self.room.notify_one();
                    self.owed.notify_one();
                    return;
                }
                Err(error) => return self.broken(&error, writer),
            }
            let (small, turn) = {
                let mut out = self.lock();
                if out.small.is_empty() && out.values.is_empty() {
                    out.writer = Some(writer);
                    return;
                }
                let mut bytes = 0;
                let many = out.small.iter().take_while(|small| {
                    bytes += small.body.len() + HEADER;
                    bytes <= BATCH
                });
                let many = many.count().max(1).min(out.small.len());
                let small: Vec<_> = out.small.drain(..many).collect();
                (small, out.values.pop_front())
            };
            if let Err(error) = self.load(&mut writer, small, turn) {
                return self.broken(&error, writer);
            }
        }
    }

    fn load(&self, writer: &mut Writer, small: Vec<Small>, turn: Option<Turn>) -> io::Result<()> {
        for small in small {
            writer.frame(&small)?;
        }
        let Some(mut turn) = turn else {
            return Ok(());
        };
        let Some(first) = turn.sending.front() else {
            return Ok(());
        };
        turn.at += writer.piece(first, turn.at)?;
        if turn.at == first.source.span().len() {
            turn.at = 0;
            drop(turn.sending.pop_front());
        }
        if turn.sending.is_empty() {
            return Ok(());
        }
        let mut out = self.lock();
        if out.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // More of the same value may have come meanwhile, and goes behind.
        let more = out.values.iter().position(|other| other.id == turn.id);
        if let Some(more) = more.and_then(|at| out.values.remove(at)) {
            turn.sending.extend(more.sending);
        }
        out.values.push_back(turn);
        Ok(())
    }

    fn broken(&self, error: &io::Error, writer: Writer) {
        tracing::debug!(%error, "a connection between agents failed while it was written to");
        drop(writer);
        self.close();
    }

    /// Sends nothing any more, and lets go of what was to be sent: others may wait for that memory.
    pub(crate) fn close(&self) {
        let queued = {
            let mut out = self.lock();
            out.broken = true;
            let small = std::mem::take(&mut out.small);
            (small, std::mem::take(&mut out.values), out.writer.take())
        };
        drop(queued);
        self.room.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes what is loaded. `false`: the socket takes no more.
    fn push(&mut self, socket: &TcpStream, pulse: &Pulse) -> io::Result<bool> {
        let whole = self.head.len() + self.payload.len();
        while self.sent < whole {
            let (head, skip) = match self.sent.checked_sub(self.head.len()) {
                None => (&self.head[self.sent..], 0),
                Some(skip) => (&[][..], skip),
            };
            let write = |payload: &[u8]| {
                let slices = [IoSlice::new(head), IoSlice::new(&payload[skip..])];
                socket.try_write_vectored(&slices)
            };
            let written = match &self.payload {
                Payload::None => write(&[]),
                Payload::Copy(len) => write(&self.copy[..*len]),
                Payload::Span(span) => span.with_bytes(write),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.sent += written;
                    pulse.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
                    pulse.touch();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.head.clear();
        self.payload = Payload::None;
        self.sent = 0;
        Ok(true)
    }

    /// Seals a frame without payload behind what is loaded.
    fn frame(&mut self, small: &Small) -> io::Result<()> {
        let header = Header {
            operation: small.operation,
            id: small.id,
            body: u32::try_from(small.body.len()).unwrap_or(u32::MAX),
            ..Header::default()
        };
        self.seal(&header, &small.body)
    }

    /// Seals the next piece of a value behind what is loaded; how many bytes it has.
    fn piece(&mut self, sending: &Sending, at: usize) -> io::Result<usize> {
        let span = sending.source.span();
        let length = (span.len() - at).min(PIECE);
        let part = (span.part(at, length)).ok_or_else(|| io::Error::other("no piece is left"))?;
        let tag;
        (self.payload, tag) = match sending.source {
            Source::Own(_) => {
                let mut tag = Err(crate::seal::Failed);
                part.fill(|bytes| {
                    tag = self.sealer.payload(bytes);
                    Ok(bytes.len())
                })?;
                (Payload::Span(part), tag)
            }
            Source::Kept(_) => {
                self.copy.resize(PIECE, 0);
                part.copy_to(&mut self.copy[..length]);
                let tag = self.sealer.payload(&mut self.copy[..length]);
                (Payload::Copy(length), tag)
            }
        };
        let header = Header {
            operation: Header::DATA,
            id: sending.id,
            body: 0,
            payload: length as u32,
            offset: (sending.offset + at) as u32,
            total: sending.total as u32,
            tag: tag.map_err(io::Error::other)?,
        };
        self.seal(&header, &[])?;
        Ok(length)
    }

    fn seal(&mut self, header: &Header, body: &[u8]) -> io::Result<()> {
        let header = header.encode();
        self.head.extend_from_slice(&header);
        let start = self.head.len();
        self.head.extend_from_slice(body);
        let tag = (self.sealer)
            .body(&header, &mut self.head[start..])
            .map_err(io::Error::other)?;
        self.head.extend_from_slice(&tag);
        Ok(())
    }
}
