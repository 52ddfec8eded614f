//! The life of a drive of ours: taken, found again, moved, given back, wiped; on plain files and on loop devices.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod bed;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use bed::{Bed, Loop, POOL, Undo, hash, is_blank, only, order, poke, pools, run, text, watched};
use strand_drives::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, KernelHost, OwnedDrive, Resumed, WipeOrder,
};
use strand_placement::carve::{MIB, Role, Split};
use strand_placement::verdict::{KnownPools, LabelSeen, Verdict, judge};
use uuid::Uuid;

fn adopt(host: &KernelHost) -> OwnedDrive {
    let drive = only(host);
    let (seen, finding) = watched(host, &drive);
    assert_eq!(finding.verdict, Verdict::Stranded, "{:?}", finding.reasons);
    host.adopt(&drive, &seen, &order()).unwrap()
}

fn resume(host: &KernelHost) -> OwnedDrive {
    match host.resume(&only(host), &pools()).unwrap() {
        Resumed::Owned(owned) => owned,
        Resumed::Released => panic!("it was not given back"),
    }
}

/// Writes to a partition through the way that was told, and reads it on the whole drive.
fn reaches(host: &KernelHost, owned: &OwnedDrive, role: Role) {
    let partition = owned.partition(role).unwrap();
    let mark = format!("{role:?} is here");
    let file = File::options().write(true).open(&partition.path).unwrap();
    file.write_all_at(mark.as_bytes(), partition.offset + 4096)
        .unwrap();
    file.sync_all().unwrap();
    let mut found = vec![0; mark.len()];
    let whole = File::open(&owned.seen.path).unwrap();
    rustix::fs::fadvise(&whole, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    whole
        .read_exact_at(&mut found, partition.extent.start + 4096)
        .unwrap();
    assert_eq!(found, mark.as_bytes());
    let open = host.open_partition(owned, role).unwrap();
    assert_eq!(open.len, partition.extent.len);
    (open.file.read_exact_at(&mut found, open.offset + 4096)).unwrap();
    assert_eq!(found, mark.as_bytes());
}

#[tokio::test]
async fn a_plain_file_is_carved_and_addressed_by_offset() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let host = bed.host(&[&image]);
    let owned = adopt(&host);
    assert_eq!(
        (owned.pool_id, owned.drive_id, owned.generation),
        (POOL, order().drive_id, 2)
    );
    let context = owned.partition(Role::Context).unwrap();
    assert_eq!(
        (context.extent.len, context.offset, &context.path),
        (200 * MIB, context.extent.start, &image)
    );
    reaches(&host, &owned, Role::Storage);
    reaches(&host, &owned, Role::Context);
    let table = Command::new("sgdisk")
        .args(["-p", "-v", text(&image)])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("No problems found") && table.contains("strand-context"),
        "{table}"
    );
}

#[tokio::test]
async fn on_a_loop_device_real_partition_devices_appear() {
    let bed = Bed::new();
    let device = Loop::attach(&bed.image("S1"), &[]);
    let host = bed.host(&[&device.path]);
    let owned = adopt(&host);
    assert_eq!(
        owned.partition(Role::Storage).unwrap().path,
        Path::new(&format!("{}p1", text(&device.path)))
    );
    assert_eq!(
        owned.partition(Role::Context).unwrap().path,
        Path::new(&format!("{}p2", text(&device.path)))
    );
    reaches(&host, &owned, Role::Storage);
    reaches(&host, &owned, Role::Context);
    host.release(&resume_and_clear(&host), DataOnRelease::Erase)
        .unwrap();
    assert!(
        !Path::new(&format!("{}p1", text(&device.path))).exists(),
        "its partition devices went with it"
    );
    assert!(is_blank(&device.path));
}

/// The drive, its storage partition emptied of what a test wrote.
fn resume_and_clear(host: &KernelHost) -> OwnedDrive {
    let owned = resume(host);
    let storage = owned.partition(Role::Storage).unwrap();
    poke(&storage.path, storage.offset, &[0; 64 << 10]);
    owned
}

