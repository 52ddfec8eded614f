//! Where segments lie on a partition.

use crate::error::OpenError;

/// First byte of the first segment.
const DATA: u64 = 1 << 20;

/// Smallest and largest segment in bytes.
const SEGMENT: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;

/// Fewest segments of a partition.
const FEWEST: u64 = 16;

/// Most segments of a partition: the index has 16 bits for one.
const MOST: u64 = 65_535;

/// A partition's segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) segment_len: u64,
    pub(crate) segments: u32,
}

impl Layout {
    /// The layout of a partition of `len` bytes at byte `offset` of its medium: about 1,024 segments of 1 MiB to 1 GiB.
    pub(crate) fn new(offset: u64, len: u64) -> Result<Layout, OpenError> {
        let refuse = |reason| {
            Err(OpenError::Geometry {
                offset,
                len,
                reason,
            })
        };
        if !offset.is_multiple_of(4096) {
            return refuse("it must start on a multiple of 4096 bytes");
        }
        let segment_len = (len / 1024)
            .clamp(*SEGMENT.start(), *SEGMENT.end())
            .next_power_of_two()
            .min(*SEGMENT.end());
        let segments = len.saturating_sub(DATA) / segment_len;
        if segments < FEWEST {
            return refuse("it needs 17 MiB at least");
        }
        if segments > MOST {
            return refuse("it may have 64 TiB at most; make the context side smaller");
        }
        Ok(Layout {
            segment_len,
            segments: segments as u32,
        })
    }

    /// First byte of a segment.
    pub(crate) fn start(&self, segment: u32) -> u64 {
        DATA + u64::from(segment) * self.segment_len
    }

    /// Bytes of all segments.
    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.segments) * self.segment_len
    }
}
