//! Legs as block devices.

use crate::bed::{Bed, MIB, leg, loops, read, run, text, write};
use std::fs;
use std::path::Path;
use std::process::Command;
use strand_volumes::VolumeError;

fn queue(device: &Path, file: &str) -> String {
    let name = device.file_name().unwrap().to_str().unwrap();
    let path = format!("/sys/block/{name}/{file}");
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn a_device_has_large_blocks_direct_io_and_discard_and_is_found_again() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let attached = drive.attach("v-0", 1, false).unwrap();
    assert_eq!(queue(&attached.device, "queue/logical_block_size"), "4096");
    assert_eq!(queue(&attached.device, "loop/dio"), "1");
    assert_ne!(queue(&attached.device, "queue/discard_max_bytes"), "0");
    assert_eq!(
        drive.attach("v-0", 2, false).unwrap().device,
        attached.device
    );
    write(&attached.device, 0, b"bytes").unwrap();
    drop((storage, drive));

    let (_storage, drive) = bed.open();
    let found = drive.attached().unwrap();
    assert_eq!(
        (found[0].device.clone(), found[0].generation),
        (attached.device.clone(), 2)
    );
    assert_eq!(
        drive.attach("v-0", 2, false).unwrap().device,
        attached.device
    );
    // Not by its path: the leg's directory may be mounted elsewhere.
    assert_eq!(read(&attached.device, 0, 5), b"bytes");
    drive.detach("v-0").unwrap();
    drive.detach("v-0").unwrap();
    assert_eq!(drive.attached().unwrap(), []);
}

/// Which of several readers comes first is nobody's choice, and the first may be gone by then.
#[test]
fn readers_since_the_last_writer_come_in_any_order() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    drive.make(&leg("v-0", MIB)).unwrap();
    let stale = |generation, read_only| {
        let refused = drive.attach("v-0", generation, read_only);
        matches!(refused, Err(VolumeError::Stale { .. }))
    };
    drive.attach("v-0", 2, false).unwrap();
    drive.detach("v-0").unwrap();
    for generation in [5, 3, 4] {
        drive.attach("v-0", generation, true).unwrap();
        drive.detach("v-0").unwrap();
    }
    assert!(stale(2, true), "as old as the last writer");
    assert!(stale(4, false), "a writer, with readers after it");
    drive.attach("v-0", 6, false).unwrap();
    drive.detach("v-0").unwrap();
    assert!(stale(5, true), "a writer came after it");

    // Nor does he get in with others who came later, here or on another node.
    drive.attach("v-0", 7, true).unwrap();
    assert!(stale(6, true) && stale(5, true), "a writer came after it");
    let lent = drive.lend("v-0", 5, true);
    assert!(matches!(lent, Err(VolumeError::Stale { .. })), "{lent:?}");
}

#[test]
fn who_comes_with_an_older_generation_is_refused() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", MIB)).unwrap();
    drive.attach("v-0", 7, false).unwrap();
    drive.detach("v-0").unwrap();
    drop((storage, drive));
    let (_storage, drive) = bed.open();
    let refused = drive.attach("v-0", 6, false).unwrap_err();
    assert!(
        matches!(
            refused,
            VolumeError::Stale {
                given: 6,
                recorded: 7,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_device_in_use_stays_and_its_leg_with_it() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    let made = drive.make(&leg("v-0", 64 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    run("mkfs.ext4", &["-q", text(&device)]);
    let at = bed.path().join("at");
    fs::create_dir(&at).unwrap();
    run("mount", &[text(&device), text(&at)]);
    for refused in [
        drive.detach("v-0"),
        drive.delete("v-0", made.uuid),
        storage.close(drive.id()),
    ] {
        assert!(
            matches!(refused, Err(VolumeError::Busy { .. })),
            "{refused:?}"
        );
    }
    assert!(matches!(
        drive.attach("v-0", 2, true),
        Err(VolumeError::Busy { .. })
    ));
    // Online: the device and then the file system on it.
    drive.grow_leg("v-0", 128 * MIB).unwrap();
    assert_eq!(queue(&device, "size"), (128 * MIB / 512).to_string());
    run("umount", &[text(&at)]);
    drive.detach("v-0").unwrap();
}

#[test]
fn a_reader_cannot_write() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    drive.make(&leg("v-0", MIB)).unwrap();
    let device = drive.attach("v-0", 1, true).unwrap().device;
    assert!(write(&device, 0, b"x").is_err());
    let device = drive.attach("v-0", 2, false).unwrap().device;
    write(&device, 0, b"x").unwrap();
}

#[test]
fn discarded_blocks_of_a_thin_leg_come_back_to_the_drive() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let order = strand_volumes::LegOrder {
        provisioning: strand_volumes::Provisioning::Thin,
        ..leg("v-0", 64 * MIB)
    };
    drive.make(&order).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    write(&device, 0, &vec![7; 32 << 20]).unwrap();
    let allocated = || drive.legs().unwrap()[0].allocated;
    assert!(allocated() >= 32 * MIB);
    run("blkdiscard", &[text(&device)]);
    assert!(allocated() < MIB, "{}", allocated());
}

#[test]
fn loops_that_nobody_speaks_of_are_taken_away_and_others_left() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    let made = drive.make(&leg("v-0", MIB)).unwrap();
    let lost = drive.make(&leg("w-0", MIB)).unwrap();
    drive.attach("v-0", 1, false).unwrap();
    drive.attach("w-0", 1, false).unwrap();
    // A record from before the attachment, and a leg whose directory went under its device.
    let record = drive.root().join("legs/v-0/record.json");
    let text_of = fs::read_to_string(&record).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text_of).unwrap();
    value.as_object_mut().unwrap().remove("attached");
    fs::write(&record, value.to_string()).unwrap();
    fs::rename(
        drive.root().join("legs/w-0"),
        drive.root().join("deleting").join(lost.uuid.to_string()),
    )
    .unwrap();
    // Somebody else's, over the same file.
    let data = drive.data("v-0");
    let output = Command::new("losetup")
        .args(["--find", "--show", text(&data)])
        .output()
        .unwrap();
    let others = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    drop((storage, drive));

    let (_storage, drive) = bed.open();
    assert_eq!(drive.attached().unwrap(), []);
    let left: Vec<String> = loops(&bed.mounts())
        .into_iter()
        .map(|(device, _)| device)
        .collect();
    assert_eq!(left, std::slice::from_ref(&others));
    run("losetup", &["-d", &others]);
    drive.delete("v-0", made.uuid).unwrap();
}

