//! What agents answer each other.

use strand_kv_client::frame::Code;
use strand_kv_door::{Described, Page, Refused, Totals};

use super::fields::{Fields, Malformed, put_many, put_short};
use super::parts::{left, put_left};

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
