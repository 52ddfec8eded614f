//! What a leg's machine loses with its power.

use std::fs::File;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags};
use strand_volumes::{ArrayRecord, Attached, Drive, LegOrder, Redundancy, VolumeError};
use uuid::Uuid;

use crate::bed::{Bed, MIB, leg, loops, read, run, text, write};

const WRITTEN: &[u8] = &[0xa5; 64 << 10];

type Give = fn(&Drive, u64) -> Result<Attached, VolumeError>;

/// Writes without a flush to space that was never written, and has the file system go as a power cut has it go: what its log has not
/// written is lost. Whether the bytes are there afterwards.
fn outlives_the_power(order: &LegOrder, give: Give) -> bool {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(order).unwrap();
    let device = give(&drive, 1).unwrap().device;
    let source = bed.path().join("written");
    std::fs::write(&source, WRITTEN).unwrap();
    let (from, to) = (
        format!("if={}", text(&source)),
        format!("of={}", text(&device)),
    );
    run("dd", &[&from, &to, "bs=64k", "oflag=direct", "status=none"]);
    run("xfs_io", &["-x", "-c", "shutdown", text(drive.root())]);
    drive.detach(&order.name).unwrap();
    drive.take_back(&order.name).unwrap();
    drop((storage, drive));
    let (_storage, drive) = bed.open();
    let device = drive.attach(&order.name, 2, false).unwrap().device;
    let there = read(&device, 0, WRITTEN.len()) == WRITTEN;
    drive.detach(&order.name).unwrap();
    there
}

#[test]
fn what_was_acknowledged_to_another_machine_or_an_array_outlives_the_power() {
    let alone = leg("v-0", 16 * MIB);
    let of_array = LegOrder {
        redundancy: Redundancy::Mirror,
        array: Some(ArrayRecord {
            uuid: Uuid::from_u128(7),
            legs: 2,
        }),
        ..alone.clone()
    };
    let here: Give = |drive, generation| drive.attach("v-0", generation, false);
    let elsewhere: Give = |drive, generation| drive.lend("v-0", generation, false);
    assert!(outlives_the_power(&alone, elsewhere), "lent");
    assert!(outlives_the_power(&of_array, here), "a part of an array");
    // Who dies with its machine was told of no flush. It shows that this bed loses what it shall; unless somebody on this machine has
    // everything flushed just then.
    let loses = |_| !outlives_the_power(&alone, here);
    assert!((0..5).any(loses), "alone, here");
}

/// How often the drive under a bed was told to flush; iostats of the kernel's documentation, the sixteenth value.
fn flushes(bed: &Bed) -> u64 {
    let of_drive = |(device, _): &(String, String)| {
        let at = format!("/sys/block/{}/stat", device.trim_start_matches("/dev/"));
        let stat = std::fs::read_to_string(at).unwrap();
        let flushes = stat.split_whitespace().nth(15).unwrap();
        flushes.parse::<u64>().unwrap()
    };
    let over_file = |(_, file): &(String, String)| file.ends_with("drive.img");
    let loops = loops(bed.path());
    loops.iter().filter(|l| over_file(l)).map(of_drive).sum()
}

/// Space that was written before costs nothing but what the drive needs to make a write durable: a drive with a volatile cache is told with each.
#[test]
fn a_drive_with_a_cache_is_told_with_each_write() {
    const WRITES: u64 = 32;
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let told = |give: Give, generation| {
        let device = give(&drive, generation).unwrap().device;
        let to = format!("of={}", text(&device));
        let write = |bytes: u64, flag: &str| {
            let (size, count) = (format!("bs={bytes}"), format!("count={WRITES}"));
            run(
                "dd",
                &[
                    "if=/dev/urandom",
                    &to,
                    &size,
                    &count,
                    "oflag=direct",
                    "status=none",
                    flag,
                ],
            );
        };
        write(4096, "conv=fsync");
        let before = flushes(&bed);
        write(4096, "conv=notrunc");
        let told = flushes(&bed) - before;
        drive.detach("v-0").unwrap();
        drive.take_back("v-0").unwrap();
        told
    };
    let lent = told(|drive, generation| drive.lend("v-0", generation, false), 1);
    assert!(lent >= WRITES, "{lent} flushes of {WRITES} writes");
    let here = told(
        |drive, generation| drive.attach("v-0", generation, false),
        2,
    );
    assert!(here < WRITES, "{here} flushes of {WRITES} writes");
}

/// The kernel is asked only for what a leg needs now: a device that came home is as fast as any.
#[test]
fn writes_are_made_durable_at_once_only_while_somebody_needs_it() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    drive.make(&leg("v-0", 16 * MIB)).unwrap();
    let data = drive.root().join("legs/v-0/data");
    let at_once = |data: &Path| {
        let flags = ioctl_getflags(File::open(data).unwrap()).unwrap();
        flags.contains(IFlags::SYNC)
    };
    drive.attach("v-0", 1, false).unwrap();
    assert!(!at_once(&data));
    drive.detach("v-0").unwrap();
    let lent = drive.lend("v-0", 2, false).unwrap();
    assert!(at_once(&data));
    write(&lent.device, 0, b"bytes").unwrap();
    // An agent of a version that did not know of it had lent it.
    run("chattr", &["-S", text(&data)]);
    drive.lend("v-0", 2, false).unwrap();
    assert!(at_once(&data));
    drive.take_back("v-0").unwrap();
    drive.attach("v-0", 3, false).unwrap();
    assert!(!at_once(&data));
    drive.detach("v-0").unwrap();
}
