//! What agents ask each other, and what they answer.

use std::time::Duration;

use strand_context_store::Namespace;
use strand_kv_client::frame::Code;
use strand_kv_door::{Described, Life, Page, PutOptions, Refused, Totals};

use super::fields::{Fields, Malformed, put_many, put_short};

/// A key on one of the asked node's drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The drive's key in the pool map.
    pub drive: u32,
    /// The block's key.
    pub key: Vec<u8>,
}

/// Where a block may lie on the asked node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Whose block.
    pub namespace: Namespace,
    /// On which drive, under which key.
    pub at: Key,
}

/// What an agent asks of another one, about the other's own drives. Nothing is ever passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The value, sent at once if it has no more bytes than there is room for.
    Get {
        /// The block.
        spot: Spot,
        /// Bytes that the asking side has a place for.
        room: u32,
    },
    /// To store a value, whose bytes follow once the answer is [`Reply::Go`].
    Put {
        /// The block.
        spot: Spot,
        /// Bytes.
        length: u32,
        /// Life, and whether only where there is none.
        options: PutOptions,
    },
    /// Which keys are there.
    Exists {
        /// Whose keys.
        namespace: Namespace,
        /// Keys.
        keys: Vec<Key>,
    },
    /// How many of the first keys are there without a gap.
    LeadingRun {
        /// Whose keys.
        namespace: Namespace,
        /// Keys.
        keys: Vec<Key>,
    },
    /// Length and life of a block.
    Describe(Spot),
    /// To set a block's life; none: without end.
    Expire(Spot, Option<Duration>),
    /// To delete blocks for good.
    Delete(Vec<Spot>),
    /// To delete all blocks of a namespace for good, on all drives.
    Flush {
        /// Whose blocks.
        namespace: Namespace,
        /// Drives that must be there.
        drives: Vec<u32>,
    },
    /// Some keys.
    Scan {
        /// Whose keys.
        namespace: Namespace,
        /// Of which drive.
        drive: u32,
        /// From where on; 0: the start.
        cursor: u64,
        /// About how many.
        limit: u32,
    },
    /// What a namespace has on all drives.
    Totals(Namespace),
    /// Length and digest of a value that is to be read in parts; it is leased.
    Open(Spot),
    /// A chunk of a value, if the value still has this digest.
    Part {
        /// The block.
        spot: Spot,
        /// Which chunk, from 0 on.
        number: u32,
        /// The value's digest.
        digest: u64,
    },
    /// Nobody waits for the request of this id any more.
    Cancel,
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// First frame of a session: requests may come.
    Ready,
    /// The request waits for a drive or for memory.
    Working,
    /// No such block.
    Miss,
    /// The value has this many bytes, more than there was room for.
    Longer(u32),
    /// Send the value.
    Go,
    /// Committed.
    Stored,
    /// The key was there.
    Present,
    /// Not taken.
    Dropped,
    /// A piece did not pass its tag.
    Torn,
    /// The node has no such drive now.
    Away,
    /// It was done.
    Done,
    /// Number of keys.
    Count(u64),
    /// For each key asked about whether it is there.
    Bits(Vec<bool>),
    /// What became of each deletion.
    Deleted(Vec<Deletion>),
    /// What is known of a block.
    Described(Described),
    /// Some keys.
    Page(Page),
    /// What a namespace has.
    Totals(Totals),
    /// Length and digest of a value.
    Opened(u64, u64),
    /// It was not done.
    Refused(Refused),
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// There was nothing.
    Absent,
    /// There was a block, and it is gone for good.
    Deleted,
    /// The node has no such drive now.
    Away,
    /// The drive could not.
    Failed,
}

const ENDLESS: u64 = u64::MAX;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(ENDLESS - 1, |ms| ms.min(ENDLESS - 1))
}

fn put_left(out: &mut Vec<u8>, left: Option<Duration>) {
    out.extend_from_slice(&left.map_or(ENDLESS, millis).to_le_bytes());
}

fn left(fields: &mut Fields) -> Result<Option<Duration>, Malformed> {
    let ms = fields.u64()?;
    Ok((ms != ENDLESS).then(|| Duration::from_millis(ms)))
}

fn put_key(out: &mut Vec<u8>, key: &Key) {
    out.extend_from_slice(&key.drive.to_le_bytes());
    put_short(out, &key.key);
}

