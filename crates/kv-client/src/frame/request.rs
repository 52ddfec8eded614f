//! What a pod asks.

use super::fields::{Fields, Malformed, put_short, put_shorts};
use super::header::Header;

/// A time to live that never ends, in milliseconds.
pub const FOREVER: u64 = u64::MAX;

/// A request of protocol version 1. Keys are opaque bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read a block into GET, if its value has no more than `room` bytes and fits GET.
    Get {
        /// The block's key.
        key: Vec<u8>,
        /// The longest value that the client wants, in bytes.
        room: u64,
    },
    /// Give back what this id holds: the slots of a get or a read, an open block, a begun put. Has no reply.
    Release,
    /// Open a block whose value is larger than a get's room, to read it in parts.
    Open {
        /// The block's key.
        key: Vec<u8>,
    },
    /// Read a part of an open block into a slot of GET.
    Read {
        /// The id under which the block was opened.
        block: u64,
        /// Which part, from 0 on; each has as many bytes as a slot, the last one what is left.
        part: u64,
    },
    /// Store what lies in PUT.
    Put {
        /// The block's key.
        key: Vec<u8>,
        /// Where in PUT the value begins, in bytes; a multiple of the slot size.
        offset: u64,
        /// Bytes in the value.
        length: u64,
        /// Milliseconds to live; 0 leaves it to the pool's policy, [`FOREVER`] means no expiry.
        ttl_ms: u64,
        /// Only where the key is absent.
        only_if_absent: bool,
    },
    /// Begin to put a value that is larger than PUT. What is gathered of it lies in the agent's memory.
    Begin {
        /// The block's key.
        key: Vec<u8>,
        /// Bytes in the value.
        length: u64,
    },
    /// A part of a begun put, which lies in PUT.
    Part {
        /// The id under which the put was begun.
        put: u64,
        /// Which part, from 0 on, in any order; each has as many bytes as a slot, the last one what is left.
        part: u64,
        /// Where in PUT it begins, in bytes; a multiple of the slot size.
        offset: u64,
    },
    /// Store a begun put, all of whose parts are there. Its id is free again, whatever the reply.
    Commit {
        /// The id under which the put was begun.
        put: u64,
        /// As in a put.
        ttl_ms: u64,
        /// As in a put.
        only_if_absent: bool,
    },
    /// Which of the keys are there; grants a lease on each that is.
    Exists {
        /// In the order of the reply's bits.
        keys: Vec<Vec<u8>>,
    },
    /// How many of the keys are there, from the first on without a gap; grants a lease on each of them.
    LeadingRun {
        /// In order.
        keys: Vec<Vec<u8>>,
    },
    /// Length and time to live of a block.
    Describe {
        /// The block's key.
        key: Vec<u8>,
    },
    /// Set a block's remaining life.
    Expire {
        /// The block's key.
        key: Vec<u8>,
        /// Milliseconds from now, 0 for gone at once, [`FOREVER`] for no expiry.
        ttl_ms: u64,
    },
    /// Delete blocks.
    Delete {
        /// Their keys.
        keys: Vec<Vec<u8>>,
    },
    /// Delete every block of the namespace.
    Flush,
    /// A page of keys.
    Scan {
        /// 0 at first, then what the last page said.
        cursor: u64,
        /// About how many keys.
        limit: u32,
    },
    /// How much the namespace holds.
    Stats,
}

const GET: u16 = 1;
const RELEASE: u16 = 2;
const PUT: u16 = 3;
const EXISTS: u16 = 4;
const LEADING_RUN: u16 = 5;
const DESCRIBE: u16 = 6;
const EXPIRE: u16 = 7;
const DELETE: u16 = 8;
const FLUSH: u16 = 9;
const SCAN: u16 = 10;
const STATS: u16 = 11;
const OPEN: u16 = 12;
const READ: u16 = 13;
const BEGIN: u16 = 14;
const PART: u16 = 15;
const COMMIT: u16 = 16;

