//! Sizes: rounded up, within what was asked for.

use strand_csi::v1::CapacityRange;

use crate::error::Error;
use crate::request::capability::FsType;

/// Every size is a multiple of this many bytes.
pub const UNIT: u64 = 1 << 20;
/// Smallest volume in bytes; file systems have minimums of their own.
pub const SMALLEST: u64 = 16 << 20;
/// Largest volume in bytes: XFS' largest file, less what a 64-bit signed number of units cannot hold.
pub const LARGEST: u64 = (8 << 60) - UNIT;
/// Size in bytes where none is asked for.
pub const DEFAULT: u64 = 1 << 30;

/// The bytes that a request lets a volume have: a multiple of [`UNIT`] at its start, so that it can be made so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The size to make.
    pub wanted: u64,
    /// At least this, as it was asked for.
    least: u64,
    /// At most this, if there was a limit.
    most: Option<u64>,
}

impl Sizes {
    /// Reads a range. `fs` is what the volume will hold; none: raw blocks.
    ///
    /// # Errors
    /// Where no size is in it, or only sizes that no volume can have.
    pub fn read(range: Option<&CapacityRange>, fs: Option<FsType>) -> Result<Self, Error> {
        let (required, limit) = range.map_or((0, 0), |r| (r.required_bytes, r.limit_bytes));
        let read = |bytes: i64| {
            u64::try_from(bytes).map_err(|_| Error::invalid("capacity_range", "a size is negative"))
        };
        let (least, limit) = (read(required)?, read(limit)?);
        let most = (limit > 0).then_some(limit);
        if most.is_some_and(|most| most < least) {
            let why = "limit_bytes is below required_bytes";
            return Err(Error::invalid("capacity_range", why));
        }
        let smallest = fs.map_or(SMALLEST, FsType::smallest);
        let start = match (least, most) {
            (0, Some(most)) => most.min(DEFAULT) / UNIT * UNIT,
            (0, None) => DEFAULT,
            (least, _) => least,
        };
        let wanted = start
            .max(smallest)
            .checked_next_multiple_of(UNIT)
            .filter(|bytes| *bytes <= LARGEST)
            .ok_or_else(|| Error::OutOfRange(format!("no volume can have {least} bytes")))?;
        if most.is_some_and(|most| wanted > most) {
            return Err(Error::OutOfRange(format!(
                "limit_bytes {limit} is below {wanted}, the next size that a volume can have; sizes are multiples of {UNIT} and at least {smallest}"
            )));
        }
        Ok(Self {
            wanted,
            least,
            most,
        })
    }

    /// Whether a volume of that size is what was asked for.
    pub fn hold(&self, bytes: u64) -> bool {
        bytes >= self.least && self.most.is_none_or(|most| bytes <= most)
    }
}

/// Bytes as the specification writes them.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(required: i64, limit: i64) -> Result<Sizes, Error> {
        let range = CapacityRange {
            required_bytes: required,
            limit_bytes: limit,
        };
        Sizes::read(Some(&range), None)
    }

    #[test]
    fn sizes_are_rounded_up_and_stay_below_the_limit() {
        assert_eq!(Sizes::read(None, None).unwrap().wanted, DEFAULT);
        assert_eq!(read(1, 0).unwrap().wanted, SMALLEST);
        assert_eq!(read((20 << 20) + 1, 0).unwrap().wanted, 21 << 20);
        assert_eq!(read(0, 100 << 20).unwrap().wanted, 100 << 20);
        assert_eq!(read(0, (100 << 20) + 5).unwrap().wanted, 100 << 20);
        for (required, limit) in [(0, 1), ((20 << 20) + 1, (20 << 20) + 2), (i64::MAX, 0)] {
            let result = read(required, limit);
            assert!(matches!(result, Err(Error::OutOfRange(_))), "{result:?}");
        }
        for (required, limit) in [(-1, 0), (0, -1), (2 << 30, 1 << 30)] {
            let result = read(required, limit);
            assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_file_system_has_a_smallest_size_of_its_own() {
        let range = CapacityRange {
            required_bytes: 1,
            limit_bytes: 0,
        };
        let xfs = Sizes::read(Some(&range), Some(FsType::Xfs)).unwrap();
        assert_eq!(xfs.wanted, 300 << 20);
    }

    proptest! {
        #[test]
        fn what_is_made_is_what_was_asked_for(required in 0..i64::MAX, limit in 0..i64::MAX) {
            if let Ok(sizes) = read(required, limit) {
                prop_assert!(sizes.hold(sizes.wanted));
                prop_assert_eq!(sizes.wanted % UNIT, 0);
                prop_assert!(limit == 0 || sizes.wanted <= limit as u64);
                prop_assert!(sizes.wanted >= required as u64);
            }
        }
    }
}