fn key(fields: &mut Fields) -> Result<Key, Malformed> {
    Ok(Key {
        drive: fields.u32()?,
        key: fields.short()?,
    })
}

fn put_spot(out: &mut Vec<u8>, spot: &Spot) {
    put_namespace(out, spot.namespace);
    put_key(out, &spot.at);
}

fn spot(fields: &mut Fields) -> Result<Spot, Malformed> {
    Ok(Spot {
        namespace: namespace(fields)?,
        at: key(fields)?,
    })
}

fn put_namespace(out: &mut Vec<u8>, namespace: Namespace) {
    out.extend_from_slice(&namespace.0.to_le_bytes());
}

fn namespace(fields: &mut Fields) -> Result<Namespace, Malformed> {
    Ok(Namespace(fields.u128()?))
}

impl Request {
    /// Appends the body; the operation's number.
    pub fn encode(&self, out: &mut Vec<u8>) -> u16 {
        match self {
            Self::Get { spot, room } => {
                put_spot(out, spot);
                out.extend_from_slice(&room.to_le_bytes());
                1
            }
            Self::Put {
                spot,
                length,
                options,
            } => {
                put_spot(out, spot);
                out.extend_from_slice(&length.to_le_bytes());
                out.push(options.only_if_absent.into());
                match options.life {
                    Life::Policy => out.push(0),
                    Life::Endless => out.push(1),
                    Life::For(life) => {
                        out.push(2);
                        out.extend_from_slice(&millis(life).to_le_bytes());
                    }
                }
                2
            }
            Self::Exists { namespace, keys } => {
                put_namespace(out, *namespace);
                put_many(out, keys, put_key);
                3
            }
            Self::LeadingRun { namespace, keys } => {
                put_namespace(out, *namespace);
                put_many(out, keys, put_key);
                4
            }
            Self::Describe(spot) => {
                put_spot(out, spot);
                5
            }
            Self::Expire(spot, left) => {
                put_spot(out, spot);
                put_left(out, *left);
                6
            }
            Self::Delete(spots) => {
                put_many(out, spots, put_spot);
                7
            }
            Self::Flush { namespace, drives } => {
                put_namespace(out, *namespace);
                put_many(out, drives, |out, drive| {
                    out.extend_from_slice(&drive.to_le_bytes());
                });
                8
            }
            Self::Scan {
                namespace,
                drive,
                cursor,
                limit,
            } => {
                put_namespace(out, *namespace);
                out.extend_from_slice(&drive.to_le_bytes());
                out.extend_from_slice(&cursor.to_le_bytes());
                out.extend_from_slice(&limit.to_le_bytes());
                9
            }
            Self::Totals(namespace) => {
                put_namespace(out, *namespace);
                10
            }
            Self::Cancel => 11,
            Self::Open(spot) => {
                put_spot(out, spot);
                12
            }
            Self::Part {
                spot,
                number,
                digest,
            } => {
                put_spot(out, spot);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&digest.to_le_bytes());
                13
            }
        }
    }

    /// Reads a body; none: an operation that this version does not have.
    ///
    /// # Errors
    /// The body is not the operation's.
    pub fn decode(operation: u16, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = Fields(body);
        let f = &mut fields;
        let request = match operation {
            1 => Self::Get {
                spot: spot(f)?,
                room: f.u32()?,
            },
            2 => Self::Put {
                spot: spot(f)?,
                length: f.u32()?,
                options: PutOptions {
                    only_if_absent: f.u8()? != 0,
                    life: match f.u8()? {
                        0 => Life::Policy,
                        1 => Life::Endless,
                        2 => Life::For(Duration::from_millis(f.u64()?)),
                        other => return Err(Malformed::new(format!("life {other}"))),
                    },
                },
            },
            3 => Self::Exists {
                namespace: namespace(f)?,
                keys: f.many(key)?,
            },
            4 => Self::LeadingRun {
                namespace: namespace(f)?,
                keys: f.many(key)?,
            },
            5 => Self::Describe(spot(f)?),
            6 => Self::Expire(spot(f)?, left(f)?),
            7 => Self::Delete(f.many(spot)?),
            8 => Self::Flush {
                namespace: namespace(f)?,
                drives: f.many(Fields::u32)?,
            },
            9 => Self::Scan {
                namespace: namespace(f)?,
                drive: f.u32()?,
                cursor: f.u64()?,
                limit: f.u32()?,
            },
            10 => Self::Totals(namespace(f)?),
            11 => Self::Cancel,
            12 => Self::Open(spot(f)?),
            13 => Self::Part {
                spot: spot(f)?,
                number: f.u32()?,
                digest: f.u64()?,
            },
            _ => return Ok(None),
        };
        fields.end()?;
        Ok(Some(request))
    }
}

