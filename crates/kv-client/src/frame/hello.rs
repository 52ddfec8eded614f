//! How a session opens, in a form that no version ever changes.
//!
//! The client says which versions it speaks, the agent takes the highest that both do. Either message is the
//! 8-byte magic, a 32-bit length, and that many bytes; fields are only ever appended, and a reader skips
//! what it does not know. So a client of any age and an agent of any age understand each other's refusal.
//!
//! The rule for [`VERSIONS`]: a version is added with the release that brings it and is taken out no sooner
//! than a year after the release that last preferred it, because an endpoint in a pod lives for months.

use super::fields::{Fields, Malformed, put_short};

const MAGIC: &[u8; 8] = b"STRANDKV";

/// Bytes before the fields of a hello or its answer: the magic and the length.
pub const PREAMBLE: usize = 12;

/// The longest hello or answer, in bytes after the preamble.
pub const MAX_HELLO: usize = 4096;

/// A protocol version that this code speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first.
    V1,
}

/// Every version that this code speaks, oldest first.
pub const VERSIONS: &[Version] = &[Version::V1];

impl Version {
    /// Its number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
        }
    }

    /// The version of a number, where this code speaks it.
    pub fn of(number: u16) -> Option<Self> {
        VERSIONS.iter().copied().find(|v| v.number() == number)
    }
}

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// What this code speaks.
    pub fn ours() -> Self {
        let number = |v: Option<&Version>| v.map_or(0, |v| v.number());
        Self {
            oldest: number(VERSIONS.first()),
            newest: number(VERSIONS.last()),
        }
    }

    /// The newest version in this range that this code speaks.
    pub fn best(&self) -> Option<Version> {
        VERSIONS
            .iter()
            .copied()
            .rev()
            .find(|v| (self.oldest..=self.newest).contains(&v.number()))
    }
}

/// The client's opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it speaks.
    pub versions: Versions,
    /// Bytes of GET that it asks for, 0 for the agent's default.
    pub get_bytes: u64,
    /// Bytes of PUT that it asks for, 0 for the agent's default.
    pub put_bytes: u64,
    /// For the agent's logs; never trusted.
    pub name: String,
}

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in GET.
    pub get_bytes: u64,
    /// Bytes in PUT.
    pub put_bytes: u64,
    /// Bytes in a slot of either.
    pub slot_bytes: u32,
    /// Bytes in the longest key.
    pub key_bytes: u32,
    /// Requests that may wait for their reply.
    pub in_flight: u32,
    /// Blocks that may be open at once.
    pub open: u32,
    /// Puts that may be begun at once.
    pub begun: u32,
}

/// The agent's acceptance. With its first byte come three descriptors: GET, PUT, and the writing end of a pipe
/// that the client keeps open for as long as it has either of them mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What is spoken from here on.
    pub version: u16,
    /// The session's epoch, to be put into every frame.
    pub epoch: u64,
    /// What was granted.
    pub limits: Limits,
}

/// The agent's refusal; it closes the connection after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Refusal {
    /// One of [`Code`](super::Code), or one of a later version.
    pub code: u16,
    /// What the agent speaks.
    pub versions: Versions,
    /// What happened and what to do.
    pub words: String,
}

impl Hello {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = start();
        out.extend_from_slice(&self.versions.oldest.to_le_bytes());
        out.extend_from_slice(&self.versions.newest.to_le_bytes());
        out.extend_from_slice(&self.get_bytes.to_le_bytes());
        out.extend_from_slice(&self.put_bytes.to_le_bytes());
        let name = self.name.as_bytes();
        put_short(&mut out, &name[..name.len().min(64)]);
        finish(out)
    }

    /// The hello in the bytes after the preamble.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(body);
        Ok(Self {
            versions: Versions {
                oldest: fields.u16("the versions")?,
                newest: fields.u16("the versions")?,
            },
            get_bytes: fields.u64("the arena's size")?,
            put_bytes: fields.u64("the arena's size")?,
            name: String::from_utf8_lossy(&fields.short("the name")?).into_owned(),
        })
    }
}

const WELCOME: u8 = 0;
const REFUSED: u8 = 1;

impl Welcome {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = start();
        out.push(WELCOME);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.limits.get_bytes.to_le_bytes());
        out.extend_from_slice(&self.limits.put_bytes.to_le_bytes());
        out.extend_from_slice(&self.limits.slot_bytes.to_le_bytes());
        out.extend_from_slice(&self.limits.key_bytes.to_le_bytes());
        out.extend_from_slice(&self.limits.in_flight.to_le_bytes());
        out.extend_from_slice(&self.limits.open.to_le_bytes());
        out.extend_from_slice(&self.limits.begun.to_le_bytes());
        finish(out)
    }

    /// The agent's answer in the bytes after the preamble.
    pub fn decode(body: &[u8]) -> Result<Result<Self, Refusal>, Malformed> {
        let mut fields = Fields::of(body);
        match fields.u8("the answer")? {
            WELCOME => Ok(Ok(Self {
                version: fields.u16("the version")?,
                epoch: fields.u64("the epoch")?,
                limits: Limits {
                    get_bytes: fields.u64("the arena's size")?,
                    put_bytes: fields.u64("the arena's size")?,
                    slot_bytes: fields.u32("the slot's size")?,
                    key_bytes: fields.u32("the key's size")?,
                    in_flight: fields.u32("the requests in flight")?,
                    open: fields.u32("the open blocks")?,
                    begun: fields.u32("the begun puts")?,
                },
            })),
            REFUSED => Ok(Err(Refusal {
                code: fields.u16("the code")?,
                versions: Versions {
                    oldest: fields.u16("the versions")?,
                    newest: fields.u16("the versions")?,
                },
                words: String::from_utf8_lossy(&fields.short("the words")?).into_owned(),
            })),
            other => Err(Malformed::new(format!("answer {other} to the hello"))),
        }
    }
}

impl Refusal {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = start();
        out.push(REFUSED);
        out.extend_from_slice(&self.code.to_le_bytes());
        out.extend_from_slice(&self.versions.oldest.to_le_bytes());
        out.extend_from_slice(&self.versions.newest.to_le_bytes());
        let words = self.words.as_bytes();
        put_short(&mut out, &words[..words.len().min(MAX_HELLO / 2)]);
        finish(out)
    }
}

/// How many bytes follow a preamble.
pub(crate) fn body_length(preamble: &[u8; PREAMBLE]) -> Result<usize, Malformed> {
    let mut fields = Fields::of(preamble);
    if fields.bytes(MAGIC.len(), "the magic")? != MAGIC {
        return Err(Malformed::new(
            "it does not begin with STRANDKV; is this the native door's socket?",
        ));
    }
    let length = fields.u32("the length")? as usize;
    let rest = fields.rest();
    if length > MAX_HELLO || !rest.is_empty() {
        return Err(Malformed::new(format!(
            "a hello of {length} bytes, {MAX_HELLO} are allowed"
        )));
    }
    Ok(length)
}

fn start() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[0; 4]);
    out
}

fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len() - PREAMBLE).unwrap_or(u32::MAX);
    out[MAGIC.len()..PREAMBLE].copy_from_slice(&length.to_le_bytes());
    out
}