#[tokio::test]
async fn it_is_found_again_elsewhere_without_touching_data() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let first = {
        let device = Loop::attach(&image, &[]);
        let host = bed.host(&[&device.path]);
        let owned = adopt(&host);
        run(
            "mkfs.ext4",
            &["-qF", text(&owned.partition(Role::Storage).unwrap().path)],
        );
        run("partx", &["--delete", text(&device.path)]);
        owned
    };
    let before = hash(&image);
    // After a reboot the loop device may have another name; its partitions are made known anew.
    let device = Loop::attach(&image, &[]);
    let host = bed.host(&[&device.path]);
    let again = resume(&host);
    assert_eq!(
        (again.drive_id, again.layout, again.generation),
        (first.drive_id, first.layout, first.generation)
    );
    let storage = again.partition(Role::Storage).unwrap();
    run("fsck.ext4", &["-fn", text(&storage.path)]);
    assert_eq!(
        judge(&host.observe(&only(&host), None).unwrap(), &pools()).verdict,
        Verdict::Pooled
    );
    // A repeated order to take it is the same drive, not another carve.
    let drive = only(&host);
    let seen = host.observe(&drive, None).unwrap();
    let other = CarveOrder {
        drive_id: Uuid::from_u128(5),
        split: Split { context_bytes: 0 },
        ..order()
    };
    assert_eq!(host.adopt(&drive, &seen, &other).unwrap(), again);
    assert!(before == hash(&image), "finding it again wrote to it");
    run("partx", &["--delete", text(&device.path)]);
}

#[tokio::test]
async fn another_clusters_drive_is_foreign_until_its_pool_is_known() {
    let bed = Bed::new();
    let image = bed.image("S1");
    adopt(&bed.host(&[&image]));
    let before = hash(&image);
    // A new agent in an empty cluster.
    let host = bed.host(&[&image]);
    let drive = only(&host);
    let seen = host.observe(&drive, None).unwrap();
    let finding = judge(&seen, &KnownPools::default());
    assert_eq!(finding.verdict, Verdict::Foreign);
    assert_eq!(finding.reasons[0].code(), "OtherPool");
    assert!(
        matches!(&seen.label, LabelSeen::Present(label) if label.pool_id == POOL && label.pool_name == "rack")
    );
    host.resume(&drive, &KnownPools::default()).unwrap_err();
    let stranger = CarveOrder {
        pool_id: Uuid::from_u128(1),
        ..order()
    };
    host.adopt(&drive, &seen, &stranger).unwrap_err();
    assert!(before == hash(&image));
    // The MemoryPool comes back with its poolID.
    assert_eq!(judge(&seen, &pools()).verdict, Verdict::Pooled);
    resume(&host);
}

#[tokio::test]
async fn a_copy_of_a_drive_is_not_the_drive() {
    let bed = Bed::new();
    let image = bed.image("S1");
    adopt(&bed.host(&[&image]));
    let copy = image.with_file_name("S2.img");
    fs::copy(&image, &copy).unwrap();
    let host = bed.host(&[&copy]);
    let finding = judge(&host.observe(&only(&host), None).unwrap(), &pools());
    assert_eq!(
        (finding.verdict, finding.reasons[0].code()),
        (Verdict::Foreign, "CopiedLabel")
    );
    host.resume(&only(&host), &pools()).unwrap_err();
}

#[tokio::test]
async fn damaged_newer_and_overwritten_labels_are_foreign() {
    const START: u64 = MIB / 2;
    const END: u64 = bed::SIZE - MIB / 2;
    type Damage = &'static [(u64, &'static [u8])];
    let cases: [(&str, Damage); 4] = [
        ("DamagedLabel", &[(START + 100, b"x"), (END + 100, b"x")]),
        ("NewerLabel", &[(END + 8, &[9])]),
        ("LabelContradicted", &[(0, b"XFSB")]),
        ("LabelContradicted", &[(64 << 10, b"x")]),
    ];
    for (code, damage) in cases {
        let bed = Bed::new();
        let image = bed.image("S1");
        adopt(&bed.host(&[&image]));
        for (at, bytes) in damage {
            poke(&image, *at, bytes);
        }
        let before = hash(&image);
        let host = bed.host(&[&image]);
        let finding = judge(&host.observe(&only(&host), None).unwrap(), &pools());
        assert_eq!(finding.verdict, Verdict::Foreign, "{:?}", finding.reasons);
        assert!(
            finding.reasons.iter().any(|reason| reason.code() == code),
            "{code}: {:?}",
            finding.reasons
        );
        let refusal = host.resume(&only(&host), &pools()).unwrap_err();
        assert!(
            matches!(&refusal, DriveError::NotOurs { reasons, .. } if reasons[0].code() == code),
            "{refusal}"
        );
        assert!(before == hash(&image), "{code}: refused, and written to");
    }
}

