//! One client's socket: arguments in, answers out. Value bytes go between the socket and where they belong; what
//! passes through this process' own memory is at most a read of [`READ`] bytes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use crate::low_water;
use crate::resp::{Item, Parser, ProtocolError, Step};
use crate::store::Lost;

/// Bytes read at once where the next bytes are not known to be a value's.
const READ: usize = 16 << 10;
/// Answers wait for one another up to so many bytes; a value up to this long is sent with them.
const GATHER: usize = 4 << 10;

/// Bytes behind a value that are read with its last ones: its end, perhaps the next command's begin.
const BEHIND: usize = 256;
/// What follows each argument.
const CRLF: &[u8] = b"\r\n";
/// Of a value that is on its way so many bytes are waited for at once, or what is left of it.
const WAKE: usize = 1 << 20;
/// Fewer than this come together anyway, or are not worth telling the kernel.
const FEW: usize = 64 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client left.
    #[error("the client left")]
    Closed,
    /// The client stopped in the middle of a command or of an answer.
    #[error(
        "the client neither sent nor took a byte for {0:?}, in the middle of a command or an answer"
    )]
    Stalled(Duration),
    /// A value's header was sent, and its rest cannot be had: a client can only be told by closing.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The client does not speak RESP.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A client's socket, with what was read ahead and what is still to be sent.
pub struct Wire {
    stream: TcpStream,
    /// How long the other side may rest inside a command or an answer; between commands, for ever.
    stall: Duration,
    input: BytesMut,
    parser: Parser,
    /// What is left of an inline command; one that came as an array has `None`.
    inline: Option<VecDeque<Vec<u8>>>,
    out: Vec<u8>,
    /// Bytes that the socket waits for.
    low_water: usize,
}

impl Wire {
    /// Takes over a socket.
    pub fn new(stream: TcpStream, stall: Duration) -> Self {
        Self {
            stream,
            stall,
            input: BytesMut::new(),
            parser: Parser::default(),
            inline: None,
            out: Vec::new(),
            low_water: 1,
        }
    }

    /// Waits for the next command: how many arguments it has, its name included.
    pub async fn command(&mut self) -> Result<usize, End> {
        match self.item().await? {
            Item::Command(count) => {
                self.inline = None;
                Ok(count)
            }
            Item::Inline(words) => {
                let count = words.len();
                self.inline = Some(words.into());
                Ok(count)
            }
            Item::Argument(_) | Item::End => Err(ProtocolError::ArrayLength.into()),
        }
    }

    /// Whether the command that was begun last came on one line.
    pub fn is_inline(&self) -> bool {
        self.inline.is_some()
    }

    /// The length of the next argument, which is then to be [filled](Self::fill) or [skipped](Self::skip).
    pub async fn argument(&mut self) -> Result<usize, End> {
        match &self.inline {
            Some(words) => Ok(words.front().map_or(0, Vec::len)),
            None => match self.item().await? {
                Item::Argument(length) => Ok(length),
                _ => Err(ProtocolError::BulkLength.into()),
            },
        }
    }

