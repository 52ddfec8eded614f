//! What agents ask each other.

use std::time::Duration;

use strand_context_store::Namespace;
use strand_kv_door::{Life, PutOptions};

use super::fields::{Fields, Malformed, put_many};
use super::parts::{
    Key, Spot, key, left, millis, namespace, put_key, put_left, put_namespace, put_spot, spot,
};

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
