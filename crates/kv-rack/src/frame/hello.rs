//! The hello: who speaks which versions about which pool, and proof that both hold its key.

use super::fields::{Fields, Malformed, put_short};

/// The version of the protocol that this code speaks; the range that it offers is this one alone.
pub const VERSION: u16 = 1;

/// Bytes before each hello message: magic, and the length of what follows.
pub const PREAMBLE: usize = 10;

/// The longest hello message after its preamble.
pub const MAX_HELLO: usize = 1024;

const MAGIC: [u8; 8] = *b"STRANDKV";

/// Which of a link's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Questions and facts: never behind a value.
    Small,
    /// Values.
    Bulk,
}

/// The first message, from the side that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version that it speaks.
    pub oldest: u16,
    /// Newest version that it speaks.
    pub newest: u16,
    /// Which connection of the link.
    pub lane: Lane,
    /// The link, a random number: both of its connections carry it.
    pub link: u128,
    /// Random, so that no session has the keys of another.
    pub nonce: [u8; 32],
    /// The pool whose blocks it is about.
    pub pool: String,
    /// The node that connects.
    pub node: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version to speak.
    pub version: u16,
    /// Random, as above.
    pub nonce: [u8; 32],
    /// MAC of both messages so far: the answering side holds the key.
    pub mac: [u8; 32],
}

/// The answer of an agent that will not talk: in the clear, since there is no session. Believed by nobody, read by people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, and what to do.
    pub words: String,
}

/// A message behind its preamble.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_short(&mut out, body);
    out
}

/// The length of the message behind a preamble.
pub(crate) fn length_of(preamble: &[u8; PREAMBLE]) -> Result<usize, Malformed> {
    let mut fields = Fields(preamble);
    if fields.array()? != MAGIC {
        return Err(Malformed::new("it is no hello of an agent"));
    }
    match fields.u16()?.into() {
        length if length <= MAX_HELLO => Ok(length),
        length => Err(Malformed::new(format!("a hello of {length} bytes"))),
    }
}

impl Hello {
    /// The message with its preamble.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(&self.oldest.to_le_bytes());
        body.extend_from_slice(&self.newest.to_le_bytes());
        body.push(match self.lane {
            Lane::Small => 0,
            Lane::Bulk => 1,
        });
        body.extend_from_slice(&self.link.to_le_bytes());
        body.extend_from_slice(&self.nonce);
        put_short(&mut body, self.pool.as_bytes());
        put_short(&mut body, self.node.as_bytes());
        framed(&body)
    }

    /// Reads a message without its preamble. Later versions may append fields.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(body);
        Ok(Self {
            oldest: fields.u16()?,
            newest: fields.u16()?,
            lane: match fields.u8()? {
                0 => Lane::Small,
                1 => Lane::Bulk,
                other => return Err(Malformed::new(format!("lane {other}"))),
            },
            link: fields.u128()?,
            nonce: fields.array()?,
            pool: fields.text()?,
            node: fields.text()?,
        })
    }

    /// The version that both sides speak; none where there is none.
    pub fn version(&self) -> Option<u16> {
        (self.oldest..=self.newest)
            .contains(&VERSION)
            .then_some(VERSION)
    }
}

impl Welcome {
    /// The message with its preamble.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![1];
        body.extend_from_slice(&self.version.to_le_bytes());
        body.extend_from_slice(&self.nonce);
        body.extend_from_slice(&self.mac);
        framed(&body)
    }

    /// Reads an answer without its preamble.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Result<Self, Refusal>, Malformed> {
        let mut fields = Fields(body);
        match fields.u8()? {
            0 => Ok(Err(Refusal {
                words: fields.text()?,
            })),
            1 => Ok(Ok(Self {
                version: fields.u16()?,
                nonce: fields.array()?,
                mac: fields.array()?,
            })),
            other => Err(Malformed::new(format!("answer {other} to a hello"))),
        }
    }
}

impl Refusal {
    /// The message with its preamble.
    pub fn encode(&self) -> Vec<u8> {
        let mut words = self.words.as_str();
        while words.len() > MAX_HELLO / 2 {
            let end = words.char_indices().next_back().map_or(0, |(at, _)| at);
            words = &words[..end];
        }
        let mut body = vec![0];
        put_short(&mut body, words.as_bytes());
        framed(&body)
    }
}
