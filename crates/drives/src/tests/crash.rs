//! Carving, moving and releasing, with the power cut at every single step.

use proptest::prelude::*;
use strand_placement::carve::{Extent, Geometry, Layout, MIB, Split, layout};
use strand_placement::verdict::LabelState;
use uuid::Uuid;

use super::power::Power;
use crate::carve::{finish, holds_data};
use crate::label::{Copy, DiskLabel, choose};
use crate::medium::Medium;
use crate::reserved::{contradiction, read_copies};

const SIZE: u64 = 256 * MIB;

fn plan(context_mib: u64) -> Layout {
    let geometry = Geometry {
        size: SIZE,
        logical_block: 512,
        optimal_write: 0,
    };
    layout(
        &geometry,
        &Split {
            context_bytes: context_mib * MIB,
        },
    )
    .expect("large enough")
}

fn label(context_mib: u64) -> DiskLabel {
    DiskLabel {
        generation: 1,
        state: LabelState::Carving,
        logical_block: 512,
        size: SIZE,
        pool_id: Uuid::from_u128(0x1111_2222 << 96),
        drive_id: Uuid::from_u128(0x3333_4444 << 96),
        layout: plan(context_mib),
        previous: None,
        pool_name: "rack".into(),
        serial: "S1".into(),
    }
}

fn read_label(drive: &Power) -> Option<DiskLabel> {
    match choose(&read_copies(drive).expect("readable")) {
        Copy::Valid(label) => Some(*label),
        Copy::Absent => None,
        other => panic!("{other:?}"),
    }
}

/// What an agent does at its start.
fn recover(drive: &Power) -> Option<DiskLabel> {
    let label = read_label(drive)?;
    assert_eq!(
        contradiction(drive, &label).expect("readable"),
        None,
        "a crash must not look like foreign writes: {label:?}"
    );
    finish(drive, &label).expect("the power is on")
}

fn coin(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 1 == 0
    }
}

/// Runs `act` on drives that `prepare` made, cutting the power after each number of steps and keeping different parts of what was
/// not flushed; `check` sees the drive after recovery.
fn cut_everywhere(
    prepare: impl Fn(&Power),
    act: impl Fn(&Power) -> std::io::Result<()>,
    check: impl Fn(&Power, u64),
) {
    for discarded in [None, Some(0), Some(0xA5)] {
        let whole = Power::new(SIZE, discarded);
        prepare(&whole);
        whole.stop_after(u64::MAX);
        act(&whole).expect("the power is on");
        let steps = whole.used(u64::MAX);
        assert!(steps > 5, "{steps} steps are too few to be true");
        for step in 0..=steps {
            for seed in 0..5 {
                let drive = Power::new(SIZE, discarded);
                prepare(&drive);
                drive.stop_after(step);
                assert_eq!(act(&drive).is_ok(), step == steps);
                match seed {
                    0 => drive.come_back(|| true),
                    1 => drive.come_back(|| false),
                    _ => drive.come_back(coin(seed * 7919 + step)),
                }
                check(&drive, step);
            }
        }
    }
}

fn carved(drive: &Power, context_mib: u64) -> DiskLabel {
    finish(drive, &label(context_mib))
        .expect("the power is on")
        .expect("a carve is not a release")
}

#[test]
fn a_carve_cut_anywhere_is_done_or_undone() {
    let whole = Power::new(SIZE, None);
    let expected = carved(&whole, 100);
    cut_everywhere(
        |_| (),
        |drive| finish(drive, &label(100)).map(|_| ()),
        |drive, step| match recover(drive) {
            Some(label) => {
                assert_eq!(label.state, LabelState::Carved);
                assert_eq!(label.layout, expected.layout);
                assert_eq!(contradiction(drive, &label).expect("readable"), None);
                let image = drive.image();
                assert_eq!(recover(drive), Some(label), "recovering twice is a no-op");
                assert_eq!(drive.image(), image, "recovering twice writes nothing new");
            }
            None => assert!(
                step <= 2 && drive.image().is_empty(),
                "without a label nothing may have been written (step {step})"
            ),
        },
    );
}

/// Storage with bytes at both its ends, and a trace of the old context memory at its start.
fn with_data(drive: &Power, label: &DiskLabel) {
    let storage = label.layout.storage.expect("has storage");
    drive
        .write_at(&[1; 512], storage.start)
        .expect("the power is on");
    drive
        .write_at(&[2; 512], storage.end() - 512)
        .expect("the power is on");
    if let Some(context) = label.layout.context {
        drive
            .write_at(&[3; 512], context.start)
            .expect("the power is on");
    }
    drive.sync().expect("the power is on");
}

