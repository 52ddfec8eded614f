//! A record: one block, or one fact about blocks, that describes itself.
//!
//! ```text
//! meta   0  magic "SREC"     24  namespace u128       56  check u128
//!        4  kind u8          40  sequence u64         72  key
//!        5  flags u8         48  nonce u64                checksums, u64 each: one per MiB of the body, one of the tail
//!        6  key length u16                                the value's tail (its length modulo 4 KiB)
//!        8  value length u32
//!       12  expiry u32
//!       16  place u32, in units of 64 bytes of the segment
//!       20  zero u32
//! body   the value's whole pages, on a page boundary, so that they go between drive and caller without a copy
//! ```
//! The check covers everything in the meta but the tail, under the partition's secret: a payload never reads as a record,
//! nor does a record of an earlier use of the same segment (the nonce is the unit's). A value below 4 KiB is all tail, and such records are packed
//! together on 64-byte boundaries.

use crate::codec::Fields;
use crate::hash::Secret;
use crate::{CHUNK, MAX_KEY, MAX_VALUE, Namespace, PAGE};

const MAGIC: [u8; 4] = *b"SREC";

/// Bytes before the key.
pub(crate) const HEAD: usize = 72;

/// Records start on multiples of this.
pub(crate) const UNIT: usize = 64;

/// Largest meta: head, longest key, 129 checksums and the longest tail fit.
pub(crate) const MAX_META: usize = 2 * PAGE;

/// Set in `flags`: an older record of the same key lay on the medium when this was written.
const REPLACES: u8 = 1;

/// Set in `flags`: the key's place holds its fingerprint instead. So are facts that eviction carries on.
const HASHED: u8 = 2;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The key has this value.
    Value = 1,
    /// The key has none that is older than this.
    Tombstone = 2,
    /// The namespace has no block that is older than this.
    Flush = 3,
    /// The key's value, where it is older than this, expires at this record's expiry.
    Expire = 4,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Value),
            2 => Some(Kind::Tombstone),
            3 => Some(Kind::Flush),
            4 => Some(Kind::Expire),
            _ => None,
        }
    }
}

/// A record's meta, without the tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) replaces: bool,
    /// The key is a fingerprint.
    pub(crate) hashed: bool,
    pub(crate) namespace: Namespace,
    pub(crate) key: Vec<u8>,
    /// Bytes of the value; 0 for what is no value.
    pub(crate) len: u32,
    /// See `expiry`; 0: never.
    pub(crate) expiry: u32,
    pub(crate) sequence: u64,
    /// Of the unit that it lies in.
    pub(crate) nonce: u64,
    /// In units of 64 bytes from the segment's start.
    pub(crate) place: u32,
    pub(crate) checksums: Vec<u64>,
}

/// How a value of some length under a key of some length is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) len: usize,
    pub(crate) key: usize,
}

impl Shape {
    /// Bytes that travel in the meta.
    pub(crate) fn tail(self) -> usize {
        self.len % PAGE
    }

    /// Bytes in pages of their own.
    pub(crate) fn body(self) -> usize {
        self.len - self.tail()
    }

    /// Checksums of the body.
    pub(crate) fn chunks(self) -> usize {
        self.body().div_ceil(CHUNK)
    }

    fn checksums(self) -> usize {
        self.chunks() + usize::from(self.tail() > 0)
    }

    /// Bytes of the meta with its tail.
    pub(crate) fn meta(self) -> usize {
        HEAD + self.key + 8 * self.checksums() + self.tail()
    }

    /// Pages that the meta of a record with a body takes: 1 or 2.
    pub(crate) fn meta_pages(self) -> usize {
        self.meta().div_ceil(PAGE)
    }

    /// Bytes that the record takes of its segment.
    pub(crate) fn footprint(self) -> usize {
        if self.body() == 0 {
            self.meta().next_multiple_of(UNIT)
        } else {
            self.meta_pages() * PAGE + self.body()
        }
    }

    /// Whether it is packed together with others.
    pub(crate) fn is_small(self) -> bool {
        self.body() == 0
    }
}

impl Meta {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            len: self.len as usize,
            key: self.key.len(),
        }
    }

    /// Bytes before the tail.
    fn fixed_len(&self) -> usize {
        HEAD + self.key.len() + 8 * self.checksums.len()
    }

    /// The meta's bytes up to the tail.
    pub(crate) fn encode(&self, secret: &Secret) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.fixed_len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(self.kind as u8);
        bytes.push(if self.replaces { REPLACES } else { 0 } | if self.hashed { HASHED } else { 0 });
        bytes.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.expiry.to_le_bytes());
        bytes.extend_from_slice(&self.place.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&self.namespace.0.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.nonce.to_le_bytes());
        let mut rest = Vec::with_capacity(self.key.len() + 8 * self.checksums.len());
        rest.extend_from_slice(&self.key);
        for checksum in &self.checksums {
            rest.extend_from_slice(&checksum.to_le_bytes());
        }
        let check = secret.record(&bytes, &rest);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes.extend_from_slice(&rest);
        bytes
    }

    /// A meta from the front of some bytes, and the tail that follows it; none where it is not one of ours, or not the
    /// one that lies at `place` of nonce `nonce`.
    pub(crate) fn decode<'a>(
        bytes: &'a [u8],
        secret: &Secret,
        nonce: u64,
        place: u32,
    ) -> Option<(Meta, &'a [u8])> {
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC {
            return None;
        }
        let kind = Kind::from_byte(fields.u8()?)?;
        let flags = fields.u8()?;
        let key_len = usize::from(fields.u16()?);
        let len = fields.u32()?;
        let expiry = fields.u32()?;
        let written_place = fields.u32()?;
        let _zero = fields.u32()?;
        let namespace = Namespace(fields.u128()?);
        let sequence = fields.u64()?;
        let written_nonce = fields.u64()?;
        let check = fields.u128()?;
        if key_len > MAX_KEY
            || len as usize > MAX_VALUE
            || (written_nonce, written_place) != (nonce, place)
        {
            return None;
        }
        let shape = Shape {
            len: len as usize,
            key: key_len,
        };
        let count = match kind {
            Kind::Value => shape.checksums(),
            Kind::Tombstone | Kind::Flush | Kind::Expire => 0,
        };
        let rest = fields.0.get(..key_len + 8 * count)?;
        if secret.record(&bytes[..HEAD - 16], rest) != check {
            return None;
        }
        let key = fields.bytes(key_len)?.to_vec();
        let checksums = (0..count).map(|_| fields.u64()).collect::<Option<_>>()?;
        let tail = fields.bytes(shape.tail())?;
        let meta = Meta {
            kind,
            replaces: flags & REPLACES != 0,
            hashed: flags & HASHED != 0,
            namespace,
            key,
            len,
            expiry,
            sequence,
            nonce: written_nonce,
            place: written_place,
            checksums,
        };
        Some((meta, tail))
    }

    /// Bytes that the record takes of its segment.
    pub(crate) fn footprint(&self) -> usize {
        match self.kind {
            Kind::Value => self.shape().footprint(),
            _ => self.fixed_len().next_multiple_of(UNIT),
        }
    }
}
