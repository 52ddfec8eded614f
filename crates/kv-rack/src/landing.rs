//! Where the bytes of a value go, piece by piece.

use strand_context_store::{CHUNK, Span};
use tokio::sync::oneshot;

use crate::frame::{Header, Malformed, PIECE, Reply};

/// Memory for one value: one span, or spans of a chunk each.
#[derive(Debug)]
pub(crate) struct Landing {
    spans: Vec<Span>,
    room: usize,
    received: usize,
    total: Option<usize>,
}

impl Landing {
    /// Room for any value that fits a slot.
    pub(crate) fn slot(span: Span) -> Self {
        Self {
            room: span.len(),
            spans: vec![span],
            received: 0,
            total: None,
        }
    }

    /// Room for a value of `total` bytes.
    pub(crate) fn chunks(spans: Vec<Span>, total: usize) -> Self {
        Self {
            room: spans.iter().map(Span::len).sum(),
            spans,
            received: 0,
            total: Some(total),
        }
    }

    /// Where the payload of this frame goes: pieces come in order, and all but the last are whole.
    pub(crate) fn piece(&self, header: &Header) -> Result<Span, Malformed> {
        let (offset, length) = (header.offset as usize, header.payload as usize);
        let total = header.total as usize;
        let fits = total <= self.room && self.total.is_none_or(|known| known == total);
        if !fits || offset != self.received || length != (total - offset).min(PIECE) {
            return Err(Malformed::new(
                "a piece of a value that is not the next one",
            ));
        }
        let part = match self.spans.as_slice() {
            [span] => span.part(offset, length),
            spans => (spans.get(offset / CHUNK)).and_then(|span| span.part(offset % CHUNK, length)),
        };
        part.ok_or_else(|| Malformed::new("a piece of a value outside its memory"))
    }

    /// A piece is there. The value's length, if that was the last one.
    pub(crate) fn landed(&mut self, header: &Header) -> Option<usize> {
        self.received += header.payload as usize;
        self.total = Some(header.total as usize);
        (self.received == header.total as usize).then_some(self.received)
    }
}

/// One side's wait for the other: a request for its reply, or a put for its bytes.
#[derive(Debug)]
pub(crate) struct Call {
    /// Where bytes go, if any may come.
    pub(crate) landing: Option<Landing>,
    /// Who waits.
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What came of a call. Nothing at all where the connection ended.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The other side said this.
    Reply(Reply),
    /// The value is there, and has this many bytes.
    Landed(usize),
    /// A piece did not pass its tag.
    Torn,
}
