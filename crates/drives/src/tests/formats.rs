//! The label and the partition table as formats: round trips, hostile bytes, other software's view.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;

use proptest::prelude::*;
use strand_placement::carve::{Geometry, Layout, MIB, Split, layout};
use strand_placement::verdict::LabelState;
use uuid::Uuid;

use crate::label::{Copy, DiskLabel, SECTOR, choose, decode};
use crate::medium::{Disk, Medium};
use crate::signature;
use crate::table::{read_foreign, table};

const SIZE: u64 = 256 * MIB;

fn plan(context_mib: u64, logical_block: u32) -> Layout {
    let geometry = Geometry {
        size: SIZE,
        logical_block,
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

fn label() -> impl Strategy<Value = DiskLabel> {
    let state = prop_oneof![
        Just(LabelState::Carving),
        Just(LabelState::Carved),
        Just(LabelState::Moving),
        Just(LabelState::Releasing),
        Just(LabelState::Erasing)
    ];
    (
        any::<u64>(),
        state,
        any::<bool>(),
        any::<[u128; 2]>(),
        0..300u64,
        0..300u64,
        "[a-z0-9.-]{0,63}",
        "\\PC{0,15}",
    )
        .prop_map(
            |(generation, state, large, ids, context, before, pool_name, serial)| {
                let logical_block = if large { 4096 } else { 512 };
                DiskLabel {
                    generation,
                    state,
                    logical_block,
                    size: SIZE,
                    pool_id: Uuid::from_u128(ids[0]),
                    drive_id: Uuid::from_u128(ids[1]),
                    layout: plan(context, logical_block),
                    previous: (state == LabelState::Moving).then(|| plan(before, logical_block)),
                    pool_name,
                    serial,
                }
            },
        )
}

proptest! {
    #[test]
    fn a_label_reads_back_as_written(label in label()) {
        prop_assert_eq!(decode(&label.encode()), Copy::Valid(Box::new(label)));
    }

    #[test]
    fn a_changed_label_is_never_taken_for_valid(label in label(), at in 0..SECTOR, flip in 1..=255u8) {
        let mut sector = label.encode();
        sector[at] ^= flip;
        prop_assert!(!matches!(decode(&sector), Copy::Valid(_)));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), SECTOR), with_magic: bool) {
        let mut sector: [u8; SECTOR] = bytes.try_into().expect("a sector");
        if with_magic {
            sector[..8].copy_from_slice(b"STRANDLB");
            sector[8..10].copy_from_slice(&1u16.to_le_bytes());
            let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&sector[..508]);
            sector[508..].copy_from_slice(&checksum.to_le_bytes());
        }
        prop_assert_eq!(matches!(decode(&sector), Copy::Absent), !with_magic && &sector[..8] != b"STRANDLB");
    }

    #[test]
    fn hostile_partition_tables_are_read_without_panic(
        header in prop::collection::vec(any::<u8>(), 92),
        entries_lba in prop_oneof![Just(2u64), any::<u64>()],
        count: u32,
        entry_len in prop_oneof![Just(128u32), any::<u32>()],
        entries in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        let mut bytes = vec![0; 64 << 10];
        bytes[512..604].copy_from_slice(&header);
        bytes[512..520].copy_from_slice(b"EFI PART");
        bytes[584..592].copy_from_slice(&entries_lba.to_le_bytes());
        bytes[592..596].copy_from_slice(&count.to_le_bytes());
        bytes[596..600].copy_from_slice(&entry_len.to_le_bytes());
        bytes[1024..1024 + entries.len()].copy_from_slice(&entries);
        let drive = Bytes(bytes);
        prop_assert!(read_foreign(&drive, 512, 512).is_some());
        prop_assert!(!signature::find(&drive).is_empty());
    }

    #[test]
    fn signatures_of_any_bytes_are_found_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..8192)) {
        signature::find(&Bytes(bytes));
    }
}

/// A drive that can only be read.
struct Bytes(Vec<u8>);

impl Medium for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(
            self.0
                .get(offset as usize..end)
                .ok_or(std::io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        unreachable!("read only")
    }

    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        unreachable!("read only")
    }

    fn zero(&self, _: u64, _: u64) -> std::io::Result<()> {
        unreachable!("read only")
    }

    fn sync(&self) -> std::io::Result<()> {
        unreachable!("read only")
    }
}

fn sample() -> DiskLabel {
    DiskLabel {
        generation: 5,
        state: LabelState::Carved,
        logical_block: 512,
        size: SIZE,
        pool_id: Uuid::from_u128(0x1111_2222 << 96),
        drive_id: Uuid::from_u128(0x3333_4444 << 96),
        layout: plan(100, 512),
        previous: None,
        pool_name: "rack".into(),
        serial: "S1".into(),
    }
}

#[test]
fn a_newer_format_is_refused_whatever_the_other_copy_says() {
    let mut newer = sample().encode();
    newer[8] = 2;
    assert_eq!(
        choose(&[decode(&sample().encode()), decode(&newer)]),
        Copy::Newer(2)
    );
}

#[test]
fn the_newest_valid_copy_wins() {
    let old = DiskLabel {
        generation: 4,
        ..sample()
    };
    let copies = [decode(&old.encode()), decode(&sample().encode())];
    assert_eq!(choose(&copies), Copy::Valid(Box::new(sample())));
    let mut torn = sample().encode();
    torn[100] ^= 1;
    assert_eq!(
        choose(&[decode(&torn), decode(&old.encode())]),
        Copy::Valid(Box::new(old))
    );
    assert!(matches!(
        choose(&[decode(&torn), Copy::Absent]),
        Copy::Damaged(_)
    ));
}

/// Other software reads our table as we mean it, at both block sizes.
#[test]
fn sgdisk_finds_our_table_sound() {
    for context in [0, 100, 1000] {
        let label = DiskLabel {
            layout: plan(context, 512),
            ..sample()
        };
        let ours = table(&label, &label.layout).expect("a table");
        let mut image = tempfile::NamedTempFile::new().expect("a file");
        image.as_file().set_len(SIZE).expect("sparse");
        image.write_all(&ours.head).expect("written");
        image
            .as_file()
            .write_all_at(&ours.tail, ours.tail_at)
            .expect("written");
        let output = Command::new("sgdisk")
            .arg("-v")
            .arg("-p")
            .arg(image.path())
            .output()
            .expect("sgdisk is installed (gdisk)");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("No problems found"),
            "{text}"
        );
        assert_eq!(
            text.matches("strand-").count(),
            label.layout.partitions().count(),
            "{text}"
        );
        let disk = Disk::new(image.as_file()).expect("a disk");
        let found = read_foreign(&disk, 512, 512).expect("a table");
        assert_eq!(found.partitions.len(), label.layout.partitions().count());
    }
}
