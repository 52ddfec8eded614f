//! Strand's label: one 512-byte sector, so that a write of it is atomic, in two copies at fixed distances from the drive's ends.
//!
//! All numbers little-endian; all that is not named is zero.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | magic `STRANDLB` |
//! | 8..10 | format version |
//! | 10 | state: 1 carving, 2 carved, 3 moving, 4 releasing, 5 erasing |
//! | 11 | logical block size as a power of two: 9 or 12 |
//! | 16..24 | generation |
//! | 24..32 | size of the drive in bytes |
//! | 32..48, 48..64 | pool id, drive id (UUIDs) |
//! | 64..96 | layout: storage start and length, context start and length in bytes; length 0 for none |
//! | 96..128 | the layout before, while moving |
//! | 128, 129..192 | length of the pool's name, the name (UTF-8) |
//! | 192, 193..256 | length of the drive's serial, the serial |
//! | 508..512 | CRC-32C of bytes 0..508 |

use crc::{CRC_32_ISCSI, Crc};
use strand_placement::carve::{Extent, Layout, MIB};
use strand_placement::verdict::LabelState;
use uuid::Uuid;

/// Bytes of a label.
pub(crate) const SECTOR: usize = 512;
/// Longest pool name and serial that a label holds, in bytes.
pub(crate) const TEXT: usize = 63;
/// The newest format version that this code reads, and the one that it writes.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"STRANDLB";
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// Distance of both copies from the drive's ends: behind any partition table, within the reserved first and last MiB.
const DISTANCE: u64 = MIB / 2;

/// Where the two copies lie on a drive of this size: near its start, near its end.
pub(crate) fn positions(size: u64) -> [u64; 2] {
    [DISTANCE, (size / 4096 * 4096).saturating_sub(DISTANCE)]
}

/// A label as it stands on a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskLabel {
    pub(crate) generation: u64,
    pub(crate) state: LabelState,
    pub(crate) logical_block: u32,
    pub(crate) size: u64,
    pub(crate) pool_id: Uuid,
    pub(crate) drive_id: Uuid,
    pub(crate) layout: Layout,
    pub(crate) previous: Option<Layout>,
    pub(crate) pool_name: String,
    pub(crate) serial: String,
}

/// What one copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// No magic.
    Absent,
    /// Magic, but not valid.
    Damaged(&'static str),
    /// A newer format.
    Newer(u16),
    /// A valid label.
    Valid(Box<DiskLabel>),
}

impl DiskLabel {
    /// The sector as it is written. Texts beyond [`TEXT`] bytes are cut at a character's boundary.
    pub(crate) fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[0..8].copy_from_slice(MAGIC);
        sector[8..10].copy_from_slice(&VERSION.to_le_bytes());
        sector[10] = state_code(self.state);
        sector[11] = self.logical_block.trailing_zeros() as u8;
        sector[16..24].copy_from_slice(&self.generation.to_le_bytes());
        sector[24..32].copy_from_slice(&self.size.to_le_bytes());
        sector[32..48].copy_from_slice(self.pool_id.as_bytes());
        sector[48..64].copy_from_slice(self.drive_id.as_bytes());
        encode_layout(&mut sector[64..96], &self.layout);
        if let Some(previous) = &self.previous {
            encode_layout(&mut sector[96..128], previous);
        }
        encode_text(&mut sector[128..192], &self.pool_name);
        encode_text(&mut sector[192..256], &self.serial);
        let checksum = CRC.checksum(&sector[..508]);
        sector[508..].copy_from_slice(&checksum.to_le_bytes());
        sector
    }
}

/// Reads one copy. Never panics, whatever the bytes are.
pub(crate) fn decode(sector: &[u8; SECTOR]) -> Copy {
    if &sector[0..8] != MAGIC {
        return Copy::Absent;
    }
    // A newer format may keep its checksum elsewhere, so the version is believed without one: refusing is always safe.
    let version = u16::from_le_bytes([sector[8], sector[9]]);
    if version > VERSION {
        return Copy::Newer(version);
    }
    if CRC.checksum(&sector[..508]).to_le_bytes() != sector[508..] {
        return Copy::Damaged("its checksum does not match");
    }
    match decode_fields(sector) {
        Ok(label) if version == VERSION => Copy::Valid(Box::new(label)),
        Ok(_) => Copy::Damaged("it has format version 0"),
        Err(why) => Copy::Damaged(why),
    }
}