/// mkfs over the whole of a drive that is ours: the label may survive it, and must not be believed.
#[tokio::test]
async fn what_another_tool_made_of_our_drive_is_not_ours() {
    for tool in [
        ["mkfs.ext4", "-qF"],
        ["mkfs.xfs", "-qf"],
        ["mkfs.btrfs", "-qf"],
        ["mkswap", "-q"],
    ] {
        let bed = Bed::new();
        let image = bed.image("S1");
        adopt(&bed.host(&[&image]));
        let options = if tool[0] == "mkswap" { "-f" } else { tool[1] };
        run(tool[0], &[options, text(&image)]);
        let before = hash(&image);
        let host = bed.host(&[&image]);
        let (seen, finding) = watched(&host, &only(&host));
        assert_eq!(
            finding.verdict,
            Verdict::Foreign,
            "{tool:?}: {:?}",
            finding.reasons
        );
        host.resume(&only(&host), &pools()).unwrap_err();
        host.adopt(&only(&host), &seen, &order()).unwrap_err();
        assert!(before == hash(&image), "{tool:?}");
    }
}

#[tokio::test]
async fn the_boundary_moves_while_nothing_durable_is_lost() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&image, &[]);
    for path in [&device.path, &bed.image("S2")] {
        let host = bed.host(&[path]);
        let owned = adopt(&host);
        let split = |mib| Split {
            context_bytes: mib * MIB,
        };
        assert_eq!(
            host.recarve(&owned, &split(200)).unwrap(),
            owned,
            "as it is"
        );
        // Empty storage may shrink.
        let owned = host.recarve(&owned, &split(250)).unwrap();
        assert_eq!(
            owned.partition(Role::Context).unwrap().extent.len,
            250 * MIB
        );
        reaches(&host, &owned, Role::Context);
        // With data it may only grow, and keeps its bytes.
        let storage = owned.partition(Role::Storage).unwrap();
        poke(&storage.path, storage.offset, b"superblock");
        let before = hash(path);
        let refusal = host.recarve(&owned, &split(300)).unwrap_err();
        assert!(matches!(&refusal, DriveError::Refused { .. }), "{refusal}");
        assert!(before == hash(path), "refused, and written to");
        let owned = host.recarve(&owned, &split(0)).unwrap();
        assert!(owned.partition(Role::Context).is_none());
        let storage = owned.partition(Role::Storage).unwrap();
        let mut found = [0; 10];
        File::open(&storage.path)
            .unwrap()
            .read_exact_at(&mut found, storage.offset)
            .unwrap();
        assert_eq!(&found, b"superblock");
        assert_eq!(resume(&host), owned);
        poke(&storage.path, storage.offset, &[0; 10]);
        let owned = host.recarve(&owned, &split(1000)).unwrap();
        assert!(owned.partition(Role::Storage).is_none());
        host.release(&owned, DataOnRelease::Erase).unwrap();
        assert!(is_blank(path));
    }
}

/// Storage that is mounted grows in place, also where the one who moved the boundary was killed on the way.
#[tokio::test]
async fn storage_grows_while_it_is_mounted() {
    let bed = Bed::new();
    let device = Loop::attach(&bed.image("S1"), &[]);
    let host = bed.host(&[&device.path]);
    let owned = adopt(&host);
    let storage = owned.partition(Role::Storage).unwrap();
    run(
        "mkfs.ext4",
        &[
            "-qF",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            text(&storage.path),
        ],
    );
    let at = bed.directory.path().join("mount");
    bed::make_directory(&at);
    run("mount", &[text(&storage.path), text(&at)]);
    let mounted = Undo::new(&["umount", "--lazy", text(&at)]);
    fs::write(at.join("file"), "kept").unwrap();

    let busy = host
        .recarve(
            &owned,
            &Split {
                context_bytes: 300 * MIB,
            },
        )
        .unwrap_err();
    assert!(matches!(busy, DriveError::Busy { .. }), "{busy}");
    let context = File::open(&owned.partition(Role::Context).unwrap().path).unwrap();
    let busy = host
        .recarve(
            &owned,
            &Split {
                context_bytes: 50 * MIB,
            },
        )
        .unwrap_err();
    assert!(matches!(busy, DriveError::Busy { .. }), "{busy}");
    assert_eq!(
        resume(&host).layout,
        owned.layout,
        "while context memory is open the boundary stays"
    );
    drop(context);

    let grown = host
        .recarve(
            &owned,
            &Split {
                context_bytes: 50 * MIB,
            },
        )
        .unwrap();
    assert_eq!(grown.partition(Role::Context).unwrap().extent.len, 50 * MIB);
    assert_eq!(resume(&host), grown);
    let size = File::open(&storage.path)
        .unwrap()
        .seek(SeekFrom::End(0))
        .unwrap();
    assert_eq!(size, grown.partition(Role::Storage).unwrap().extent.len);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "kept");
    drop(mounted);
    run("fsck.ext4", &["-fn", text(&storage.path)]);
    run("partx", &["--delete", text(&device.path)]);
}

