//! What a volume says of its array, and what was seen of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::running::Running;
use crate::superblock::Superblock;

/// How an array's legs hold its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Each leg has a part of the bytes; none can be lost.
    Stripe,
    /// Each leg has all bytes; one has to be left.
    Mirror,
    /// Any two legs can be lost.
    Raid6,
}

impl Level {
    /// Legs that have to be in sync, of this many.
    pub fn needed(self, legs: usize) -> usize {
        match self {
            Self::Stripe => legs,
            Self::Mirror => 1,
            Self::Raid6 => legs.saturating_sub(2),
        }
    }

    /// As mdadm and the kernel call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stripe => "raid0",
            Self::Mirror => "raid1",
            Self::Raid6 => "raid6",
        }
    }

    /// The same, of an array that is only read.
    pub(crate) fn reading(self) -> &'static str {
        match self {
            Self::Stripe => "raid0",
            Self::Mirror => "raid5",
            Self::Raid6 => "raid6",
        }
    }

    /// As superblocks have it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Stripe => 0,
            Self::Mirror => 1,
            Self::Raid6 => 6,
        }
    }

    /// Whether it has an internal bitmap.
    pub(crate) fn bitmap(self) -> bool {
        self != Self::Stripe
    }
}

/// Where an array's bytes lie on each leg. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Geometry {
    /// Before the data: superblock and bitmap.
    pub data_offset: u64,
    /// Data on each leg.
    pub data: u64,
    /// Of the array that lie together on one leg.
    pub chunk: u64,
    /// Of a leg that one bit of the bitmap stands for.
    pub bitmap_chunk: u64,
}

/// What a leg is to the volume, by the volume's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It has every acknowledged byte.
    In,
    /// It has missed writes, or may have.
    Out,
    /// It was out and is back within the same attachment: what it has missed is in the bitmap of the array that still runs.
    Returning,
    /// It holds nothing that counts, and is to be copied to from end to end.
    Rebuilding,
}

/// One leg of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Its UUID.
    pub uuid: Uuid,
    /// What it is to the volume.
    pub standing: Standing,
    /// Its block device here, where it can be reached and answers.
    pub device: Option<PathBuf>,
}

/// What a volume says of its array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// The array's UUID.
    pub array: Uuid,
    /// A name for people, in the superblocks.
    pub name: String,
    /// How the legs hold the bytes.
    pub level: Level,
    /// Where the bytes lie.
    pub geometry: Geometry,
    /// All legs.
    pub legs: Vec<Leg>,
    /// The array was made, and its device may have been handed out: it is never made again.
    pub formed: bool,
    /// Whether nothing may be written to it, superblocks included.
    pub read_only: bool,
    /// Bytes a second that rebuilding and resyncing may copy.
    pub rate: u64,
}

/// What is on a leg that is in no array of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Zeroes, where a superblock would be and before it.
    Blank,
    /// An array's superblock.
    Member(Superblock),
    /// Something else.
    Other,
}

/// What was seen of a leg's device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Its bytes.
    pub size: u64,
    /// The kernel refuses writes to it.
    pub read_only: bool,
    /// What is on it; none for a member of a running array that writes, which alone knows.
    pub content: Option<Content>,
}

/// What was seen of an array and its legs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The array with the UUID, or one that has a leg's device.
    pub array: Option<Running>,
    /// The legs' devices, in the order of [`Wanted::legs`].
    pub legs: Vec<Option<Present>>,
}

/// The kernel's name of a device.
pub(crate) fn kernel_name(device: &Path) -> String {
    let name = device.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