impl Request {
    /// Appends the request as a frame of the session `epoch`.
    pub fn encode(&self, out: &mut Vec<u8>, epoch: u64, id: u64) {
        Header::frame(out, self.operation(), epoch, id, |out| match self {
            Self::Get { key, room } => {
                out.extend_from_slice(&room.to_le_bytes());
                put_short(out, key);
            }
            Self::Put {
                key,
                offset,
                length,
                ttl_ms,
                only_if_absent,
            } => {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&ttl_ms.to_le_bytes());
                out.push(u8::from(*only_if_absent));
                put_short(out, key);
            }
            Self::Read { block, part } => {
                out.extend_from_slice(&block.to_le_bytes());
                out.extend_from_slice(&part.to_le_bytes());
            }
            Self::Begin { key, length } => {
                out.extend_from_slice(&length.to_le_bytes());
                put_short(out, key);
            }
            Self::Part { put, part, offset } => {
                out.extend_from_slice(&put.to_le_bytes());
                out.extend_from_slice(&part.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Self::Commit {
                put,
                ttl_ms,
                only_if_absent,
            } => {
                out.extend_from_slice(&put.to_le_bytes());
                out.extend_from_slice(&ttl_ms.to_le_bytes());
                out.push(u8::from(*only_if_absent));
            }
            Self::Exists { keys } | Self::LeadingRun { keys } | Self::Delete { keys } => {
                put_shorts(out, keys);
            }
            Self::Describe { key } | Self::Open { key } => put_short(out, key),
            Self::Expire { key, ttl_ms } => {
                out.extend_from_slice(&ttl_ms.to_le_bytes());
                put_short(out, key);
            }
            Self::Scan { cursor, limit } => {
                out.extend_from_slice(&cursor.to_le_bytes());
                out.extend_from_slice(&limit.to_le_bytes());
            }
            Self::Release | Self::Flush | Self::Stats => {}
        });
    }

    /// The request in a frame's body. `Ok(None)`: an operation that version 1 does not have.
    pub fn decode(operation: u16, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = Fields::of(body);
        let request = match operation {
            GET => Self::Get {
                room: fields.u64("the room")?,
                key: fields.short("the key")?,
            },
            RELEASE => Self::Release,
            PUT => Self::Put {
                offset: fields.u64("the offset")?,
                length: fields.u64("the length")?,
                ttl_ms: fields.u64("the time to live")?,
                only_if_absent: condition(&mut fields)?,
                key: fields.short("the key")?,
            },
            EXISTS => Self::Exists {
                keys: fields.shorts("the keys")?,
            },
            LEADING_RUN => Self::LeadingRun {
                keys: fields.shorts("the keys")?,
            },
            DESCRIBE => Self::Describe {
                key: fields.short("the key")?,
            },
            EXPIRE => Self::Expire {
                ttl_ms: fields.u64("the time to live")?,
                key: fields.short("the key")?,
            },
            DELETE => Self::Delete {
                keys: fields.shorts("the keys")?,
            },
            FLUSH => Self::Flush,
            SCAN => Self::Scan {
                cursor: fields.u64("the cursor")?,
                limit: fields.u32("the limit")?,
            },
            STATS => Self::Stats,
            OPEN => Self::Open {
                key: fields.short("the key")?,
            },
            READ => Self::Read {
                block: fields.u64("the block")?,
                part: fields.u64("the part")?,
            },
            BEGIN => Self::Begin {
                length: fields.u64("the length")?,
                key: fields.short("the key")?,
            },
            PART => Self::Part {
                put: fields.u64("the put")?,
                part: fields.u64("the part")?,
                offset: fields.u64("the offset")?,
            },
            COMMIT => Self::Commit {
                put: fields.u64("the put")?,
                ttl_ms: fields.u64("the time to live")?,
                only_if_absent: condition(&mut fields)?,
            },
            _ => return Ok(None),
        };
        fields.end()?;
        Ok(Some(request))
    }

    /// Whether it asks for a value.
    pub(crate) fn is_get(&self) -> bool {
        matches!(self, Self::Get { .. })
    }

    fn operation(&self) -> u16 {
        match self {
            Self::Get { .. } => GET,
            Self::Release => RELEASE,
            Self::Put { .. } => PUT,
            Self::Exists { .. } => EXISTS,
            Self::LeadingRun { .. } => LEADING_RUN,
            Self::Describe { .. } => DESCRIBE,
            Self::Expire { .. } => EXPIRE,
            Self::Delete { .. } => DELETE,
            Self::Flush => FLUSH,
            Self::Scan { .. } => SCAN,
            Self::Stats => STATS,
            Self::Open { .. } => OPEN,
            Self::Read { .. } => READ,
            Self::Begin { .. } => BEGIN,
            Self::Part { .. } => PART,
            Self::Commit { .. } => COMMIT,
        }
    }
}

fn condition(fields: &mut Fields<'_>) -> Result<bool, Malformed> {
    match fields.u8("the condition")? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Malformed::new(format!("put condition {other}"))),
    }
}