/// Reads past whatever is cached.
fn reads(device: &Path, bytes: &[u8]) -> bool {
    read(device, 0, bytes.len()) == bytes
}

#[test]
fn a_leg_is_a_writers_here_or_elsewhere_never_both() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let lent = drive.lend("v-0", 1, false).unwrap();
    let busy =
        |result: Result<_, VolumeError>| matches!(result.unwrap_err(), VolumeError::Busy { .. });
    assert!(busy(drive.attach("v-0", 2, false)));
    // Who has nothing here takes nothing away, and what was lent stays so over a restart.
    drive.detach("v-0").unwrap();
    write(&lent.device, 0, b"bytes").unwrap();
    drop((storage, drive));
    let (_storage, drive) = bed.open();
    assert_eq!(drive.lend("v-0", 1, false).unwrap().device, lent.device);
    assert!(busy(drive.attach("v-0", 2, true)));
    drive.take_back("v-0").unwrap();
    assert_eq!(drive.attached().unwrap(), []);

    let here = drive.attach("v-0", 2, false).unwrap();
    assert!(reads(&here.device, b"bytes"));
    assert!(busy(drive.lend("v-0", 3, false)));
    drive.take_back("v-0").unwrap();
    assert_eq!(drive.attached().unwrap().len(), 1, "it was not lent");
    drive.detach("v-0").unwrap();
}

#[test]
fn readers_share_a_leg_and_none_of_them_can_write() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let here = drive.attach("v-0", 1, false).unwrap();
    write(&here.device, 0, b"bytes").unwrap();
    drive.detach("v-0").unwrap();

    let here = drive.attach("v-0", 2, true).unwrap();
    let lent = drive.lend("v-0", 4, true).unwrap();
    assert_ne!(lent.device, here.device);
    assert_eq!(drive.lend("v-0", 4, true).unwrap().device, lent.device);
    assert_eq!(queue(&lent.device, "queue/logical_block_size"), "4096");
    // It can be opened for writing, as the kernel's target does.
    assert_eq!(queue(&lent.device, "ro"), "0");
    assert!(write(&lent.device, 0, b"other").is_err());
    let discard = Command::new("blkdiscard")
        .arg(&lent.device)
        .output()
        .unwrap();
    assert!(!discard.status.success());
    for device in [&lent.device, &here.device] {
        assert!(reads(device, b"bytes"));
    }
    // An older reader comes again; a writer does not come in.
    drive.attach("v-0", 2, true).unwrap();
    assert!(drive.lend("v-0", 5, false).is_err());
    drive.detach("v-0").unwrap();
    assert!(reads(&lent.device, b"bytes"));
    drive.take_back("v-0").unwrap();
    assert_eq!(drive.attached().unwrap(), []);
    assert!(loops(&lent.device).is_empty() && loops(&here.device).is_empty());
}
