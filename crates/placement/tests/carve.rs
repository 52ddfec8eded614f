//! What every carve plan keeps, whatever the drive and whatever is wanted of it.

use proptest::prelude::*;
use strand_placement::carve::{
    CarveError, Extent, Geometry, Layout, MIB, MIN_DRIVE, Recarve, Split, alignment, layout,
    recarve, usable,
};

fn geometry() -> impl Strategy<Value = Geometry> {
    let size = prop_oneof![
        0..4 * MIN_DRIVE,
        MIN_DRIVE..64 << 40,
        Just(MIN_DRIVE),
        Just(256 * MIB)
    ];
    let optimal = prop_oneof![
        Just(0u32),
        Just(4096),
        Just(16 << 10),
        Just(96 << 10),
        Just(128 << 10),
        Just(1 << 20),
        Just(3 << 20),
        any::<u32>()
    ];
    (size, prop_oneof![Just(512u32), Just(4096)], optimal).prop_map(
        |(size, logical_block, optimal_write)| Geometry {
            size: size / 4096 * 4096,
            logical_block,
            optimal_write,
        },
    )
}

fn split() -> impl Strategy<Value = Split> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..16u64 << 40]
        .prop_map(|context_bytes| Split { context_bytes })
}

fn check(geometry: &Geometry, split: &Split, plan: &Layout) {
    let unit = alignment(geometry);
    let mut end = unit;
    for (_, Extent { start, len }) in plan.partitions() {
        assert_eq!((start % unit, len % unit), (0, 0), "misaligned");
        assert!(len > 0 && start >= end, "overlapping or empty");
        end = start + len;
    }
    assert!(
        end + MIB <= geometry.size,
        "the last MiB is the label's and the table's"
    );
    let total: u64 = plan.partitions().map(|(_, extent)| extent.len).sum();
    assert_eq!(
        Ok(total),
        usable(geometry),
        "all of the usable space is carved, and no more"
    );
    let context = plan.context.map_or(0, |extent| extent.len);
    assert!(
        context <= split.context_bytes.max(unit),
        "no more context memory than asked for, but one unit"
    );
    assert_eq!(context == 0, split.context_bytes == 0);
}

proptest! {
    #[test]
    fn plans_are_aligned_disjoint_and_within_the_drive(geometry in geometry(), split in split()) {
        match layout(&geometry, &split) {
            Ok(plan) => {
                check(&geometry, &split, &plan);
                prop_assert_eq!(Ok(plan), layout(&geometry, &split), "equal inputs, equal plans");
            }
            Err(CarveError::TooSmall { size, minimum }) => prop_assert!(size < minimum),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_recarve_applied_twice_is_a_no_op(geometry in geometry(), first in split(), second in split(), data: bool) {
        let (Ok(current), Ok(wanted)) = (layout(&geometry, &first), layout(&geometry, &second)) else { return Ok(()) };
        if let Recarve::Move(moved) = recarve(&current, &wanted, data) {
            prop_assert_eq!(recarve(&moved, &wanted, data), Recarve::Keep);
            check(&geometry, &second, &moved);
        }
        prop_assert_eq!(recarve(&current, &current, data), Recarve::Keep);
    }

    #[test]
    fn storage_with_data_never_loses_a_byte(geometry in geometry(), first in split(), second in split()) {
        let (Ok(current), Ok(wanted)) = (layout(&geometry, &first), layout(&geometry, &second)) else { return Ok(()) };
        if let (Some(before), Recarve::Move(moved)) = (current.storage, recarve(&current, &wanted, true)) {
            let after = moved.storage.expect("storage with data stays");
            prop_assert!(after.start == before.start && after.len >= before.len);
        }
    }
}

#[test]
fn a_stand_in_of_256_mib_is_carved() {
    let geometry = Geometry {
        size: 256 * MIB,
        logical_block: 512,
        optimal_write: 0,
    };
    let plan = layout(
        &geometry,
        &Split {
            context_bytes: 153 * MIB,
        },
    )
    .expect("large enough");
    assert_eq!(
        plan.storage,
        Some(Extent {
            start: MIB,
            len: 101 * MIB
        })
    );
    assert_eq!(
        plan.context,
        Some(Extent {
            start: 102 * MIB,
            len: 153 * MIB
        })
    );
}

#[test]
fn none_and_all_leave_one_partition_out() {
    let geometry = Geometry {
        size: 1 << 30,
        logical_block: 4096,
        optimal_write: 128 << 10,
    };
    let none = layout(&geometry, &Split { context_bytes: 0 }).expect("large enough");
    assert!(none.context.is_none() && none.storage.is_some());
    let all = layout(
        &geometry,
        &Split {
            context_bytes: geometry.size,
        },
    )
    .expect("large enough");
    assert!(all.storage.is_none() && all.context.is_some());
}

#[test]
fn storage_may_grow_into_context_memory_but_not_shrink_under_data() {
    let geometry = Geometry {
        size: 1 << 30,
        logical_block: 512,
        optimal_write: 0,
    };
    let plan = |mib| {
        layout(
            &geometry,
            &Split {
                context_bytes: mib * MIB,
            },
        )
        .expect("large enough")
    };
    assert_eq!(
        recarve(&plan(600), &plan(300), true),
        Recarve::Move(plan(300))
    );
    assert!(matches!(
        recarve(&plan(300), &plan(600), true),
        Recarve::Refused(_)
    ));
    assert_eq!(
        recarve(&plan(300), &plan(600), false),
        Recarve::Move(plan(600))
    );
}

#[test]
fn odd_block_sizes_are_refused() {
    let geometry = Geometry {
        size: 1 << 30,
        logical_block: 520,
        optimal_write: 0,
    };
    assert_eq!(
        layout(&geometry, &Split { context_bytes: 0 }),
        Err(CarveError::LogicalBlock(520))
    );
}
