//! How a store is opened.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::health::HealthCallback;

/// Bytes that a store lives on.
#[derive(Debug)]
pub struct Medium {
    /// A block device or a plain file, open for reading and writing. The store opens it again for itself, with
    /// O_DIRECT where the file system knows it.
    pub file: File,
    /// First byte of the partition; a multiple of 4096.
    pub offset: u64,
    /// Bytes of the partition.
    pub len: u64,
}

/// Tells Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Settings with a reason to differ.
#[derive(Clone)]
pub struct Options {
    /// Bytes that the drive may have in flight. More serves more readers at once and delays each; 32 MiB keeps a drive
    /// of 14 GB/s busy at 2 ms.
    pub depth_bytes: usize,
    /// Transfers that the drive may have in flight.
    pub depth_transfers: usize,
    /// Bytes that may wait to be written before puts are dropped. A namespace may have no more waiting than what is left of
    /// them: alone it gets half, and no flood leaves another without any.
    pub write_queue_bytes: usize,
    /// Bytes that may wait to be read before gets are refused, with 16 KiB more for each transfer. A namespace may have no
    /// more waiting than what is left of them, but always one: alone it gets half, which a drive of 7 GB/s reads in 40 ms.
    pub read_queue_bytes: usize,
    /// Per cent of the partition's segments at which eviction starts; at most 99.
    ///
    /// A segment counts as used from the moment when it is opened until its last block is gone and that is flushed,
    /// however few of its bytes still live, so that these marks bound what puts find free, not what is live. Of 1,024
    /// segments 5 % are 51: at 10 GB/s, a round of eviction of 50 ms takes as many segments of 10 MiB. More is only
    /// capacity given away; less, and puts wait where a round takes long. Where a segment is large against the partition
    /// (few segments, or values that take several) at least four usual units are kept free.
    pub high_watermark: u8,
    /// Per cent at which eviction stops; below the high one.
    pub low_watermark: u8,
    /// How long a put may wait for space before it is dropped.
    pub patience: Duration,
    /// Host bytes that may be written to the drive a day; none: no limit. `driveWritesPerDay` times the drive's size.
    pub daily_write_budget: Option<u64>,
    /// Life of blocks whose put names none.
    pub default_ttl: Option<Duration>,
    /// Bytes a second that are TRIMmed at most; 0: the drive is never told.
    pub trim_rate: u64,
    /// How often what was written is flushed to stable media.
    pub flush_every: Duration,
    /// When a transfer that the drive still has counts as a fault.
    pub stall: Duration,
    /// Told what counts against the drive.
    pub health: HealthCallback,
    /// The wall clock.
    pub clock: Clock,
    /// Uses threads although io_uring may be available.
    pub force_threads: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            depth_bytes: 32 << 20,
            depth_transfers: 256,
            write_queue_bytes: 256 << 20,
            read_queue_bytes: 512 << 20,
            high_watermark: 95,
            low_watermark: 90,
            patience: Duration::from_millis(500),
            daily_write_budget: None,
            default_ttl: None,
            trim_rate: 2 << 30,
            flush_every: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            health: Arc::new(|fault| tracing::warn!(?fault, "context memory drive fault")),
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_millis() as u64)
            }),
            force_threads: false,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("depth_bytes", &self.depth_bytes)
            .field("patience", &self.patience)
            .field("daily_write_budget", &self.daily_write_budget)
            .finish_non_exhaustive()
    }
}
