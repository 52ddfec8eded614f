//! Legs: made, copied, grown and deleted.

use crate::bed::{Bed, MIB, copy, leg, read, run, snapshot, text, write};
use std::fs;
use strand_volumes::{LegOrder, LegSource, VolumeError, VolumeMode};

#[test]
fn a_leg_is_made_once_and_its_name_is_its_own() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let order = leg("v-0", 10 * MIB + 1);
    let made = drive.make(&order).unwrap();
    assert_eq!(made.size, 10 * MIB + 4096);
    assert_eq!(drive.make(&order).unwrap(), made);
    let other = LegOrder {
        owner_uid: "u2".into(),
        ..order
    };
    assert!(
        matches!(drive.make(&other), Err(VolumeError::NameTaken { uuid, .. }) if uuid == made.uuid)
    );
    for bad in ["", "..", "a/b", "A"] {
        assert!(matches!(
            drive.make(&leg(bad, MIB)),
            Err(VolumeError::BadName { .. })
        ));
    }
    assert_eq!(read(&drive.data("v-0"), 0, 4096), [0; 4096]);
}

#[test]
fn deleting_names_the_bytes_it_means() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let before = drive.space().unwrap();
    let made = drive.make(&leg("v-0", 64 * MIB)).unwrap();
    let other = uuid::Uuid::from_u128(9);
    assert!(matches!(
        drive.delete("v-0", other),
        Err(VolumeError::NameTaken { .. })
    ));
    drive.delete("v-0", made.uuid).unwrap();
    drive.delete("v-0", made.uuid).unwrap();
    let after = drive.space().unwrap();
    assert_eq!((after.promised, after.kind), (before.promised, None));
    // XFS gives blocks back a moment later.
    let start = std::time::Instant::now();
    while drive.space().unwrap().free + MIB < before.free {
        assert!(
            start.elapsed().as_secs() < 60,
            "{before:?} {:?}",
            drive.space()
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_snapshot_keeps_what_was_written_before_it_and_outlives_its_origin() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let origin = drive.make(&leg("v-0", 8 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    write(&device, 4096, b"before").unwrap();
    let taken = drive.make(&snapshot("s-s0", "v-0")).unwrap();
    assert_eq!((taken.size, taken.source), (origin.size, Some(origin.uuid)));
    write(&device, 4096, b"after!").unwrap();
    assert!(matches!(
        drive.attach("s-s0", 1, true),
        Err(VolumeError::BadOrder { .. })
    ));
    assert!(matches!(
        drive.grow_leg("s-s0", 16 * MIB),
        Err(VolumeError::BadOrder { .. })
    ));
    let clone = drive.make(&copy("c-0", "s-s0", 16 * MIB)).unwrap();
    assert_eq!(clone.size, 16 * MIB);
    drive.detach("v-0").unwrap();
    drive.delete("v-0", origin.uuid).unwrap();
    assert_eq!(read(&drive.data("s-s0"), 4096, 6), b"before");
    let device = drive.attach("c-0", 1, false).unwrap().device;
    assert_eq!(read(&device, 4096, 6), b"before");
    write(&device, 4096, b"cloned").unwrap();
    drive.detach("c-0").unwrap();
    assert_eq!(read(&drive.data("s-s0"), 4096, 6), b"before");
    assert_eq!(read(&drive.data("c-0"), 4096, 6), b"cloned");
    assert!(matches!(
        drive.make(&copy("d-0", "gone-0", MIB)),
        Err(VolumeError::NotFound { .. })
    ));
}

#[test]
fn a_copy_may_leave_out_what_its_source_begins_with() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    drive.make(&leg("v-0", 9 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    write(&device, MIB - 4096, b"head").unwrap();
    write(&device, MIB, b"first").unwrap();
    write(&device, 9 * MIB - 4096, b"last").unwrap();
    let without = LegOrder {
        source: LegSource::Leg {
            name: "v-0".into(),
            skip: MIB,
        },
        ..snapshot("s-s0", "v-0")
    };
    assert_eq!(drive.make(&without).unwrap().size, 8 * MIB);
    write(&device, MIB, b"after").unwrap();
    assert_eq!(read(&drive.data("s-s0"), 0, 5), b"first");
    assert_eq!(read(&drive.data("s-s0"), 8 * MIB - 4096, 4), b"last");
}

#[test]
fn bytes_come_back_with_nothing_but_mount() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", 64 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    run("mkfs.ext4", &["-q", text(&device)]);
    let at = bed.path().join("at");
    fs::create_dir(&at).unwrap();
    run("mount", &[text(&device), text(&at)]);
    fs::write(at.join("thesis"), "the only copy").unwrap();
    run("umount", &[text(&at)]);
    drive.detach("v-0").unwrap();
    let id = drive.id();
    drop(drive);
    storage.close(id).unwrap();

    // As docs/storage.md says.
    let (side, offset) = (
        bed.path().join("side"),
        format!("loop,offset={}", crate::bed::START),
    );
    fs::create_dir(&side).unwrap();
    run("mount", &["-o", &offset, text(&bed.image()), text(&side)]);
    run(
        "mount",
        &[
            "-o",
            "loop,ro,noload",
            text(&side.join("legs/v-0/data")),
            text(&at),
        ],
    );
    assert_eq!(
        fs::read_to_string(at.join("thesis")).unwrap(),
        "the only copy"
    );
    run("umount", &[text(&at)]);
    run("umount", &[text(&side)]);
}

#[test]
fn what_a_killed_process_left_half_done_is_done_or_gone() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    let made = drive.make(&leg("v-0", MIB)).unwrap();
    let gone = drive.make(&leg("w-0", MIB)).unwrap();
    let root = drive.root().to_owned();
    fs::create_dir(root.join("making/00000000-0000-0000-0000-000000000001")).unwrap();
    fs::write(
        root.join("making/00000000-0000-0000-0000-000000000001/data"),
        "half",
    )
    .unwrap();
    fs::rename(
        root.join("legs/w-0"),
        root.join("deleting").join(gone.uuid.to_string()),
    )
    .unwrap();
    let record = root.join("legs/v-0/record.json");
    let grown = fs::read_to_string(&record)
        .unwrap()
        .replace(&made.size.to_string(), &(8 * MIB).to_string());
    fs::write(&record, grown).unwrap();
    fs::create_dir_all(root.join("legs/strange")).unwrap();
    fs::write(root.join("legs/strange/data"), vec![1; 4096]).unwrap();
    drop((storage, drive));

    let (_storage, drive) = bed.open();
    let records = drive.records().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].uuid, records[0].size), (made.uuid, 8 * MIB));
    assert_eq!(fs::metadata(drive.data("v-0")).unwrap().len(), 8 * MIB);
    for directory in ["making", "deleting"] {
        assert_eq!(fs::read_dir(root.join(directory)).unwrap().count(), 0);
    }
    assert!(
        root.join("legs/strange/data").exists(),
        "what is not understood is left alone"
    );
    assert_eq!(
        drive.space().unwrap().promised,
        strand_volumes::cost(8 * MIB) + strand_volumes::cost(4096)
    );
    fs::remove_dir_all(root.join("legs/strange")).unwrap();
}

#[test]
fn a_leg_follows_its_owner() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", MIB)).unwrap();
    drive.set_owner("v-0", "imported", None).unwrap();
    drop((storage, drive));
    assert_eq!(bed.open().1.records().unwrap()[0].owner_uid, "imported");
}

#[test]
fn a_record_from_before_modes_is_read_and_learns_its_own_once() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", MIB)).unwrap();
    let path = drive.root().join("legs/v-0/record.json");
    assert!(!fs::read_to_string(&path).unwrap().contains("mode"));
    drop((storage, drive));
    let (storage, drive) = bed.open();
    assert_eq!(drive.records().unwrap()[0].mode, None);
    for said in [VolumeMode::Block, VolumeMode::Filesystem] {
        drive.set_owner("v-0", "u1", Some(said)).unwrap();
    }
    drop((storage, drive));
    let (_, drive) = bed.open();
    assert_eq!(drive.records().unwrap()[0].mode, Some(VolumeMode::Block));
}