/// The refusals that go from one agent to the other by their number; all others are the store's.
const CODES: [Code; 5] = [
    Code::Key,
    Code::Length,
    Code::Range,
    Code::Busy,
    Code::Closing,
];

impl Reply {
    /// Appends the body; the operation's number.
    pub fn encode(&self, out: &mut Vec<u8>) -> u16 {
        match self {
            Self::Ready => 0x80,
            Self::Working => 0x81,
            Self::Miss => 0x82,
            Self::Longer(length) => {
                out.extend_from_slice(&length.to_le_bytes());
                0x83
            }
            Self::Go => 0x84,
            Self::Stored => 0x85,
            Self::Present => 0x86,
            Self::Dropped => 0x87,
            Self::Torn => 0x88,
            Self::Away => 0x89,
            Self::Done => 0x8a,
            Self::Count(count) => {
                out.extend_from_slice(&count.to_le_bytes());
                0x8b
            }
            Self::Bits(bits) => {
                put_many(out, bits, |out, bit| out.push((*bit).into()));
                0x8c
            }
            Self::Deleted(all) => {
                put_many(out, all, |out, one| out.push(*one as u8));
                0x8d
            }
            Self::Described(described) => {
                out.extend_from_slice(&described.length.to_le_bytes());
                put_left(out, described.left);
                0x8e
            }
            Self::Page(page) => {
                out.extend_from_slice(&page.cursor.to_le_bytes());
                put_many(out, &page.keys, |out, key| put_short(out, key));
                0x8f
            }
            Self::Totals(totals) => {
                out.extend_from_slice(&totals.blocks.to_le_bytes());
                out.extend_from_slice(&totals.bytes.to_le_bytes());
                0x90
            }
            Self::Opened(length, digest) => {
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&digest.to_le_bytes());
                0x92
            }
            Self::Refused(refused) => {
                out.extend_from_slice(&refused.code.number().to_le_bytes());
                put_short(out, refused.words.as_bytes());
                0x91
            }
        }
    }

    /// Reads a body; none: an operation that this version does not have.
    ///
    /// # Errors
    /// The body is not the operation's.
    pub fn decode(operation: u16, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = Fields(body);
        let f = &mut fields;
        let reply = match operation {
            0x80 => Self::Ready,
            0x81 => Self::Working,
            0x82 => Self::Miss,
            0x83 => Self::Longer(f.u32()?),
            0x84 => Self::Go,
            0x85 => Self::Stored,
            0x86 => Self::Present,
            0x87 => Self::Dropped,
            0x88 => Self::Torn,
            0x89 => Self::Away,
            0x8a => Self::Done,
            0x8b => Self::Count(f.u64()?),
            0x8c => Self::Bits(f.many(|f| Ok(f.u8()? != 0))?),
            0x8d => Self::Deleted(f.many(|f| {
                Ok(match f.u8()? {
                    0 => Deletion::Absent,
                    1 => Deletion::Deleted,
                    2 => Deletion::Away,
                    _ => Deletion::Failed,
                })
            })?),
            0x8e => Self::Described(Described {
                length: f.u64()?,
                left: left(f)?,
            }),
            0x8f => Self::Page(Page {
                cursor: f.u64()?,
                keys: f.many(Fields::short)?,
            }),
            0x90 => Self::Totals(Totals {
                blocks: f.u64()?,
                bytes: f.u64()?,
            }),
            0x92 => Self::Opened(f.u64()?, f.u64()?),
            0x91 => {
                let number = f.u16()?;
                let known = CODES.into_iter().find(|code| code.number() == number);
                let words = f.text()?;
                Self::Refused(Refused::new(known.unwrap_or(Code::Store), words))
            }
            _ => return Ok(None),
        };
        fields.end()?;
        Ok(Some(reply))
    }
}
