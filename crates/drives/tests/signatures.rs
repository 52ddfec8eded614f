//! Whatever real tools leave on a drive keeps it from being taken, is named in the reasons, and stays as it is to the byte.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod bed;

use std::path::Path;
use std::process::{Command, Stdio};

use bed::{Bed, Loop, SIZE, hash, need_root, only, order, poke, run, text, watched};
use strand_drives::{DriveError, DriveHost};
use strand_placement::verdict::Verdict;

/// Makes a drive with `make`, as a file and as a loop device, and expects this reason among those for refusing it.
fn refused(code: &str, words: &str, make: impl Fn(&Path)) {
    need_root();
    let bed = Bed::new();
    let image = bed.image("S1");
    make(&image);
    let before = hash(&image);
    let device = Loop::attach(&image, &[]);
    let as_loop = bed.host(&[&device.path]);
    judge_and_try(&as_loop, code, words);
    drop(device);
    let as_file = bed.host(&[&image]);
    judge_and_try(&as_file, code, words);
    assert!(before == hash(&image), "looking at the drive changed it");
}

fn judge_and_try(host: &strand_drives::KernelHost, code: &str, words: &str) {
    let drive = only(host);
    let (seen, finding) = watched(host, &drive);
    assert_eq!(finding.verdict, Verdict::Foreign, "{:?}", finding.reasons);
    let told: Vec<String> = finding
        .reasons
        .iter()
        .map(|reason| format!("{}: {reason}", reason.code()))
        .collect();
    assert!(
        told.iter()
            .any(|reason| reason.starts_with(code) && reason.contains(words)),
        "no {code} with {words:?} in {told:#?}"
    );
    assert!(
        told.iter().any(|reason| reason.starts_with("NotBlank")),
        "{told:#?}"
    );
    let refusal = host.adopt(&drive, &seen, &order()).unwrap_err();
    assert!(
        matches!(&refusal, DriveError::NotStranded { reasons, .. } if reasons == &finding.reasons),
        "{refusal}"
    );
}

#[tokio::test]
async fn file_systems() {
    refused("FileSystem", "ext4", |image| {
        run("mkfs.ext4", &["-qF", text(image)])
    });
    refused("FileSystem", "ext2", |image| {
        run("mkfs.ext2", &["-qF", text(image)])
    });
    refused("FileSystem", "xfs", |image| {
        run("mkfs.xfs", &["-qf", text(image)])
    });
    refused("FileSystem", "btrfs", |image| {
        run("mkfs.btrfs", &["-qf", text(image)])
    });
}

/// File systems whose tools are seldom installed, by their magics alone.
#[tokio::test]
async fn file_systems_by_their_magic() {
    refused("FileSystem", "ntfs", |image| poke(image, 3, b"NTFS    "));
    refused("FileSystem", "exfat", |image| poke(image, 3, b"EXFAT   "));
    refused("FileSystem", "vfat", |image| poke(image, 82, b"FAT32   "));
    refused("FileSystem", "f2fs", |image| {
        poke(image, 1024, &0xF2F5_2010_u32.to_le_bytes())
    });
    refused("BcacheMember", "bcache", |image| {
        poke(
            image,
            4096 + 24,
            b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        );
    });
}

#[tokio::test]
async fn swap_space() {
    refused("SwapSpace", "swap space", |image| {
        run("mkswap", &[text(image)])
    });
}

#[tokio::test]
async fn partition_tables() {
    let partition = ["mkpart", "primary", "1MiB", "100MiB"];
    refused("PartitionTable", "GPT (primary)", |image| {
        run(
            "parted",
            &[&["-s", text(image), "mklabel", "gpt"], &partition[..]].concat(),
        )
    });
    refused("PartitionTable", "MBR (1 partitions)", |image| {
        run(
            "parted",
            &[&["-s", text(image), "mklabel", "msdos"], &partition[..]].concat(),
        );
    });
    refused("PartitionTable", "empty GPT", |image| {
        run("parted", &["-s", text(image), "mklabel", "gpt"])
    });
    // Only the backup is left.
    refused("PartitionTable", "GPT (primary)", |image| {
        run(
            "parted",
            &[&["-s", text(image), "mklabel", "gpt"], &partition[..]].concat(),
        );
        poke(image, 0, &[0; 64 << 10]);
    });
}

#[tokio::test]
async fn volume_managers() {
    refused("LvmMember", "LVM physical volume", |image| {
        let device = Loop::attach(image, &[]);
        run(
            "pvcreate",
            &["-qy", "--devices", text(&device.path), text(&device.path)],
        );
    });
    for kind in ["luks1", "luks2"] {
        refused("LuksHeader", &kind.to_uppercase(), |image| {
            let mut format = Command::new("cryptsetup")
                .args([
                    "luksFormat",
                    "--batch-mode",
                    "--type",
                    kind,
                    "--pbkdf",
                    "pbkdf2",
                    "--pbkdf-force-iterations",
                    "1000",
                ])
                .args([text(image), "-"])
                .stdin(Stdio::piped())
                .spawn()
                .expect("cryptsetup is installed");
            std::io::Write::write_all(&mut format.stdin.take().unwrap(), b"secret").unwrap();
            assert!(format.wait().unwrap().success());
        });
    }
}

/// These tools need kernel modules to write their metadata; the magics lie where the formats' definitions put them.
#[tokio::test]
async fn raid_zfs_and_ceph() {
    const MD: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
    refused("RaidMember", "md 1.2", |image| poke(image, 4096, &MD));
    refused("RaidMember", "md 1.1", |image| poke(image, 0, &MD));
    refused("RaidMember", "md 1.0", |image| {
        poke(image, (SIZE / 512 - 16) / 8 * 8 * 512, &MD)
    });
    refused("RaidMember", "md 0.90", |image| {
        poke(image, SIZE / 65536 * 65536 - 65536, &MD)
    });
    refused("RaidMember", "Intel", |image| {
        poke(image, SIZE - 1024, b"Intel Raid ISM Cfg Sig. ")
    });
    refused("ZfsMember", "ZFS", |image| {
        poke(
            image,
            (128 << 10) + 5 * 1024,
            &0x00ba_b10c_u64.to_le_bytes(),
        )
    });
    refused("ZfsMember", "ZFS", |image| {
        poke(image, SIZE - (128 << 10), &0x00ba_b10c_u64.to_be_bytes())
    });
    refused("CephOsd", "Ceph", |image| {
        poke(image, 0, b"bluestore block device\n6f1c\n")
    });
}

/// What nothing knows is still not blank.
#[tokio::test]
async fn unknown_bytes_anywhere_that_is_read() {
    for at in [0, 5_000_000, (16 << 20) - 1, SIZE - 1, SIZE - (16 << 20)] {
        refused("NotBlank", &format!("data at byte {at};"), |image| {
            poke(image, at, &[1])
        });
    }
    // Data that fills the middle cannot hide between the samples.
    refused("NotBlank", "data at byte", |image| {
        poke(image, 20 << 20, &vec![1; 250 << 20])
    });
}
