//! Structures that known software leaves on drives. They only explain a drive that is not blank: nothing is decided by them, so
//! what is missing here costs a word in a reason, never a byte.

use strand_placement::verdict::{Signature, SignatureKind as Kind};

use crate::medium::Medium;
use crate::table::read_foreign;

/// Where a magic lies.
#[derive(Clone, Copy)]
enum At {
    /// Bytes from the drive's start.
    Start(u64),
    /// Bytes before the drive's end.
    End(u64),
}

struct Magic {
    kind: Kind,
    name: &'static str,
    at: At,
    bytes: &'static [u8],
}

const fn magic(kind: Kind, name: &'static str, at: At, bytes: &'static [u8]) -> Magic {
    Magic {
        kind,
        name,
        at,
        bytes,
    }
}

const MD: &[u8] = &0xa92b_4efc_u32.to_le_bytes();

/// Magics at fixed places. Sources: the headers named.
#[rustfmt::skip]
const MAGICS: &[Magic] = &[
    // linux fs/xfs/libxfs/xfs_format.h, fs/btrfs/accessors (superblock at 64 KiB, magic at 0x40), include/linux/f2fs_fs.h
    magic(Kind::FileSystem, "xfs", At::Start(0), b"XFSB"),
    magic(Kind::FileSystem, "btrfs", At::Start(0x10040), b"_BHRfS_M"),
    magic(Kind::FileSystem, "f2fs", At::Start(1024), &0xF2F5_2010_u32.to_le_bytes()),
    magic(Kind::FileSystem, "erofs", At::Start(1024), &0xE0F5_E1E2_u32.to_le_bytes()),
    // Microsoft: boot sector OEM names; FAT: fatgen103, file system type fields
    magic(Kind::FileSystem, "ntfs", At::Start(3), b"NTFS    "),
    magic(Kind::FileSystem, "exfat", At::Start(3), b"EXFAT   "),
    magic(Kind::FileSystem, "vfat", At::Start(82), b"FAT32   "),
    magic(Kind::FileSystem, "vfat", At::Start(54), b"FAT16   "),
    magic(Kind::FileSystem, "vfat", At::Start(54), b"FAT12   "),
    // ECMA-119; squashfs_fs.h; VMware VMFS volume header at 1 MiB
    magic(Kind::FileSystem, "iso9660", At::Start(32769), b"CD001"),
    magic(Kind::FileSystem, "squashfs", At::Start(0), b"hsqs"),
    magic(Kind::FileSystem, "vmfs", At::Start(0x10_0000), &0xC001_D00D_u32.to_le_bytes()),
    // linux include/linux/swap.h: the last ten bytes of the first page, whatever a page is
    magic(Kind::Swap, "swap", At::Start(0x1000 - 10), b"SWAPSPACE2"),
    magic(Kind::Swap, "swap", At::Start(0x2000 - 10), b"SWAPSPACE2"),
    magic(Kind::Swap, "swap", At::Start(0x4000 - 10), b"SWAPSPACE2"),
    magic(Kind::Swap, "swap", At::Start(0x8000 - 10), b"SWAPSPACE2"),
    magic(Kind::Swap, "swap", At::Start(0x10000 - 10), b"SWAPSPACE2"),
    // linux include/uapi/linux/raid/md_p.h; 1.0 and 0.90 lie near the end, see md_at_end
    magic(Kind::Raid, "md 1.1", At::Start(0), MD),
    magic(Kind::Raid, "md 1.2", At::Start(4096), MD),
    // SNIA Common RAID DDF: anchor in the last block; Intel Matrix: the last but one
    magic(Kind::Raid, "DDF", At::End(512), &0xDE11_DE11_u32.to_be_bytes()),
    magic(Kind::Raid, "Intel Matrix", At::End(1024), b"Intel Raid ISM Cfg Sig. "),
    // LVM2 lib/format_text/layout.h: label in one of the first four sectors
    magic(Kind::Lvm, "LVM2", At::Start(0), b"LABELONE"),
    magic(Kind::Lvm, "LVM2", At::Start(512), b"LABELONE"),
    magic(Kind::Lvm, "LVM2", At::Start(1024), b"LABELONE"),
    magic(Kind::Lvm, "LVM2", At::Start(1536), b"LABELONE"),
    // LUKS on-disk format 1 and 2: version behind the magic, big-endian
    magic(Kind::Luks, "LUKS1", At::Start(0), b"LUKS\xba\xbe\x00\x01"),
    magic(Kind::Luks, "LUKS2", At::Start(0), b"LUKS\xba\xbe\x00\x02"),
    magic(Kind::Luks, "LUKS2 (second header)", At::Start(0x4000), b"SKUL\xba\xbe"),
    // Ceph src/os/bluestore/BlueStore.cc: text label at the start
    magic(Kind::Ceph, "bluestore", At::Start(0), b"bluestore block device\n"),
    // linux include/uapi/linux/bcache.h: superblock at 4 KiB, magic at 24; bcachefs: bcachefs_format.h
    magic(Kind::Bcache, "bcache", At::Start(4096 + 24), b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    magic(Kind::FileSystem, "bcachefs", At::Start(4096 + 24), b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
];

/// Every known structure on a drive, in the order of where they lie.
pub(crate) fn find(medium: &impl Medium) -> Vec<Signature> {
    let size = medium.size();
    let mut found: Vec<Signature> = MAGICS
        .iter()
        .filter_map(|magic| {
            let at = match magic.at {
                At::Start(at) => at,
                At::End(before) => size.checked_sub(before)?,
            };
            (read(medium, at, magic.bytes.len())? == magic.bytes)
                .then(|| signature(magic.kind, magic.name, at))
        })
        .collect();
    found.extend(ext(medium));
    found.extend(md_at_end(medium));
    found.extend(zfs(medium));
    let fat = found
        .iter()
        .any(|signature| matches!(signature.name.as_str(), "vfat" | "ntfs" | "exfat"));
    found.extend(partition_table(medium, fat));
    found.sort_by_key(|signature| signature.offset);
    found.dedup_by(|a, b| a.kind == b.kind && a.name == b.name);
    found
}

fn signature(kind: Kind, name: impl Into<String>, offset: u64) -> Signature {
    Signature {
        kind,
        name: name.into(),
        offset,
    }
}

/// Bytes of the drive; none beyond its end or where it cannot be read, which the survey reports.
fn read(medium: &impl Medium, at: u64, len: usize) -> Option<Vec<u8>> {
    let end = at.checked_add(len as u64)?;
    let mut bytes = vec![0; len];
    (end <= medium.size() && medium.read_at(&mut bytes, at).is_ok()).then_some(bytes)
}

fn le32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// linux fs/ext4/ext4.h: superblock at 1024, magic 0xEF53 at 0x38, feature words at 0x5C and 0x60.
fn ext(medium: &impl Medium) -> Option<Signature> {
    let superblock = read(medium, 1024, 0x68)?;
    if superblock[0x38..0x3A] != 0xEF53_u16.to_le_bytes() {
        return None;
    }
    const HAS_JOURNAL: u32 = 0x4;
    const EXT4_ONLY: u32 = 0x40 | 0x80 | 0x200;
    let name = match (
        le32(&superblock[0x60..]) & EXT4_ONLY,
        le32(&superblock[0x5C..]) & HAS_JOURNAL,
    ) {
        (0, 0) => "ext2",
        (0, _) => "ext3",
        _ => "ext4",
    };
    Some(signature(Kind::FileSystem, name, 1024 + 0x38))
}

/// md_p.h: 1.0 in the last 8 to 12 KiB at a multiple of 4 KiB, 0.90 in the last whole 64 KiB but one.
fn md_at_end(medium: &impl Medium) -> Vec<Signature> {
    let sectors = medium.size() / 512;
    let places = [
        ("md 1.0", sectors.checked_sub(16).map(|at| at / 8 * 8 * 512)),
        (
            "md 0.90",
            (medium.size() / 65536 * 65536).checked_sub(65536),
        ),
    ];
    let at_place = |(name, at): (&str, Option<u64>)| {
        let at = at?;
        (read(medium, at, 4)? == MD).then(|| signature(Kind::Raid, name, at))
    };
    places.into_iter().filter_map(at_place).collect()
}

/// OpenZFS vdev_impl.h, uberblock_impl.h: four 256 KiB labels, two at each end, an array of uberblocks in the second half of each,
/// magic 0x00bab10c in the writer's byte order.
fn zfs(medium: &impl Medium) -> Option<Signature> {
    const LABEL: u64 = 256 << 10;
    let end = medium.size() / LABEL * LABEL;
    let labels = [
        Some(0),
        Some(LABEL),
        end.checked_sub(2 * LABEL),
        end.checked_sub(LABEL),
    ];
    labels.into_iter().flatten().find_map(|label| {
        let ring = read(medium, label + LABEL / 2, LABEL as usize / 2)?;
        let slot = ring.chunks_exact(1024).position(|slot| {
            slot[..8] == 0x00ba_b10c_u64.to_le_bytes() || slot[..8] == 0x00ba_b10c_u64.to_be_bytes()
        })?;
        Some(signature(
            Kind::Zfs,
            "zfs",
            label + LABEL / 2 + slot as u64 * 1024,
        ))
    })
}

/// GPT (UEFI specification 5.3) by its primary or backup header, else MBR. A FAT or NTFS boot sector ends like an MBR.
fn partition_table(medium: &impl Medium, boot_sector: bool) -> Option<Signature> {
    let size = medium.size();
    for (block, header_at) in [
        (512, Some(512)),
        (4096, Some(4096)),
        (512, size.checked_sub(512)),
        (4096, size.checked_sub(4096)),
    ] {
        let Some(header_at) = header_at else { continue };
        if let Some(table) = read_foreign(medium, header_at, block) {
            let name = match table.partitions.as_slice() {
                [] => "empty GPT".to_owned(),
                names => format!("GPT ({})", names.join(", ")),
            };
            return Some(signature(Kind::PartitionTable, name, header_at));
        }
    }
    let sector = read(medium, 0, 512)?;
    let entries = || sector[446..510].chunks_exact(16);
    let is_mbr = sector[510..] == [0x55, 0xAA]
        && !boot_sector
        && entries().all(|entry| matches!(entry[0], 0 | 0x80));
    is_mbr.then(|| {
        let used = entries().filter(|entry| entry[4] != 0).count();
        signature(
            Kind::PartitionTable,
            format!("MBR ({used} partitions)"),
            510,
        )
    })
}
