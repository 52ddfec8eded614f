//! How one drive is split into a storage and a context-memory partition.
//!
//! ```text
//! 0            A                                              size - tail     size
//! | head       | storage                  | context           | tail          |
//! | GPT, label | ordinary volumes         | KV-cache blocks   | label, GPT    |
//! ```
//!
//! `A` is the least common multiple of 1 MiB and the drive's optimal write size. Head and tail are reserved, not partitions: they
//! hold the two copies of the partition table and of the label at fixed distances from the drive's ends, so that a label is
//! found without knowing the geometry it was written with. Storage comes first, so that it can grow into what context memory
//! gives up without moving a byte.

use serde::{Deserialize, Serialize};

/// One mebibyte, the alignment that every partitioning tool keeps.
pub const MIB: u64 = 1 << 20;

/// The smallest drive that is carved, in bytes. Judging a drive reads its first and last 16 MiB; below four times that there is
/// nothing in between to sample, and what is left after the reserved areas would not be worth a pool's bookkeeping.
pub const MIN_DRIVE: u64 = 64 * MIB;

/// The sizes of a drive that decide where partitions may lie, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Geometry {
    /// Size of the drive.
    pub size: u64,
    /// Logical block size: 512 or 4096.
    pub logical_block: u32,
    /// What the drive likes to be written in (NVMe NPWG/NOWS, else the queue's optimal or minimum I/O size); 0 where it says nothing.
    pub optimal_write: u32,
}

/// How much of a drive becomes context memory; the rest becomes storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// Bytes of context memory wanted: rounded down to the alignment, but to one unit at least unless 0. 0 makes no context
    /// partition; [`usable`] or more makes no storage partition.
    pub context_bytes: u64,
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Ordinary volumes.
    Storage,
    /// KV-cache blocks.
    Context,
}

/// A contiguous range of a drive, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Number of bytes, never 0.
    pub len: u64,
}

impl Extent {
    /// The first byte behind the extent.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Where a drive's partitions lie. At least one of the two is there in every layout that [`layout`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layout {
    /// The storage partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Extent>,
    /// The context-memory partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Extent>,
}

impl Layout {
    /// The partitions there are, in the order in which they lie on the drive.
    pub fn partitions(&self) -> impl Iterator<Item = (Role, Extent)> + use<> {
        let storage = self.storage.map(|extent| (Role::Storage, extent));
        let context = self.context.map(|extent| (Role::Context, extent));
        storage.into_iter().chain(context)
    }

    /// The extent of one role.
    pub fn extent(&self, role: Role) -> Option<Extent> {
        match role {
            Role::Storage => self.storage,
            Role::Context => self.context,
        }
    }
}

/// Why a drive cannot be carved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarveError {
    /// The drive is below [`MIN_DRIVE`], or nothing is left between its reserved areas.
    #[error(
        "the drive has {size} bytes, less than the {minimum} that a carve needs; leave it out of the pool"
    )]
    TooSmall {
        /// Bytes of the drive.
        size: u64,
        /// Bytes that are needed.
        minimum: u64,
    },
    /// The logical block size is neither 512 nor 4096.
    #[error(
        "a logical block size of {0} bytes is not supported; format the namespace with 512 or 4096 byte blocks"
    )]
    LogicalBlock(u32),
}

/// The alignment of every partition's start and length: lcm(1 MiB, optimal write size), in bytes. An optimal write size that
/// would push it above 1 GiB is taken for nonsense and left out.
pub fn alignment(geometry: &Geometry) -> u64 {
    let optimal = u64::from(geometry.optimal_write);
    if optimal == 0 {
        return MIB;
    }
    let combined = MIB / gcd(MIB, optimal) * optimal;
    if combined > 1 << 30 { MIB } else { combined }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Bytes that partitions can have on a drive of this geometry.
///
/// # Errors
/// [`CarveError`] where the drive cannot be carved at all.
pub fn usable(geometry: &Geometry) -> Result<u64, CarveError> {
    if !matches!(geometry.logical_block, 512 | 4096) {
        return Err(CarveError::LogicalBlock(geometry.logical_block));
    }
    let unit = alignment(geometry);
    // Head: one unit. Tail: at least 1 MiB for label and table, and what rounding leaves.
    let minimum = MIN_DRIVE.max(2 * unit + MIB);
    if geometry.size < minimum {
        return Err(CarveError::TooSmall {
            size: geometry.size,
            minimum,
        });
    }
    Ok((geometry.size - MIB) / unit * unit - unit)
}

/// The layout that a split gives on a drive. Equal inputs give equal layouts.
///
/// # Errors
/// [`CarveError`] where the drive cannot be carved at all.
pub fn layout(geometry: &Geometry, split: &Split) -> Result<Layout, CarveError> {
    let usable = usable(geometry)?;
    let unit = alignment(geometry);
    let context = match split.context_bytes {
        0 => 0,
        wanted => (wanted / unit * unit).clamp(unit, usable),
    };
    let storage = usable - context;
    let extent = |start, len| (len > 0).then_some(Extent { start, len });
    Ok(Layout {
        storage: extent(unit, storage),
        context: extent(unit + storage, context),
    })
}

/// What is to be done with a drive whose wanted layout may differ from its current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recarve {
    /// It is as wanted.
    Keep,
    /// Move the boundary; loses nothing durable.
    Move(Layout),
    /// It would lose something durable.
    Refused(RecarveRefusal),
}

/// Why a carve stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecarveRefusal {
    /// Storage holds data and would lose its end.
    #[error(
        "storage holds data and would shrink from {from} to {to} bytes; move its volumes to other drives first, or ask for less \
         context memory"
    )]
    StorageWouldShrink {
        /// Bytes now.
        from: u64,
        /// Bytes wanted, 0 for none.
        to: u64,
    },
    /// Storage holds data and would begin elsewhere: the drive was carved with another alignment.
    #[error(
        "storage holds data and would begin at byte {to} instead of {from}; move its volumes to other drives and release the drive \
         to carve it anew"
    )]
    StorageWouldMove {
        /// First byte now.
        from: u64,
        /// First byte wanted.
        to: u64,
    },
}

/// Decides on a changed carve. Context memory is a cache and may go; storage that holds data may only grow in place.
pub fn recarve(current: &Layout, wanted: &Layout, storage_holds_data: bool) -> Recarve {
    if current == wanted {
        return Recarve::Keep;
    }
    match current.storage {
        Some(now) if storage_holds_data => {
            let next = wanted.storage.unwrap_or(Extent {
                start: now.start,
                len: 0,
            });
            if next.len < now.len {
                Recarve::Refused(RecarveRefusal::StorageWouldShrink {
                    from: now.len,
                    to: next.len,
                })
            } else if next.start != now.start {
                Recarve::Refused(RecarveRefusal::StorageWouldMove {
                    from: now.start,
                    to: next.start,
                })
            } else {
                Recarve::Move(*wanted)
            }
        }
        _ => Recarve::Move(*wanted),
    }
}