#[tokio::test]
async fn a_drive_in_use_is_neither_moved_nor_given_back_nor_wiped() {
    let bed = Bed::new();
    let device = Loop::attach(&bed.image("S1"), &[]);
    let host = bed.host(&[&device.path]);
    let owned = adopt(&host);
    let context = File::open(&owned.partition(Role::Context).unwrap().path).unwrap();
    let before = hash(&device.path);
    let busy = |error: DriveError| {
        assert!(
            matches!(&error, DriveError::Busy { reasons, .. } if !reasons.is_empty()),
            "{error}"
        )
    };
    busy(
        host.recarve(&owned, &Split { context_bytes: 0 })
            .unwrap_err(),
    );
    busy(host.release(&owned, DataOnRelease::Erase).unwrap_err());
    let order = WipeOrder {
        serial: "S1".into(),
        from: 0,
    };
    let refusal = host
        .wipe(&owned.seen, &order, &KnownPools::default(), &mut |_| {
            panic!("a wipe began")
        })
        .unwrap_err();
    assert!(
        matches!(refusal, DriveError::WipeRefused { .. }),
        "{refusal}"
    );
    // Nobody uses it, but it is a pool's.
    drop(context);
    let refusal = host
        .wipe(&owned.seen, &order, &pools(), &mut |_| {
            panic!("a wipe began")
        })
        .unwrap_err();
    assert!(
        matches!(&refusal, DriveError::WipeRefused { reasons, .. } if reasons[0].code() == "Pooled"),
        "{refusal}"
    );
    assert!(before == hash(&device.path));
    host.release(&owned, DataOnRelease::Keep).unwrap();
}

#[tokio::test]
async fn a_wipe_names_its_drive_stops_and_goes_on_and_leaves_it_stranded() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&bed.image("S2"), &[]);
    for (path, serial) in [(&image, "S1"), (&device.path, "S2")] {
        run("mkfs.xfs", &["-qf", text(path)]);
        poke(path, 200 << 20, &[7; 4096]);
        let before = hash(path);
        let host = bed.host(&[path]);
        let drive = only(&host);
        let wrong = WipeOrder {
            serial: "S9".into(),
            from: 0,
        };
        let refusal = host
            .wipe(&drive, &wrong, &pools(), &mut |_| panic!("a wipe began"))
            .unwrap_err();
        assert!(
            matches!(refusal, DriveError::WrongSerial { .. }),
            "{refusal}"
        );
        assert!(before == hash(path));
        let order = |from| WipeOrder {
            serial: serial.into(),
            from,
        };
        let stopped = host
            .wipe(&drive, &order(0), &pools(), &mut |_| ControlFlow::Break(()))
            .unwrap_err();
        let DriveError::Stopped { done, .. } = stopped else {
            panic!("{stopped}")
        };
        assert!(
            done > 0 && !is_blank(path),
            "its head, by which it is recognised, goes last"
        );
        let mut told = Vec::new();
        let mut progress = |progress: strand_drives::WipeProgress| {
            told.push(progress);
            ControlFlow::Continue(())
        };
        host.wipe(&drive, &order(done), &pools(), &mut progress)
            .unwrap();
        assert_eq!(told.last().map(|last| last.done), Some(bed::SIZE));
        assert!(is_blank(path));
        let (_, finding) = watched(&host, &drive);
        assert_eq!(finding.verdict, Verdict::Stranded, "{:?}", finding.reasons);
    }
}

#[tokio::test]
async fn a_file_put_in_a_drives_place_is_not_hit() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let host = bed.host(&[&image]);
    let drive = only(&host);
    let (seen, _) = watched(&host, &drive);
    fs::rename(bed.image("other"), &image).unwrap();
    let refusal = host.adopt(&drive, &seen, &order()).unwrap_err();
    assert!(
        matches!(refusal, DriveError::IdentityChanged { .. }),
        "{refusal}"
    );
    assert!(is_blank(&image));
    fs::remove_file(&image).unwrap();
    assert!(matches!(
        host.observe(&drive, None),
        Err(DriveError::Gone { .. })
    ));
}

#[tokio::test]
async fn a_partition_is_opened_only_where_it_was_carved() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let host = bed.host(&[&image]);
    let owned = adopt(&host);
    let mut elsewhere = owned.clone();
    elsewhere.layout.context.as_mut().unwrap().start += MIB;
    let refusal = host.open_partition(&elsewhere, Role::Context).unwrap_err();
    assert!(
        matches!(refusal, DriveError::IdentityChanged { .. }),
        "{refusal}"
    );
    fs::rename(bed.image("other"), &image).unwrap();
    let refusal = host.open_partition(&owned, Role::Context).unwrap_err();
    assert!(
        matches!(refusal, DriveError::IdentityChanged { .. }),
        "{refusal}"
    );
}