    /// Puts the argument whose length was just told into `to`, which is as long.
    pub async fn fill(&mut self, to: &mut [u8]) -> Result<(), End> {
        if let Some(words) = &mut self.inline {
            to.copy_from_slice(&words.pop_front().unwrap_or_default());
            return Ok(());
        }
        let mut filled = self.input.len().min(to.len());
        self.input.copy_to_slice(&mut to[..filled]);
        while filled < to.len() {
            // What follows the value comes with its end.
            let mut behind = [0; BEHIND];
            let left = to.len() - filled;
            match self.receive(&mut to[filled..], &mut behind) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => {
                    filled += n.min(left);
                    self.input
                        .extend_from_slice(&behind[..n.saturating_sub(left)]);
                    consume_budget().await;
                }
                Err(e) => self.readable(e, left + CRLF.len()).await?,
            }
        }
        Ok(())
    }

    /// Reads what has arrived. A read that took all of it ends the socket's being readable, so that more is waited for
    /// than the little that has come until the next one.
    fn receive(&self, to: &mut [u8], behind: &mut [u8]) -> io::Result<usize> {
        let whole = to.len();
        let mut read = Err(ErrorKind::WouldBlock.into());
        let tried = self.stream.try_io(Interest::READABLE, || {
            let mut into = [to, behind].map(IoSliceMut::new);
            let count = rustix::io::readv(&self.stream, &mut into)?;
            read = Ok(count);
            match count > 0 && count < whole {
                true => Err(ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        match (read, tried) {
            (Err(_), Err(error)) => Err(error),
            (read, _) => read,
        }
    }

    /// Throws away the argument of `length` bytes.
    pub async fn skip(&mut self, mut length: usize) -> Result<(), End> {
        if let Some(words) = &mut self.inline {
            words.pop_front();
            return Ok(());
        }
        loop {
            let here = length.min(self.input.len());
            self.input.advance(here);
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// Throws away `count` arguments.
    pub async fn skip_arguments(&mut self, count: usize) -> Result<(), End> {
        for _ in 0..count {
            let length = self.argument().await?;
            self.skip(length).await?;
        }
        Ok(())
    }

    /// After the last argument: the command is complete.
    pub async fn finish(&mut self) -> Result<(), End> {
        if self.inline.is_none() {
            match self.item().await? {
                Item::End => {}
                _ => return Err(ProtocolError::Terminator.into()),
            }
        }
        Ok(())
    }

    /// Where answers are written; they are sent once there is nothing more to read, or enough to send.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends a value as a bulk string from where it lies.
    pub async fn value(&mut self, value: &[u8]) -> Result<(), End> {
        self.out
            .extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
        if value.len() <= GATHER {
            self.out.extend_from_slice(value);
            self.out.extend_from_slice(CRLF);
            return self.gathered().await;
        }
        let head = std::mem::take(&mut self.out);
        let sent = self.send([&head, value, CRLF]).await;
        self.out = head;
        self.out.clear();
        sent
    }

    /// Begins a value of `length` bytes that is sent in parts.
    pub fn begin_value(&mut self, length: u64) {
        let head = format!("${length}\r\n");
        self.out.extend_from_slice(head.as_bytes());
    }

    /// Sends a part of the value that was begun.
    pub async fn part(&mut self, part: &[u8]) -> Result<(), End> {
        let head = std::mem::take(&mut self.out);
        let sent = self.send([&head, part, &[]]).await;
        self.out = head;
        self.out.clear();
        sent
    }

    /// Ends the value that was begun.
    pub fn end_value(&mut self) {
        self.out.extend_from_slice(CRLF);
    }

    /// Keys of the `GET`s that have arrived already, as far as nothing else stands between them; `most` at most. The
    /// command that is being answered has been taken from the input.
    pub fn gets_ahead(&self, most: usize) -> Vec<Vec<u8>> {
        let (mut parser, mut left) = (self.parser.clone(), &self.input[..]);
        let mut keys = Vec::new();
        while keys.len() < most {
            match get_ahead(&mut parser, &mut left) {
                Some(key) => keys.push(key),
                None => break,
            }
        }
        keys
    }

    /// Sends what was written, if it is enough to be worth a system call.
    pub async fn gathered(&mut self) -> Result<(), End> {
        if self.out.len() < GATHER {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends what was written.
    pub async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let sent = self.send([&out, &[], &[]]).await;
        // Kept for the next answer, unless it grew far beyond the usual.
        if out.capacity() <= 4 * GATHER {
            self.out = out;
            self.out.clear();
        }
        sent
    }

    async fn send(&self, parts: [&[u8]; 3]) -> Result<(), End> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.stream.try_write_vectored(left) {
                Ok(n) => {
                    IoSlice::advance_slices(&mut left, n);
                    consume_budget().await;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    timeout(self.stall, self.stream.writable())
                        .await
                        .map_err(|_| End::Stalled(self.stall))??;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    async fn item(&mut self) -> Result<Item, End> {
        loop {
            match self.parser.next(&self.input)? {
                Step::Item(used, item) => {
                    self.input.advance(used);
                    return Ok(item);
                }
                Step::More(used) => {
                    self.input.advance(used);
                    self.read().await?;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        loop {
            self.input.reserve(READ);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Err(End::Closed),
                Ok(_) => {
                    consume_budget().await;
                    return Ok(());
                }
                Err(e) => self.readable(e, 1).await?,
            }
        }
    }

    /// After `error`: waits until there is something to read, if that is what was missing; of `wanted` bytes that belong
    /// together, until there is more than a little.
    async fn readable(&mut self, error: io::Error, wanted: usize) -> Result<(), End> {
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error.into());
        }
        self.flush().await?;
        let rests = self.parser.idle() && self.input.is_empty();
        if rests {
            // A connection at rest holds no buffers.
            self.input = BytesMut::new();
            self.out = Vec::new();
            self.wait_for(1)?;
            self.stream.readable().await?;
            return Ok(());
        }
        // A client that sends a few bytes now and then does not rest: they are looked for after half of the time.
        let most = if wanted < FEW { 1 } else { wanted.min(WAKE) };
        for bytes in [most, 1] {
            self.wait_for(bytes)?;
            if let Ok(ready) = timeout(self.stall / 2, self.stream.readable()).await {
                return Ok(ready?);
            }
        }
        Err(End::Stalled(self.stall))
    }

    fn wait_for(&mut self, bytes: usize) -> io::Result<()> {
        if self.low_water != bytes {
            low_water::set(&self.stream, bytes)?;
            self.low_water = bytes;
        }
        Ok(())
    }
}

/// The key of a whole `GET` at the start of `left`, which is then behind it.
fn get_ahead(parser: &mut Parser, left: &mut &[u8]) -> Option<Vec<u8>> {
    let mut item = |left: &mut &[u8]| match parser.next(left) {
        Ok(Step::Item(used, item)) => {
            *left = &left[used..];
            Some(item)
        }
        Ok(Step::More(_)) | Err(_) => None,
    };
    let argument = |item, left: &mut &[u8]| match item {
        Some(Item::Argument(length)) => {
            let (argument, rest) = left.split_at_checked(length)?;
            *left = rest;
            Some(argument.to_vec())
        }
        _ => None,
    };
    if item(left) != Some(Item::Command(2)) {
        return None;
    }
    let name = argument(item(left), left)?;
    let key = argument(item(left), left)?;
    let whole = item(left) == Some(Item::End) && name.eq_ignore_ascii_case(b"GET");
    whole.then_some(key)
}
