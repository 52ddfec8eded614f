//! The header of every frame after the hello.

use super::fields::{Fields, Malformed};

/// Bytes in a header.
pub const HEADER: usize = 48;

/// Bytes in a tag of AES-256-GCM.
pub const TAG: usize = 16;

/// The least that a frame has: what is read first.
pub const HEAD: usize = HEADER + TAG;

/// The longest body in bytes: the keys of the longest batch of the native door, each with its drive.
pub const MAX_BODY: usize = 1 << 20;

/// Payload bytes in a frame at most: sealed, sent, received and opened while they are in a core's second-level cache.
/// Divides a chunk of the store.
pub const PIECE: usize = 256 << 10;

const MAGIC: [u8; 4] = *b"SKVR";

/// What stands before every body, in the clear and covered by the body's tag.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | `SKVR` |
/// | 4..6 | operation |
/// | 6..8 | zero |
/// | 8..16 | request id, chosen by whoever asks |
/// | 16..20 | bytes in the body |
/// | 20..24 | bytes in the payload |
/// | 24..28 | where the payload lies in its value |
/// | 28..32 | bytes in the value |
/// | 32..48 | tag of the payload |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Which request or reply.
    pub operation: u16,
    /// The request that it belongs to.
    pub id: u64,
    /// Bytes in the body, at most [`MAX_BODY`].
    pub body: u32,
    /// Bytes in the payload, at most [`PIECE`].
    pub payload: u32,
    /// Where the payload lies in its value.
    pub offset: u32,
    /// Bytes in the value.
    pub total: u32,
    /// Tag of the payload.
    pub tag: [u8; TAG],
}

impl Header {
    /// Operation of a frame that carries a piece of a value.
    pub const DATA: u16 = 0x100;

    /// Reads a header.
    ///
    /// # Errors
    /// It is none, or a length is beyond its bound.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC {
            return Err(Malformed::new("it does not begin as one"));
        }
        let operation = fields.u16()?;
        if fields.u16()? != 0 {
            return Err(Malformed::new("reserved bytes of the header are not zero"));
        }
        let header = Self {
            operation,
            id: fields.u64()?,
            body: fields.u32()?,
            payload: fields.u32()?,
            offset: fields.u32()?,
            total: fields.u32()?,
            tag: fields.array()?,
        };
        let ends = header.offset.checked_add(header.payload);
        if header.body as usize > MAX_BODY || header.payload as usize > PIECE {
            return Err(Malformed::new("a part is longer than allowed"));
        }
        if ends.is_none_or(|end| end > header.total) {
            return Err(Malformed::new("its payload lies outside its value"));
        }
        if (operation == Self::DATA) != (header.payload > 0) {
            return Err(Malformed::new("the operation does not fit the payload"));
        }
        Ok(header)
    }

    /// The header in its 48 bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.operation.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.offset.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.total.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.tag);
        bytes
    }
}
