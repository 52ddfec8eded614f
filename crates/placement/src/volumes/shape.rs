//! How many legs a volume has, and of which size.
//!
//! On every leg of an array the first MiB is md's: superblock version 1.2 at 4 KiB (linux include/uapi/linux/raid/md_p.h), after it the
//! bitmap, for which mdadm keeps 4 KiB, from legs of 8 GiB on 64 KiB, of 200 GiB on 128 KiB (mdadm 4.2, `choose_bm_space` of super1.c).
//! So
//! ```text
//! leg = 1 MiB + data
//! data = volume                                    mirror, in whole blocks of 4 KiB
//!      = volume / legs that hold data              stripe: all; raid6: all but two; in whole chunks
//! ```

use super::{BLOCK, leg_size};
use std::ops::RangeInclusive;
use strand_api::Redundancy;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Before the data of a leg that is in an array, in bytes.
pub const DATA_OFFSET: u64 = MIB;
/// Of an array that lie together on one leg, in bytes: a stripe of raid6 over 8 legs is then 768 KiB.
pub const CHUNK: u64 = 128 << 10;
/// A stripe has a leg for each of these, since it is there for bandwidth.
const STRIPE_LEG: u64 = 64 * GIB;
/// raid6 has a leg with data for each of these: more drives to rebuild from, and less to rebuild of each.
const RAID6_LEG: u64 = 256 * GIB;
/// Most legs: what can fail together, and what one write touches, stays bounded.
const MOST: usize = 16;
/// Bits of a bitmap at most: 128 KiB less its head of 256 bytes.
const BITS: u64 = (128 * 1024 - 256) * 8;

/// Legs of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many.
    pub legs: usize,
    /// Size of each, in bytes.
    pub size: u64,
}

/// Legs of which any can be lost at once.
pub fn losses(redundancy: Redundancy) -> usize {
    match redundancy {
        Redundancy::None | Redundancy::Stripe => 0,
        Redundancy::Mirror => 1,
        Redundancy::Raid6 => 2,
    }
}

/// Bytes of data on each leg of an array of a volume of this size.
pub fn data(redundancy: Redundancy, volume: u64, legs: usize) -> u64 {
    let bearing = match redundancy {
        Redundancy::None | Redundancy::Mirror => return leg_size(volume),
        Redundancy::Stripe => legs,
        Redundancy::Raid6 => legs.saturating_sub(2),
    };
    let each = volume.max(BLOCK).div_ceil(bearing.max(1) as u64);
    each.div_ceil(CHUNK).saturating_mul(CHUNK)
}

/// Bytes of a volume whose legs have so many each.
pub fn volume(redundancy: Redundancy, leg: u64, legs: usize) -> u64 {
    let data = leg.saturating_sub(DATA_OFFSET);
    let bearing = match redundancy {
        Redundancy::None => return leg,
        Redundancy::Mirror => return data / BLOCK * BLOCK,
        Redundancy::Stripe => legs,
        Redundancy::Raid6 => legs.saturating_sub(2),
    };
    (data / CHUNK * CHUNK).saturating_mul(bearing as u64)
}

/// Size of each leg of a volume of this size, in bytes.
pub fn leg(redundancy: Redundancy, volume: u64, legs: usize) -> u64 {
    match redundancy {
        Redundancy::None => leg_size(volume),
        _ => data(redundancy, volume, legs).saturating_add(DATA_OFFSET),
    }
}

/// Bytes of a leg that a bit of its bitmap stands for: what a leg that returns is copied at least.
pub fn bitmap_chunk(data: u64) -> u64 {
    data.div_ceil(BITS).next_power_of_two().max(16 * MIB)
}

/// How many legs a volume can have.
pub fn widths(redundancy: Redundancy) -> RangeInclusive<usize> {
    match redundancy {
        Redundancy::None => 1..=1,
        Redundancy::Mirror => 2..=2,
        Redundancy::Stripe => 2..=MOST,
        Redundancy::Raid6 => 4..=MOST,
    }
}

/// The shapes that a volume of this size can have, best first: as many legs as its size asks for, then more, smaller ones, then fewer.
pub fn shapes(redundancy: Redundancy, volume: u64) -> Vec<Shape> {
    let widths = widths(redundancy);
    let (least, most) = (*widths.start(), *widths.end());
    let wanted = match redundancy {
        Redundancy::None | Redundancy::Mirror => least as u64,
        Redundancy::Stripe => volume.div_ceil(STRIPE_LEG),
        Redundancy::Raid6 => volume.div_ceil(RAID6_LEG).saturating_add(2),
    };
    let wanted = usize::try_from(wanted).unwrap_or(most).clamp(least, most);
    let widths = (wanted..=most).chain((least..wanted).rev());
    widths
        .map(|legs| Shape {
            legs,
            size: leg(redundancy, volume, legs),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_holds_its_volume_and_wastes_little() {
        use Redundancy::{Mirror, Raid6, Stripe};
        for redundancy in [Stripe, Mirror, Raid6] {
            for volume in [1, 4096, GIB - 1, GIB, 100 * GIB + 5, 3000 * GIB] {
                for shape in shapes(redundancy, volume) {
                    let bearing = match redundancy {
                        Mirror => 1,
                        Raid6 => shape.legs - 2,
                        _ => shape.legs,
                    } as u64;
                    let data = shape.size - DATA_OFFSET;
                    let holds = super::volume(redundancy, shape.size, shape.legs);
                    assert_eq!(holds, data * bearing);
                    assert!(data * bearing >= volume && data.is_multiple_of(BLOCK));
                    assert!(
                        data * bearing < volume + bearing * CHUNK + BLOCK,
                        "{redundancy:?} {volume}"
                    );
                    let bits = data.div_ceil(bitmap_chunk(data));
                    assert!(bits <= BITS, "{bits}");
                }
            }
        }
    }

    #[test]
    fn larger_volumes_have_more_legs() {
        let legs = |redundancy, gib| shapes(redundancy, gib * GIB)[0].legs;
        assert_eq!(legs(Redundancy::Raid6, 10), 4);
        assert_eq!(legs(Redundancy::Raid6, 1024), 6);
        assert_eq!(legs(Redundancy::Raid6, 100_000), 16);
        assert_eq!(legs(Redundancy::Stripe, 10), 2);
        assert_eq!(legs(Redundancy::Stripe, 1000), 16);
        assert_eq!(legs(Redundancy::Mirror, 100_000), 2);
        let widths: Vec<_> = shapes(Redundancy::Raid6, 1024 * GIB)
            .iter()
            .map(|s| s.legs)
            .collect();
        assert_eq!(widths[..3], [6, 7, 8]);
        assert_eq!(widths[10..], [16, 5, 4]);
    }
}
