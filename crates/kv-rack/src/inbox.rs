//! A connection after its hello, on its way in: each frame is read once into private memory, opened there, and then
//! looked at; the payload goes from the socket straight to the memory that it belongs to, and is opened in place.

use std::io::{self, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};

use strand_context_store::Span;
use tokio::net::TcpStream;

use crate::calls::Calls;
use crate::frame::{HEAD, HEADER, Header, Malformed, Reply, TAG};
use crate::landing::{Answer, Call};
use crate::pulse::Pulse;
use crate::seal::Opener;

/// Bytes that a read of small frames has room for.
const READ: usize = 32 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a frame is not what a holder of the pool's key sent next: it was changed on its way")]
    Forged,
}

/// Counters of a link that both of its sides keep.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Pieces for a request that nobody waited for any more.
    pub(crate) late: AtomicU64,
    /// Payloads that did not pass their tag.
    pub(crate) torn: AtomicU64,
}

/// The receiving half of a connection.
pub(crate) struct Inbox {
    opener: Opener,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Reads no byte beyond the frame at hand, since a payload may follow.
    exact: bool,
}

impl Inbox {
    /// Of a connection on which values come (`bulk`), or none ever do.
    pub(crate) fn new(opener: Opener, bulk: bool) -> Self {
        Self {
            opener,
            buffer: vec![0; READ],
            start: 0,
            end: 0,
            exact: bulk,
        }
    }

    /// Waits for the first frame, which says that the session is ready.
    pub(crate) async fn ready(&mut self, socket: &TcpStream, pulse: &Pulse) -> Result<(), End> {
        let header = self.next(socket, pulse).await?;
        let reply = Reply::decode(header.operation, &[])?;
        self.start += HEAD;
        match reply {
            Some(Reply::Ready) if header.body == 0 => Ok(()),
            _ => Err(Malformed::new("a session that does not begin with being ready").into()),
        }
    }

    /// Reads frames until the connection ends: pieces of values go where `calls` say, other frames to `on`.
    pub(crate) async fn run(
        mut self,
        socket: &TcpStream,
        pulse: &Pulse,
        calls: &Calls<Call>,
        faults: &Faults,
        mut on: impl FnMut(Header, &[u8]) -> Result<(), Malformed>,
    ) -> End {
        loop {
            let step = self.step(socket, pulse, calls, faults, &mut on).await;
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn step(
        &mut self,
        socket: &TcpStream,
        pulse: &Pulse,
        calls: &Calls<Call>,
        faults: &Faults,
        on: &mut impl FnMut(Header, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), End> {
        let header = self.next(socket, pulse).await?;
        if header.operation != Header::DATA {
            let body = self.start + HEADER..self.start + HEADER + header.body as usize;
            on(header, &self.buffer[body])?;
            self.start += HEADER + header.body as usize + TAG;
            return Ok(());
        }
        self.start += HEAD;
        if !self.exact || header.body != 0 {
            return Err(Malformed::new("a piece of a value where none may be").into());
        }
        let Some(mut call) = calls.claim(header.id) else {
            faults.late.fetch_add(1, Ordering::Relaxed);
            return self.sink(socket, pulse, header.payload as usize).await;
        };
        // From here on the call, and with it the guard of its memory, belongs to this function alone.
        let Some(landing) = call.landing.as_mut() else {
            return Err(Malformed::new("a piece of a value that nobody asked for").into());
        };
        let span = landing.piece(&header)?;
        self.receive(socket, pulse, &span).await?;
        let mut right = false;
        span.fill(|bytes| {
            right = self.opener.payload(header.tag, bytes);
            Ok(bytes.len())
        })?;
        drop(span);
        if !right {
            faults.torn.fetch_add(1, Ordering::Relaxed);
            calls.finish(header.id);
            let _ = call.answer.send(Answer::Torn);
            return Ok(());
        }
        match landing.landed(&header) {
            Some(length) => {
                calls.finish(header.id);
                call.landing = None;
                let _ = call.answer.send(Answer::Landed(length));
            }
            None => drop(calls.put_back(header.id, call)),
        }
        Ok(())
    }

    /// The next frame's header; its body stands open in the buffer.
    async fn next(&mut self, socket: &TcpStream, pulse: &Pulse) -> Result<Header, End> {
        self.need(socket, pulse, HEAD).await?;
        let mut head = [0; HEADER];
        head.copy_from_slice(&self.buffer[self.start..self.start + HEADER]);
        let header = Header::decode(&head)?;
        let body = header.body as usize;
        self.need(socket, pulse, HEAD + body).await?;
        let frame = &mut self.buffer[self.start + HEADER..self.start + HEAD + body];
        let (body, sealed) = frame.split_at_mut(body);
        let mut tag = [0; TAG];
        tag.copy_from_slice(sealed);
        if self.opener.body(&head, tag, body) {
            Ok(header)
        } else {
            Err(End::Forged)
        }
    }

    /// Waits until `bytes` stand in the buffer.
    async fn need(&mut self, socket: &TcpStream, pulse: &Pulse, bytes: usize) -> Result<(), End> {
        while self.end - self.start < bytes {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            }
            if self.start + bytes > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
                let len = self.buffer.len().max(bytes);
                self.buffer.resize(len, 0);
            }
            let limit = match self.exact {
                true => self.start + bytes,
                false => self.buffer.len(),
            };
            let into = &mut self.buffer[self.end..limit];
            self.end += read(socket, pulse, into, |socket, into| socket.try_read(into)).await?;
        }
        Ok(())
    }

    /// Receives a payload, and with its last bytes the head of the next frame.
    async fn receive(&mut self, socket: &TcpStream, pulse: &Pulse, into: &Span) -> Result<(), End> {
        let mut got = 0;
        (self.start, self.end) = (0, 0);
        while let Some(rest) = into
            .part(got, into.len() - got)
            .filter(|rest| !rest.is_empty())
        {
            let head = &mut self.buffer[..HEAD];
            let read = read(socket, pulse, head, |socket, head| {
                let mut read = 0;
                rest.fill(|bytes| {
                    let len = bytes.len();
                    let mut slices = [IoSliceMut::new(bytes), IoSliceMut::new(head)];
                    read = socket.try_read_vectored(&mut slices)?;
                    Ok(read.min(len))
                })?;
                Ok(read)
            });
            let read = read.await?;
            got += read.min(rest.len());
            self.end = read.saturating_sub(rest.len());
        }
        Ok(())
    }

    /// Receives a payload that nobody wants.
    async fn sink(
        &mut self,
        socket: &TcpStream,
        pulse: &Pulse,
        mut bytes: usize,
    ) -> Result<(), End> {
        (self.start, self.end) = (0, 0);
        while bytes > 0 {
            let room = bytes.min(READ);
            let into = &mut self.buffer[..room];
            bytes -= read(socket, pulse, into, |socket, into| socket.try_read(into)).await?;
        }
        Ok(())
    }
}

/// Waits until something has been read.
async fn read(
    socket: &TcpStream,
    pulse: &Pulse,
    into: &mut [u8],
    mut attempt: impl FnMut(&TcpStream, &mut [u8]) -> io::Result<usize>,
) -> Result<usize, End> {
    loop {
        match attempt(socket, into) {
            Ok(0) => return Err(End::Closed),
            Ok(read) => {
                pulse.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
                pulse.touch();
                return Ok(read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
            Err(error) => return Err(error.into()),
        }
    }
}
