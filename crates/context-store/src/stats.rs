//! Counters of one store, as plain numbers.

use std::time::Duration;

use crate::admit::Endurance;
use crate::latency::LatencyStats;
use crate::namespaces::Namespace;

/// Why a put was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// No segment came free in time: everything is hot, leased, pinned or others'.
    NoSpace,
    /// Too many bytes wait to be written.
    Busy,
    /// The endurance budget is tight and the block was put for the first time.
    FirstTouch,
    /// The day's endurance budget is used up.
    Budget,
    /// Its namespace holds more than it may, and what goes for it has not gone yet; or the block is larger than all it may hold.
    Quota,
}

/// What a store has done since it was opened, and how it stands. Counters only grow; all sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Bytes that segments can hold.
    pub capacity: u64,
    /// Bytes of live blocks, and their number.
    pub live_bytes: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Free and all segments.
    pub free_segments: u32,
    /// All segments.
    pub segments: u32,
    /// Bytes of a segment.
    pub segment_len: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Gets that found their block.
    pub hits: u64,
    /// Gets that did not.
    pub misses: u64,
    /// Misses of blocks that EXISTS had granted a lease on.
    pub leased_misses: u64,
    /// Gets that were refused because too much of their namespace waited to be read.
    pub busy: u64,
    /// Bytes given to callers.
    pub bytes_out: u64,
    /// Bytes taken from callers.
    pub bytes_in: u64,
    /// Puts that were taken.
    pub puts: u64,
    /// Puts dropped because no segment came free.
    pub dropped_no_space: u64,
    /// Puts dropped because the write queue was full.
    pub dropped_busy: u64,
    /// Puts dropped by the second-touch rule.
    pub dropped_first_touch: u64,
    /// Puts dropped at the endurance ceiling.
    pub dropped_budget: u64,
    /// Puts dropped because their namespace held more than it may.
    pub dropped_quota: u64,
    /// Blocks deleted by callers.
    pub deleted: u64,
    /// Blocks that made room.
    pub evicted_blocks: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
    /// Blocks that were moved to outlive their segment.
    pub moved_blocks: u64,
    /// Bytes of them.
    pub moved_bytes: u64,
    /// Blocks found expired.
    pub expired: u64,
    /// Blocks whose payload failed its checksum: misses.
    pub payload_mismatches: u64,
    /// Records of the store's own that came back changed: counted against the drive.
    pub corrupt_records: u64,
    /// Bytes TRIMmed.
    pub trimmed_bytes: u64,
    /// Bytes written to the drive, everything included.
    pub device_written: u64,
    /// Bytes read from the drive.
    pub device_read: u64,
    /// Transfers that failed.
    pub device_errors: u64,
    /// Transfers waiting for the drive.
    pub queued: u64,
    /// Bytes of those that somebody waits to read.
    pub queued_read_bytes: u64,
    /// Bytes of those that somebody waits to have written.
    pub queued_write_bytes: u64,
    /// Bytes of those that are the store's own: eviction.
    pub queued_own_bytes: u64,
    /// Transfers that the drive has, and their bytes.
    pub in_flight: u64,
    /// Bytes of them.
    pub in_flight_bytes: u64,
    /// Leases held.
    pub leases: u64,
    /// Blocks pinned.
    pub pins: u64,
    /// How the endurance budget stands.
    pub endurance: Option<Endurance>,
    /// Bytes that the endurance budget lets be written now; none: no limit.
    pub endurance_left: Option<u64>,
    /// `io_uring` or `threads`.
    pub engine: &'static str,
}

impl Stats {
    /// Bytes written to the drive for each byte that was taken; none before the first.
    #[must_use]
    pub fn write_amplification(&self) -> Option<f64> {
        (self.bytes_in > 0).then(|| self.device_written as f64 / self.bytes_in as f64)
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        match reason {
            DropReason::NoSpace => self.dropped_no_space += 1,
            DropReason::Busy => self.dropped_busy += 1,
            DropReason::FirstTouch => self.dropped_first_touch += 1,
            DropReason::Budget => self.dropped_budget += 1,
            DropReason::Quota => self.dropped_quota += 1,
        }
    }
}

/// One namespace's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceStats {
    /// Live blocks.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that it may hold against the others.
    pub share: u64,
    /// What it has done since the store was opened.
    pub counts: NamespaceCounts,
}

/// One namespace's part, with how long what it asked for took.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceReport {
    /// Whose.
    pub namespace: Namespace,
    /// How it stands.
    pub stats: NamespaceStats,
    /// By operation, those that it asked for.
    pub latencies: Vec<LatencyStats>,
}

/// What a namespace has done since it first put a block; only grows, until it is forgotten.
///
/// A namespace that has no block and asks for nothing is forgotten after five to ten minutes, and begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// Gets that found their block.
    pub hits: u64,
    /// Gets that did not.
    pub misses: u64,
    /// Gets that were refused because too much waited to be read.
    pub busy: u64,
    /// Bytes given.
    pub bytes_out: u64,
    /// Puts that were taken.
    pub puts: u64,
    /// Bytes taken.
    pub bytes_in: u64,
    /// Puts dropped because no segment came free.
    pub dropped_no_space: u64,
    /// Puts dropped because too much of its own waited to be written.
    pub dropped_busy: u64,
    /// Puts dropped by the second-touch rule.
    pub dropped_first_touch: u64,
    /// Puts dropped at the endurance ceiling.
    pub dropped_budget: u64,
    /// Puts dropped because their namespace held more than it may.
    pub dropped_quota: u64,
    /// Blocks that made room.
    pub evicted_blocks: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
}

impl NamespaceCounts {
    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        match reason {
            DropReason::NoSpace => self.dropped_no_space += 1,
            DropReason::Busy => self.dropped_busy += 1,
            DropReason::FirstTouch => self.dropped_first_touch += 1,
            DropReason::Budget => self.dropped_budget += 1,
            DropReason::Quota => self.dropped_quota += 1,
        }
    }
}

/// What opening a partition found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The partition was blank and has been formatted.
    pub formatted: bool,
    /// Blocks that are served again.
    pub blocks: u64,
    /// Units whose footer was read.
    pub sealed: u32,
    /// Units that were scanned because they had none.
    pub scanned: u32,
    /// Headers and footers that came back changed: counted against the drive.
    pub corrupt: u32,
    /// How long it took.
    pub took: Duration,
    /// Why io_uring is not used, where it is not.
    pub fallback: Option<String>,
}