fn reads(drive: &Power, at: u64) -> u8 {
    let mut byte = [0];
    drive.read_at(&mut byte, at).expect("readable");
    byte[0]
}

#[test]
fn a_move_cut_anywhere_keeps_storage_and_arrives() {
    for (from, to) in [(150, 50), (150, 0)] {
        cut_everywhere(
            |drive| with_data(drive, &carved(drive, from)),
            |drive| {
                finish(
                    drive,
                    &read_label(drive).expect("carved").moving_to(plan(to)),
                )
                .map(|_| ())
            },
            |drive, step| {
                let label = recover(drive).expect("a moving drive stays ours");
                assert_eq!(label.state, LabelState::Carved);
                let storage = plan(from).storage.expect("has storage");
                assert_eq!(
                    (reads(drive, storage.start), reads(drive, storage.end() - 1)),
                    (1, 2),
                    "storage lost bytes at step {step}"
                );
                if label.layout == plan(to)
                    && let Some(Extent { start, .. }) = label.layout.context
                {
                    assert_eq!(
                        reads(drive, start),
                        0,
                        "the new context partition shows old bytes"
                    );
                } else {
                    assert!(label.layout == plan(to) || label.layout == plan(from));
                }
                assert_eq!(contradiction(drive, &label).expect("readable"), None);
            },
        );
    }
}

#[test]
fn a_release_cut_anywhere_is_finished() {
    for state in [LabelState::Releasing, LabelState::Erasing] {
        cut_everywhere(
            |drive| with_data(drive, &carved(drive, 100)),
            |drive| finish(drive, &read_label(drive).expect("carved").next(state)).map(|_| ()),
            |drive, _| {
                if let Some(label) = recover(drive) {
                    assert_eq!(
                        label.state,
                        LabelState::Carved,
                        "only a release that never began leaves a label"
                    );
                    assert_eq!(label.generation, 2);
                } else {
                    assert!(
                        read_copies(drive)
                            .expect("readable")
                            .iter()
                            .all(|copy| *copy == Copy::Absent)
                    );
                    let left = drive.image();
                    match state {
                        LabelState::Erasing => assert!(
                            left.is_empty(),
                            "erased, but bytes are left: {:?}",
                            left.keys()
                        ),
                        _ => assert!(
                            left.keys().all(|at| (MIB..SIZE - MIB).contains(at)),
                            "label or table left"
                        ),
                    }
                }
            },
        );
    }
}

#[test]
fn an_empty_storage_partition_stays_empty_through_moves_whatever_trim_leaves() {
    let drive = Power::new(SIZE, Some(0xA5));
    let mut label = carved(&drive, 100);
    for context in [50, 150, 0, 255, 20] {
        assert!(!holds_data(&drive, &label.layout).expect("readable"));
        label = finish(&drive, &label.moving_to(plan(context)))
            .expect("the power is on")
            .expect("a move");
        assert_eq!(label.layout, plan(context));
    }
}

#[test]
fn holds_data_looks_at_both_ends_of_storage() {
    let drive = Power::new(SIZE, None);
    let label = carved(&drive, 100);
    assert!(!holds_data(&drive, &label.layout).expect("readable"));
    let storage = label.layout.storage.expect("has storage");
    drive
        .write_at(&[1; 512], storage.end() - 512)
        .expect("writable");
    assert!(holds_data(&drive, &label.layout).expect("readable"));
}

proptest! {
    #[test]
    fn whatever_somebody_else_writes_near_the_ends_contradicts_the_label(at in prop_oneof![0..2048u64, (SIZE / 512 - 2048)..SIZE / 512]) {
        let drive = Power::new(SIZE, None);
        let label = carved(&drive, 100);
        let mut sector = [0; 512];
        drive.read_at(&mut sector, at * 512).expect("readable");
        sector[17] ^= 1;
        drive.write_at(&sector, at * 512).expect("writable");
        let label_hit = crate::label::positions(SIZE).contains(&(at * 512));
        prop_assert_eq!(contradiction(&drive, &label).expect("readable").is_some(), !label_hit);
        // One damaged copy of the label costs nothing.
        prop_assert_eq!(read_label(&drive), Some(label));
    }
}
