//! What the agent answers.

use super::fields::{Fields, Malformed, put_short, put_shorts};
use super::header::Header;

/// How a put ended, on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Committed: readable from now on.
    Stored,
    /// The key was there and the put was conditional.
    Present,
    /// Not taken; only a later miss.
    Dropped,
}

/// A reply of protocol version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The value lies in GET, verified, until the client releases this id.
    Hit {
        /// Where in GET, in bytes.
        offset: u64,
        /// Bytes in the value.
        length: u64,
    },
    /// No such block, or none that could be verified.
    Miss,
    /// To a get: there is a value, and it is larger than the room for it. Open it.
    Larger,
    /// To an open.
    Opened {
        /// Bytes in the value.
        length: u64,
        /// A number that differs where values of the key differ.
        digest: u64,
    },
    /// To a put.
    Put(Put),
    /// To exists: one bit a key, the first key in the lowest bit of the first byte.
    Presence {
        /// Bits, padded with zeroes to whole bytes.
        bits: Vec<u8>,
    },
    /// To a leading run, a delete or an expire: how many keys.
    Count {
        /// Keys.
        count: u64,
    },
    /// To a describe.
    Described {
        /// Bytes in the value.
        length: u64,
        /// Milliseconds left, [`FOREVER`](super::FOREVER) without expiry.
        ttl_ms: u64,
    },
    /// To a begin: the put's parts may come.
    Begun,
    /// To a flush or a part.
    Done,
    /// To a scan.
    Page {
        /// Where to go on, 0 at the end.
        cursor: u64,
        /// Keys.
        keys: Vec<Vec<u8>>,
    },
    /// To stats.
    Stats {
        /// Blocks present.
        blocks: u64,
        /// Bytes that they take on drives: whole pages, their keys included.
        bytes: u64,
    },
    /// Not done.
    Refused {
        /// One of [`Code`](super::Code), or one of a later version.
        code: u16,
        /// What happened and what to do.
        words: String,
    },
}

const REPLY: u16 = 0x8000;
const HIT: u16 = REPLY | 1;
const MISS: u16 = REPLY | 2;
const PUT: u16 = REPLY | 3;
const PRESENCE: u16 = REPLY | 4;
const COUNT: u16 = REPLY | 5;
const DESCRIBED: u16 = REPLY | 6;
const DONE: u16 = REPLY | 7;
const PAGE: u16 = REPLY | 8;
const STATS: u16 = REPLY | 9;
const REFUSED: u16 = REPLY | 10;
const LARGER: u16 = REPLY | 11;
const OPENED: u16 = REPLY | 12;
const BEGUN: u16 = REPLY | 13;

impl Reply {
    /// Appends the reply to request `id` as a frame of the session `epoch`.
    pub fn encode(&self, out: &mut Vec<u8>, epoch: u64, id: u64) {
        Header::frame(out, self.operation(), epoch, id, |out| match self {
            Self::Hit { offset, length } => {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
            }
            Self::Opened { length, digest } => {
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&digest.to_le_bytes());
            }
            Self::Put(put) => out.push(match put {
                Put::Stored => 0,
                Put::Present => 1,
                Put::Dropped => 2,
            }),
            Self::Presence { bits } => put_short(out, bits),
            Self::Count { count } => out.extend_from_slice(&count.to_le_bytes()),
            Self::Described { length, ttl_ms } => {
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&ttl_ms.to_le_bytes());
            }
            Self::Page { cursor, keys } => {
                out.extend_from_slice(&cursor.to_le_bytes());
                put_shorts(out, keys);
            }
            Self::Stats { blocks, bytes } => {
                out.extend_from_slice(&blocks.to_le_bytes());
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            Self::Refused { code, words } => {
                out.extend_from_slice(&code.to_le_bytes());
                put_short(out, words.as_bytes());
            }
            Self::Miss | Self::Done | Self::Larger | Self::Begun => {}
        });
    }

    /// The reply in a frame's body.
    pub fn decode(operation: u16, body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(body);
        let reply = match operation {
            HIT => Self::Hit {
                offset: fields.u64("the offset")?,
                length: fields.u64("the length")?,
            },
            MISS => Self::Miss,
            PUT => Self::Put(match fields.u8("the outcome")? {
                0 => Put::Stored,
                1 => Put::Present,
                2 => Put::Dropped,
                other => return Err(Malformed::new(format!("put outcome {other}"))),
            }),
            PRESENCE => Self::Presence {
                bits: fields.short("the bits")?,
            },
            COUNT => Self::Count {
                count: fields.u64("the count")?,
            },
            DESCRIBED => Self::Described {
                length: fields.u64("the length")?,
                ttl_ms: fields.u64("the time to live")?,
            },
            DONE => Self::Done,
            PAGE => Self::Page {
                cursor: fields.u64("the cursor")?,
                keys: fields.shorts("the keys")?,
            },
            STATS => Self::Stats {
                blocks: fields.u64("the blocks")?,
                bytes: fields.u64("the bytes")?,
            },
            REFUSED => Self::Refused {
                code: fields.u16("the code")?,
                words: String::from_utf8_lossy(&fields.short("the words")?).into_owned(),
            },
            LARGER => Self::Larger,
            BEGUN => Self::Begun,
            OPENED => Self::Opened {
                length: fields.u64("the length")?,
                digest: fields.u64("the digest")?,
            },
            other => return Err(Malformed::new(format!("reply {other:#06x} is unknown"))),
        };
        fields.end()?;
        Ok(reply)
    }

    fn operation(&self) -> u16 {
        match self {
            Self::Hit { .. } => HIT,
            Self::Miss => MISS,
            Self::Put(_) => PUT,
            Self::Presence { .. } => PRESENCE,
            Self::Count { .. } => COUNT,
            Self::Described { .. } => DESCRIBED,
            Self::Done => DONE,
            Self::Page { .. } => PAGE,
            Self::Stats { .. } => STATS,
            Self::Refused { .. } => REFUSED,
            Self::Larger => LARGER,
            Self::Begun => BEGUN,
            Self::Opened { .. } => OPENED,
        }
    }
}
