//! Room: nothing is promised twice, and what was promised is there.

use crate::bed::{Bed, MIB, copy, leg, snapshot, write};
use strand_volumes::{LegOrder, Provisioning, VolumeError, cost};

fn thin(order: LegOrder) -> LegOrder {
    LegOrder {
        provisioning: Provisioning::Thin,
        ..order
    }
}

#[test]
fn a_thick_drive_full_of_copies_takes_every_write_to_all_of_them() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let size = 24 * MIB;
    drive.make(&leg("v-0", size)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    let block = |value: u8| vec![value; 1 << 20];
    for at in 0..size / MIB {
        write(&device, at * MIB, &block(1)).unwrap();
    }
    let mut made = 1;
    let refusal = loop {
        let name = format!("x{made}-0");
        let order = if made % 2 == 0 {
            snapshot(&name, "v-0")
        } else {
            copy(&name, "v-0", size)
        };
        match drive.make(&order) {
            Ok(_) => made += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, VolumeError::NoSpace { .. }), "{refusal}");
    let space = drive.space().unwrap();
    assert!(
        space.promised <= space.usable && space.usable - space.promised < cost(size),
        "{space:?}"
    );

    // Every block of the origin and of every clone, in the order that scatters most.
    let mut devices = vec![device];
    for index in (1..made).step_by(2) {
        devices.push(
            drive
                .attach(&format!("x{index}-0"), 1, false)
                .unwrap()
                .device,
        );
    }
    assert!(devices.len() > 3);
    for part in 0..2 {
        for (value, device) in devices.iter().enumerate() {
            let file = std::fs::File::options().write(true).open(device).unwrap();
            for at in (part..size / 4096).step_by(2) {
                std::os::unix::fs::FileExt::write_all_at(
                    &file,
                    &[value as u8 + 2; 4096],
                    at * 4096,
                )
                .unwrap();
            }
            file.sync_all().unwrap();
        }
    }
    for (value, device) in devices.iter().enumerate() {
        let bytes = crate::bed::read(device, 0, size as usize);
        assert!(bytes.iter().all(|byte| *byte == value as u8 + 2));
    }
    for index in (2..made).step_by(2) {
        let bytes = crate::bed::read(&drive.data(&format!("x{index}-0")), 0, size as usize);
        assert!(bytes.iter().all(|byte| *byte == 1), "snapshot {index}");
    }
}

#[test]
fn a_drive_is_thick_or_thin_and_either_again_once_it_is_empty() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    let made = drive.make(&thin(leg("v-0", 100 * MIB))).unwrap();
    let refused = drive.make(&leg("w-0", MIB)).unwrap_err();
    assert!(
        refused.to_string().contains("its legs are thin"),
        "{refused}"
    );
    drop((storage, drive));
    let (_storage, drive) = bed.open();
    assert_eq!(drive.space().unwrap().kind, Some(Provisioning::Thin));
    assert!(drive.make(&leg("w-0", MIB)).is_err());
    drive.delete("v-0", made.uuid).unwrap();
    drive.make(&leg("w-0", MIB)).unwrap();
    assert!(drive.make(&thin(leg("v-0", MIB))).is_err());
}

#[test]
fn what_does_not_fit_leaves_nothing_and_names_what_does() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let Err(VolumeError::NoSpace { room, .. }) = drive.make(&leg("v-0", 1 << 40)) else {
        panic!("it fits")
    };
    assert_eq!(drive.records().unwrap(), []);
    assert_eq!(
        std::fs::read_dir(drive.root().join("making"))
            .unwrap()
            .count(),
        0
    );
    drive.make(&leg("v-0", room.largest)).unwrap();
    assert!(matches!(
        drive.make(&leg("w-0", MIB)),
        Err(VolumeError::NoSpace { .. })
    ));
    assert!(matches!(
        drive.grow_leg("v-0", room.largest + MIB),
        Err(VolumeError::NoSpace { .. })
    ));
    // To the last byte: the ledger keeps what the file system needs for itself.
    let device = drive.attach("v-0", 1, false).unwrap().device;
    for at in 0..room.largest / MIB {
        write(&device, at * MIB, &vec![1; 1 << 20]).unwrap();
    }
}

#[test]
fn what_is_freed_comes_back_to_the_drive() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let made = drive.make(&leg("v-0", 64 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    write(&device, 0, &vec![7; 64 << 20]).unwrap();
    drive.detach("v-0").unwrap();
    let allocated = || {
        let file = std::fs::File::open(bed.image()).unwrap();
        file.sync_all().unwrap();
        std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
    };
    let before = allocated();
    assert!(before > 64 * MIB);
    drive.delete("v-0", made.uuid).unwrap();
    // XFS gives back what a deleted file had a moment later.
    let start = std::time::Instant::now();
    while allocated() > before - 60 * MIB {
        let after = allocated();
        assert!(start.elapsed().as_secs() < 30, "{after} of {before}");
        let mut at = 0;
        while let Some((_, next)) = drive.trim(at).unwrap() {
            at = next;
        }
    }
}

/// The file system asks for room for all that is named to it, also for what is there already.
#[test]
fn a_leg_grows_by_all_that_is_left_though_that_is_less_than_it_has() {
    let bed = Bed::new();
    let (_storage, drive) = bed.open();
    let left = || match drive.make(&leg("x-0", 1 << 40)) {
        Err(VolumeError::NoSpace { room, .. }) => room.largest / MIB * MIB,
        other => panic!("{other:?}"),
    };
    let size = left() * 2 / 3;
    drive.make(&leg("v-0", size)).unwrap();
    let size = size + left();
    drive.grow_leg("v-0", size).unwrap();
    assert_eq!(drive.allocated("v-0").unwrap(), size);
}