fn decode_fields(sector: &[u8; SECTOR]) -> Result<DiskLabel, &'static str> {
    let state = state_of(sector[10]).ok_or("its state is unknown")?;
    let logical_block = match sector[11] {
        9 => 512,
        12 => 4096,
        _ => return Err("its block size is unknown"),
    };
    if sector[12..16]
        .iter()
        .chain(&sector[256..508])
        .any(|byte| *byte != 0)
    {
        return Err("its reserved bytes are not zero");
    }
    let size = number(&sector[24..32]);
    let layout = decode_layout(&sector[64..96], size)?.ok_or("its layout has no partition")?;
    let previous = decode_layout(&sector[96..128], size)?;
    if previous.is_some() != (state == LabelState::Moving) {
        return Err("its earlier layout and its state contradict each other");
    }
    Ok(DiskLabel {
        generation: number(&sector[16..24]),
        state,
        logical_block,
        size,
        pool_id: uuid(&sector[32..48]),
        drive_id: uuid(&sector[48..64]),
        layout,
        previous,
        pool_name: decode_text(&sector[128..192])?,
        serial: decode_text(&sector[192..256])?,
    })
}

/// What the two copies together say: a newer format is respected, else the valid copy of the higher generation wins.
pub(crate) fn choose(copies: &[Copy; 2]) -> Copy {
    let newer = copies.iter().find(|copy| matches!(copy, Copy::Newer(_)));
    let valid = copies
        .iter()
        .filter(|copy| matches!(copy, Copy::Valid(_)))
        .max_by_key(|copy| match copy {
            Copy::Valid(label) => label.generation,
            _ => 0,
        });
    let damaged = copies.iter().find(|copy| matches!(copy, Copy::Damaged(_)));
    newer.or(valid).or(damaged).cloned().unwrap_or(Copy::Absent)
}

fn state_code(state: LabelState) -> u8 {
    match state {
        LabelState::Carving => 1,
        LabelState::Carved => 2,
        LabelState::Moving => 3,
        LabelState::Releasing => 4,
        LabelState::Erasing => 5,
    }
}

fn state_of(code: u8) -> Option<LabelState> {
    [
        LabelState::Carving,
        LabelState::Carved,
        LabelState::Moving,
        LabelState::Releasing,
        LabelState::Erasing,
    ]
    .into_iter()
    .find(|state| state_code(*state) == code)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn uuid(bytes: &[u8]) -> Uuid {
    Uuid::from_slice(bytes).unwrap_or_default()
}

fn encode_layout(bytes: &mut [u8], layout: &Layout) {
    let numbers = [layout.storage, layout.context]
        .map(|extent| extent.map_or([0, 0], |extent| [extent.start, extent.len]));
    for (slot, value) in bytes.chunks_exact_mut(8).zip(numbers.as_flattened()) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
}

/// A layout whose partitions lie between the reserved first and last MiB and do not overlap; none where there is no partition.
fn decode_layout(bytes: &[u8], size: u64) -> Result<Option<Layout>, &'static str> {
    let extent = |at: usize| {
        let (start, len) = (number(&bytes[at..at + 8]), number(&bytes[at + 8..at + 16]));
        match len {
            0 if start == 0 => Ok(None),
            0 => Err("a partition of it is empty"),
            _ if start < MIB || start % 4096 != 0 || len % 4096 != 0 => {
                Err("a partition of it is misplaced")
            }
            _ if start
                .checked_add(len)
                .is_none_or(|end| end > size.saturating_sub(MIB)) =>
            {
                Err("a partition of it ends too late")
            }
            _ => Ok(Some(Extent { start, len })),
        }
    };
    let layout = Layout {
        storage: extent(0)?,
        context: extent(16)?,
    };
    match (layout.storage, layout.context) {
        (None, None) => Ok(None),
        (Some(storage), Some(context)) if storage.end() > context.start => {
            Err("its partitions overlap")
        }
        _ => Ok(Some(layout)),
    }
}

fn encode_text(bytes: &mut [u8], text: &str) {
    let end = (0..=TEXT.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    let text = &text[..end];
    bytes[0] = text.len() as u8;
    bytes[1..=text.len()].copy_from_slice(text.as_bytes());
}

fn decode_text(bytes: &[u8]) -> Result<String, &'static str> {
    let len = usize::from(bytes[0]);
    let text = bytes[1..].get(..len).ok_or("a text of it is too long")?;
    if bytes[1 + len..].iter().any(|byte| *byte != 0) {
        return Err("bytes behind a text of it are not zero");
    }
    String::from_utf8(text.to_vec()).map_err(|_| "a text of it is not UTF-8")
}
