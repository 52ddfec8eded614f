//! The header of every frame.

use super::fields::{Fields, Malformed};

/// Bytes in a header.
pub const HEADER: usize = 24;

/// The longest body, in bytes: about 1,000 keys of ordinary length.
pub const MAX_BODY: usize = 256 * 1024;

/// What stands before every body.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | length of the body |
/// | 4..6 | operation; the top bit marks a reply |
/// | 6..8 | zero |
/// | 8..16 | session epoch |
/// | 16..24 | request id, chosen by the client, unused by any request or lease of the session |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes in the body, at most [`MAX_BODY`].
    pub length: u32,
    /// Which request or reply.
    pub operation: u16,
    /// The session that it belongs to.
    pub epoch: u64,
    /// The request that it belongs to.
    pub id: u64,
}

impl Header {
    /// The header in its 24 bytes.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(bytes);
        let length = fields.u32("its length")?;
        let operation = fields.u16("its operation")?;
        let zero = fields.u16("its header")?;
        if length as usize > MAX_BODY {
            return Err(Malformed::new(format!(
                "a body of {length} bytes, {MAX_BODY} are allowed"
            )));
        }
        if zero != 0 {
            return Err(Malformed::new("reserved bytes of the header are not zero"));
        }
        Ok(Self {
            length,
            operation,
            epoch: fields.u64("its epoch")?,
            id: fields.u64("its id")?,
        })
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.operation.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// Appends a frame whose body `body` writes.
    pub(super) fn frame(
        out: &mut Vec<u8>,
        operation: u16,
        epoch: u64,
        id: u64,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = out.len();
        out.resize(start + HEADER, 0);
        body(out);
        let length = u32::try_from(out.len() - start - HEADER).unwrap_or(u32::MAX);
        let header = Self {
            length,
            operation,
            epoch,
            id,
        };
        out[start..start + HEADER].copy_from_slice(&header.encode());
    }
}
