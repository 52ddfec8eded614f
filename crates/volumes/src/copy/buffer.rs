//! Memory for direct I/O.

use super::ALIGNED;

/// Memory that direct I/O takes.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn new(len: u64) -> Self {
        let bytes = vec![0; len as usize + ALIGNED];
        let start = bytes.as_ptr().align_offset(ALIGNED);
        Self { bytes, start }
    }

    pub fn first(&mut self, len: u64) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + len as usize]
    }
}
