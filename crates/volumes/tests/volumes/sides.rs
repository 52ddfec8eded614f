//! A drive's file system: made where there is nothing, found again, blanked, grown.

use crate::bed::{
    Bed, MIB, SIDE, START, copy, leg, mounts, owned, partition, read, run, text, write,
};
use std::fs::File;
use strand_volumes::{Storage, VolumeError};

#[test]
fn a_blank_side_gets_a_file_system_once_and_is_found_again() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    assert_eq!(mounts(bed.path()), [text(drive.root())]);
    let made = drive.make(&leg("v-0", 16 * MIB)).unwrap();
    // Another process may not serve it meanwhile, and finds it when this one is gone without a word.
    assert!(matches!(
        bed.refusal(),
        VolumeError::Served { drive } if drive == bed.drive()
    ));
    drop((storage, drive));
    let (storage, drive) = bed.open();
    assert_eq!(drive.records().unwrap(), [made]);
    assert_eq!(mounts(bed.path()).len(), 1, "mounted once");
    storage.close(bed.drive()).unwrap();
    assert_eq!(bed.left(), Vec::<String>::new());
    assert!(matches!(drive.records(), Err(VolumeError::NotOpen { .. })));
    assert_eq!(bed.open().1.records().unwrap().len(), 1);
}

#[test]
fn a_side_that_holds_anything_else_is_left_as_it_is() {
    for at in [START, START + 7777, START + SIDE - 1] {
        let bed = Bed::new();
        write(&bed.image(), at, b"x").unwrap();
        let refusal = bed.refusal();
        assert!(matches!(refusal, VolumeError::NotOurs { .. }), "{refusal}");
        assert_eq!(read(&bed.image(), at, 1), b"x");
    }
    let bed = Bed::new();
    run(
        "mkfs.xfs",
        &["-q", "-f", text(&bed.path().join("drive.img"))],
    );
    let bytes = read(&bed.image(), 0, 4096);
    write(&bed.image(), START, &bytes).unwrap();
    assert!(
        bed.refusal().to_string().contains("not this drive's"),
        "{}",
        bed.refusal()
    );
}

#[test]
fn a_side_too_small_is_refused_in_words() {
    let bed = Bed::new();
    let open = Storage::new(bed.mounts()).open(&owned(bed.path()), bed.partition(64 * MIB));
    assert!(matches!(open, Err(VolumeError::TooSmall { .. })));
}

#[test]
fn a_file_system_whose_making_was_killed_is_made_anew() {
    let bed = Bed::new();
    let mut mark = [0; 512];
    mark[..32].copy_from_slice(b"strand: a file system is made on");
    mark[32..48].copy_from_slice(bed.drive().as_bytes());
    write(&bed.image(), START + SIDE - MIB, &mark).unwrap();
    write(&bed.image(), START + 4096, b"half a file system").unwrap();
    let (_, drive) = bed.open();
    drive.make(&leg("v-0", MIB)).unwrap();
    assert_eq!(read(&bed.image(), START + SIDE - MIB, 512), [0; 512]);
}

#[test]
fn a_side_without_legs_can_be_made_blank_and_no_other() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    let made = drive.make(&leg("v-0", MIB)).unwrap();
    assert!(!storage.close_blank(bed.drive()).unwrap());
    assert_eq!(drive.records().unwrap().len(), 1, "it stays open");
    drive.delete("v-0", made.uuid).unwrap();
    // Neither does what Strand does not know.
    std::fs::create_dir(drive.root().join("legs/by-hand")).unwrap();
    assert!(!storage.close_blank(bed.drive()).unwrap());
    std::fs::remove_dir(drive.root().join("legs/by-hand")).unwrap();
    assert!(storage.close_blank(bed.drive()).unwrap());
    assert_eq!(bed.left(), Vec::<String>::new());
    for at in [START, START + SIDE - 64 * 1024] {
        assert_eq!(read(&bed.image(), at, 64 * 1024), vec![0; 64 * 1024]);
    }
    assert_eq!(bed.open().1.records().unwrap(), []);
}

#[test]
fn a_side_that_was_carved_larger_grows_while_it_is_used() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let before = drive.space().unwrap();
    storage.close(bed.drive()).unwrap();
    let larger = SIDE + 256 * MIB;
    File::options()
        .write(true)
        .open(bed.image())
        .unwrap()
        .set_len(START + larger + MIB)
        .unwrap();
    let drive = storage
        .open(&owned(bed.path()), partition(bed.path(), larger))
        .unwrap();
    let after = drive.space().unwrap();
    assert!(
        after.usable >= before.usable + 200 * MIB,
        "{before:?} {after:?}"
    );
    drive.make(&copy("w-0", "v-0", 500 * MIB)).unwrap();
}

#[test]
fn what_was_left_for_a_drive_that_is_gone_is_unmounted() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    let root = drive.root().to_owned();
    let made = drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let attached = drive.attach("v-0", 1, false).unwrap();
    drop((storage, drive));
    let next = Storage::new(bed.mounts());
    assert_eq!(
        next.sweep(&[bed.drive()]).unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
    assert_eq!(next.sweep(&[]).unwrap(), [root], "it is in use");
    run("losetup", &["-d", text(&attached.device)]);
    assert_eq!(next.sweep(&[]).unwrap(), Vec::<std::path::PathBuf>::new());
    assert_eq!(bed.left(), Vec::<String>::new());
    assert_eq!(bed.open().1.records().unwrap()[0].uuid, made.uuid);
}
