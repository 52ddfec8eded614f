//! Drives that fail under their volumes.

use crate::bed::{Bed, MIB, leg, loops, run, text, write};
use std::fs;
use std::path::PathBuf;
use strand_volumes::{Health, LegOrder, Provisioning, VolumeError};

#[test]
fn a_file_system_that_was_shut_down_is_told_and_mounted_anew_once_nothing_uses_it() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    write(&device, 0, b"acknowledged").unwrap();
    assert_eq!(drive.health().unwrap(), Health::Good);
    run("xfs_io", &["-x", "-c", "shutdown", text(drive.root())]);
    assert_eq!(drive.health().unwrap(), Health::ShutDown);
    assert!(drive.make(&leg("w-0", MIB)).is_err());
    assert!(matches!(
        storage.close(drive.id()),
        Err(VolumeError::Busy { .. })
    ));
    // Other drives go on.
    let other = Bed::new();
    let (_other, healthy) = other.open();
    healthy.make(&leg("v-0", MIB)).unwrap();
    healthy.attach("v-0", 1, false).unwrap();
    drive.detach("v-0").unwrap();
    // By its file: another test may have a device of that name by now.
    assert_eq!(loops(&bed.mounts()), []);
    drop((storage, drive));
    let (_storage, drive) = bed.open();
    assert_eq!(drive.health().unwrap(), Health::Good);
    let device = drive.attach("v-0", 2, false).unwrap().device;
    assert_eq!(crate::bed::read(&device, 0, 12), b"acknowledged");
}

/// What other nodes had of a drive that fails is taken back all the same: nothing holds it any more.
#[test]
fn what_was_lent_from_a_drive_that_fails_is_taken_back() {
    for read_only in [false, true] {
        let bed = Bed::new();
        let (storage, drive) = bed.open();
        drive.make(&leg("v-0", 16 * MIB)).unwrap();
        drive.lend("v-0", 1, read_only).unwrap();
        run("xfs_io", &["-x", "-c", "shutdown", text(drive.root())]);
        drive.take_back("v-0").unwrap();
        storage.close(drive.id()).unwrap();
    }
}

/// A file system that is full takes no write: below the file of a drive, that is a drive whose writes fail.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Small {
        let ground = tempfile::Builder::new()
            .prefix("strand-volumes-ground-")
            .tempdir()
            .unwrap();
        let image = ground.path().join("small.img");
        fs::File::create(&image)
            .unwrap()
            .set_len(256 * MIB)
            .unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", text(&image)]);
        fs::create_dir(ground.path().join("small")).unwrap();
        let small = Small(ground);
        run("mount", &["-o", "loop", text(&image), text(&small.path())]);
        small
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("small")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.path())
            .status();
    }
}

#[test]
fn a_drive_whose_writes_fail_loses_nothing_that_was_acknowledged() {
    let small = Small::new();
    let ballast = small.path().join("ballast");
    run("fallocate", &["-l", "100M", text(&ballast)]);
    let bed = Bed::inside(&small.path());
    let (storage, drive) = bed.open();
    drive.make(&thin("v-0", 256 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    let acknowledged = fill(&device, 5);
    assert!((8..240).contains(&acknowledged), "{acknowledged}");
    drive.detach("v-0").unwrap();
    drop((storage, drive));
    fs::remove_file(&ballast).unwrap();
    let (_storage, drive) = bed.open();
    assert_eq!(drive.health().unwrap(), Health::Good);
    all(&drive.data("v-0"), acknowledged, 5);
}

#[test]
fn a_thin_drive_that_is_full_says_so_and_loses_nothing_that_was_acknowledged() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    for name in ["v-0", "w-0"] {
        drive.make(&thin(name, 300 * MIB)).unwrap();
    }
    let devices = ["v-0", "w-0"].map(|name| drive.attach(name, 1, false).unwrap().device);
    let first = fill(&devices[0], 1);
    let second = fill(&devices[1], 2);
    assert!(
        first == 300 && (8..300).contains(&second),
        "{first} {second}"
    );
    // A part of the write that failed may still fit.
    while write(&devices[1], second * MIB, &[3; 4096]).is_ok()
        && drive.health().unwrap() != Health::Full
    {
        let before = drive.space().unwrap().free;
        let _ = write(
            &devices[1],
            299 * MIB - before / 4096 * 4096,
            &vec![3; before as usize / 4096 * 4096],
        );
    }
    assert_eq!(drive.health().unwrap(), Health::Full);
    assert!(drive.make(&thin("x-0", MIB)).is_err());
    all(&devices[0], first, 1);
    all(&devices[1], second, 2);
    // Room comes back by deleting, also on a drive that is full to the last block.
    drive.detach("v-0").unwrap();
    let record = drive
        .records()
        .unwrap()
        .into_iter()
        .find(|record| record.name == "v-0")
        .unwrap();
    drive.delete("v-0", record.uuid).unwrap();
    write(&devices[1], second * MIB, &vec![2; 1 << 20]).unwrap();
}

fn thin(name: &str, size: u64) -> LegOrder {
    LegOrder {
        provisioning: Provisioning::Thin,
        ..leg(name, size)
    }
}

/// Writes until that fails; how many MiB were acknowledged.
fn fill(device: &std::path::Path, value: u8) -> u64 {
    let mut acknowledged = 0;
    while acknowledged < 300 && write(device, acknowledged * MIB, &vec![value; 1 << 20]).is_ok() {
        acknowledged += 1;
    }
    acknowledged
}

fn all(path: &std::path::Path, mib: u64, value: u8) {
    let bytes = crate::bed::read(path, 0, (mib * MIB) as usize);
    assert_eq!(
        bytes.iter().position(|byte| *byte != value),
        None,
        "of {mib} MiB"
    );
}
