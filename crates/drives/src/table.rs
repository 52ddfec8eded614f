//! The partition table (GPT, UEFI specification chapter 5) of a carved drive, and a reader that tells what a foreign one holds.
//!
//! A table of ours is a function of the label, to the byte. So to write it is to write two blocks of bytes in an order of our
//! choosing, and to check it is to compare.

use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use strand_placement::carve::{Extent, Layout, Role};
use uuid::Uuid;

use crate::label::DiskLabel;
use crate::medium::Medium;

/// Type GUID of Strand's storage partitions.
pub(crate) const STORAGE_TYPE: Uuid = Uuid::from_u128(0x7d1c6a0e_52b4_4f0b_9c3e_1f6b2d8a4c51);
/// Type GUID of Strand's context-memory partitions.
pub(crate) const CONTEXT_TYPE: Uuid = Uuid::from_u128(0xb04e93f7_8c2d_4a16_a5d8_60f37e19b2c4);

/// Entries of 128 bytes that every table has, 16 KiB in all.
const ENTRIES_LEN: u64 = 128 * 128;

/// Our partition table: what lies at the drive's start and what lies at its end.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Protective MBR, header, entries: from byte 0.
    pub(crate) head: Vec<u8>,
    /// Entries, backup header: up to the last whole logical block.
    pub(crate) tail: Vec<u8>,
    /// Where `tail` begins.
    pub(crate) tail_at: u64,
    /// Bytes of a logical block, the unit in which a write is atomic.
    pub(crate) block: usize,
}

/// The partitions of a layout with the numbers that they have in the table and in the kernel: 1, 2 in the order in which they lie.
pub(crate) fn numbered(layout: &Layout) -> impl Iterator<Item = (u32, Role, Extent)> + use<> {
    (1..)
        .zip(layout.partitions())
        .map(|(number, (role, extent))| (number, role, extent))
}

/// The table that a label stands for, with one of its two layouts.
pub(crate) fn table(label: &DiskLabel, layout: &Layout) -> io::Result<Table> {
    let block = u64::from(label.logical_block);
    let block_size = if block == 4096 {
        LogicalBlockSize::Lb4096
    } else {
        LogicalBlockSize::Lb512
    };
    let blocks = label.size / block;
    let head_len = 2 * block + ENTRIES_LEN;
    let tail_len = ENTRIES_LEN + block;
    let tail_at = blocks * block - tail_len;
    let mut ends = Ends {
        head: vec![0; head_len as usize],
        tail: vec![0; tail_len as usize],
        tail_at,
        at: 0,
    };
    // A drive of more blocks than fit says so with all ones (UEFI specification, table 5.4).
    ProtectiveMBR::with_lb_size(u32::try_from(blocks - 1).unwrap_or(u32::MAX))
        .overwrite_lba0(&mut ends)
        .map_err(io::Error::other)?;
    let config = GptConfig::new()
        .writable(true)
        .logical_block_size(block_size);
    let mut disk = config
        .create_from_device(&mut ends, Some(label.drive_id))
        .map_err(io::Error::other)?;
    let partitions = numbered(layout).map(|(number, role, extent)| {
        let partition = Partition {
            part_type_guid: Type {
                guid: type_guid(role),
                os: OperatingSystem::Linux,
            },
            part_guid: partition_guid(label.drive_id, role),
            first_lba: extent.start / block,
            last_lba: extent.end() / block - 1,
            flags: 0,
            name: name(label, role),
        };
        (number, partition)
    });
    disk.update_partitions(partitions.collect())
        .map_err(io::Error::other)?;
    disk.write().map_err(io::Error::other)?;
    Ok(Table {
        head: ends.head,
        tail: ends.tail,
        tail_at,
        block: block as usize,
    })
}

fn type_guid(role: Role) -> Uuid {
    match role {
        Role::Storage => STORAGE_TYPE,
        Role::Context => CONTEXT_TYPE,
    }
}

/// A partition's own GUID: the drive's with the role mixed in, so that it follows from the label.
fn partition_guid(drive: Uuid, role: Role) -> Uuid {
    let mark = match role {
        Role::Storage => 1,
        Role::Context => 2,
    };
    Uuid::from_u128(drive.as_u128() ^ mark)
}

/// At most 36 characters: role, and the first eight digits of the pool's and the drive's identity.
fn name(label: &DiskLabel, role: Role) -> String {
    let role = match role {
        Role::Storage => "storage",
        Role::Context => "context",
    };
    let short = |id: Uuid| format!("{:08x}", id.as_u128() >> 96);
    format!(
        "strand-{role}-{}-{}",
        short(label.pool_id),
        short(label.drive_id)
    )
}

/// The two ends of a drive in memory, for a writer that touches nothing else.
#[derive(Debug)]
struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    tail_at: u64,
    at: u64,
}

impl Ends {
    /// The part of either end that begins at the current position.
    fn here(&mut self) -> io::Result<&mut [u8]> {
        let (end, from) = match self.at.checked_sub(self.tail_at) {
            Some(from) => (&mut self.tail, from),
            None => (&mut self.head, self.at),
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        end.get_mut(from..)
            .ok_or_else(|| io::Error::other("a partition table reaches into the drive's middle"))
    }
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = self.here()?;
        let len = here.len().min(buffer.len());
        buffer[..len].copy_from_slice(&here[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Ends {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let here = self.here()?;
        let len = here.len().min(data.len());
        here[..len].copy_from_slice(&data[..len]);
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Ends {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.tail_at + self.tail.len() as u64;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => end.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// What a foreign GPT holds, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignTable {
    /// Names of its partitions; `unnamed` for those without.
    pub(crate) partitions: Vec<String>,
}

/// Reads a GPT whose header lies at `header_at`. Bounded and without panics, whatever the bytes are: it only ever explains.
/// None where there is no header.
pub(crate) fn read_foreign(
    medium: &impl Medium,
    header_at: u64,
    block: u64,
) -> Option<ForeignTable> {
    let mut header = [0; 92];
    medium.read_at(&mut header, header_at).ok()?;
    if &header[..8] != b"EFI PART" {
        return None;
    }
    let u32_at = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let entries_lba = u64::from(u32_at(72)) | u64::from(u32_at(76)) << 32;
    let count = u32_at(80).min(128) as usize;
    let entry_len = u32_at(84) as usize;
    let mut partitions = Vec::new();
    if (128..=4096).contains(&entry_len) {
        for index in 0..count {
            let mut entry = [0; 128];
            let at = entries_lba
                .checked_mul(block)
                .and_then(|at| at.checked_add((index * entry_len) as u64));
            if at.is_none_or(|at| at > medium.size() || medium.read_at(&mut entry, at).is_err()) {
                break;
            }
            if entry[..16] != [0; 16] {
                partitions.push(entry_name(&entry));
            }
        }
    }
    Some(ForeignTable { partitions })
}

/// The name of an entry: 36 UTF-16 units from byte 56, without control characters.
fn entry_name(entry: &[u8; 128]) -> String {
    let units = entry[56..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0);
    let name: String = char::decode_utf16(units)
        .map(|c| c.unwrap_or('?'))
        .filter(|c| !c.is_control())
        .collect();
    if name.is_empty() {
        "unnamed".into()
    } else {
        name
    }
}
