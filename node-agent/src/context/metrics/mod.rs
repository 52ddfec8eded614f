//! Context memory's metrics, read from what serves when they are asked for: nothing is counted twice.

mod namespaces;
mod pods;
mod racks;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};
use strand_context_store::{Endurance, Stats};
use strand_kv_rack::RackStats;

use super::Prefill;
use super::report::{OpenDrive, Shown};

/// A collector over what is open.
#[derive(Clone)]
pub struct ContextMetrics {
    shown: Shown,
    prefill: Option<Prefill>,
}

impl ContextMetrics {
    pub(super) fn new(shown: Shown, prefill: Option<Prefill>) -> Self {
        Self { shown, prefill }
    }
}

impl Collector for ContextMetrics {
    /// None: what there is to show comes and goes with the drives.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let open = self.shown.get();
        let drives = open.drives.iter();
        let drives: Vec<(&str, &OpenDrive, Stats)> = drives
            .filter_map(|(name, drive)| Some((name.as_str(), drive, drive.store.as_ref()?.stats())))
            .collect();
        let by_drive: Vec<(&str, &OpenDrive)> = (drives.iter())
            .map(|(name, drive, _)| (*name, *drive))
            .collect();
        let mut families = Vec::new();
        // Names and words are constants and fit each other; were one wrong, the others would still be shown.
        let racks: Vec<(&str, RackStats)> = (open.pools.iter())
            .map(|pool| (pool.name.as_str(), pool.rack.stats()))
            .collect();
        let all = [
            of_drives(&drives),
            namespaces::of_namespaces(&by_drive, &open.pools),
            pods::of_pods(&open.pools, self.prefill),
            racks::of_racks(&racks),
            racks::of_peers(&racks),
        ];
        for family in all {
            families.extend(family.unwrap_or_default());
        }
        families
    }
}

/// One number of a drive's statistics: its name, what it is, and where it comes from.
type Number = (&'static str, &'static str, fn(&Stats) -> u64);

const COUNTERS: [Number; 18] = [
    (
        "strand_context_hits_total",
        "Gets that found their block.",
        |s| s.hits,
    ),
    (
        "strand_context_misses_total",
        "Gets that did not find a block.",
        |s| s.misses,
    ),
    (
        "strand_context_leased_misses_total",
        "Misses of blocks that an EXISTS had granted a lease on; each may hang a client that trusts EXISTS.",
        |s| s.leased_misses,
    ),
    (
        "strand_context_busy_total",
        "Gets that were refused because too much of their namespace waited for the drive: misses.",
        |s| s.busy,
    ),
    ("strand_context_puts_total", "Blocks taken.", |s| s.puts),
    ("strand_context_in_bytes_total", "Value bytes taken.", |s| {
        s.bytes_in
    }),
    (
        "strand_context_out_bytes_total",
        "Value bytes given.",
        |s| s.bytes_out,
    ),
    (
        "strand_context_deleted_total",
        "Blocks deleted by clients.",
        |s| s.deleted,
    ),
    (
        "strand_context_expired_total",
        "Blocks found expired.",
        |s| s.expired,
    ),
    (
        "strand_context_evicted_blocks_total",
        "Blocks that made room.",
        |s| s.evicted_blocks,
    ),
    (
        "strand_context_evicted_bytes_total",
        "Bytes of blocks that made room.",
        |s| s.evicted_bytes,
    ),
    (
        "strand_context_moved_blocks_total",
        "Blocks that were moved to outlive their segment.",
        |s| s.moved_blocks,
    ),
    (
        "strand_context_moved_bytes_total",
        "Bytes of blocks that were moved to outlive their segment.",
        |s| s.moved_bytes,
    ),
    (
        "strand_context_trimmed_bytes_total",
        "Bytes TRIMmed.",
        |s| s.trimmed_bytes,
    ),
    (
        "strand_context_device_written_bytes_total",
        "Bytes written to the drive, everything included; over strand_context_in_bytes_total it is the write amplification.",
        |s| s.device_written,
    ),
    (
        "strand_context_device_read_bytes_total",
        "Bytes read from the drive.",
        |s| s.device_read,
    ),
    (
        "strand_context_device_errors_total",
        "Transfers that failed.",
        |s| s.device_errors,
    ),
    (
        "strand_context_mismatches_total",
        "Blocks whose bytes failed their checksum: misses, never served.",
        |s| s.payload_mismatches + s.corrupt_records,
    ),
];

const GAUGES: [Number; 10] = [
    (
        "strand_context_capacity_bytes",
        "Bytes that the drive's context memory can hold.",
        |s| s.capacity,
    ),
    ("strand_context_used_bytes", "Bytes of its blocks.", |s| {
        s.live_bytes
    }),
    ("strand_context_blocks", "Its blocks.", |s| s.blocks),
    (
        "strand_context_free_segments",
        "Segments without blocks.",
        |s| u64::from(s.free_segments),
    ),
    ("strand_context_index_bytes", "Memory of the index.", |s| {
        s.index_bytes
    }),
    (
        "strand_context_queued_transfers",
        "Transfers that wait for the drive.",
        |s| s.queued,
    ),
    (
        "strand_context_in_flight_transfers",
        "Transfers that the drive has.",
        |s| s.in_flight,
    ),
    (
        "strand_context_in_flight_bytes",
        "Bytes of the transfers that the drive has.",
        |s| s.in_flight_bytes,
    ),
    ("strand_context_leases", "Leases held on blocks.", |s| {
        s.leases
    }),
    ("strand_context_pins", "Blocks pinned.", |s| s.pins),
];

/// A reason why puts were dropped, and how often.
type Drop = (&'static str, fn(&Stats) -> u64);

const DROPS: [Drop; 5] = [
    ("no_space", |s| s.dropped_no_space),
    ("busy", |s| s.dropped_busy),
    ("first_touch", |s| s.dropped_first_touch),
    ("endurance", |s| s.dropped_budget),
    ("quota", |s| s.dropped_quota),
];

fn of_drives(drives: &[(&str, &OpenDrive, Stats)]) -> prometheus::Result<Vec<MetricFamily>> {
    let labels = ["pool", "drive"];
    let mut families = Vec::new();
    for (name, help, value) in COUNTERS {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (drive, of, stats) in drives {
            family
                .with_label_values(&[of.pool.as_str(), drive])
                .inc_by(value(stats));
        }
        families.extend(family.collect());
    }
    for (name, help, value) in GAUGES {
        let family = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        for (drive, of, stats) in drives {
            let value = i64::try_from(value(stats)).unwrap_or(i64::MAX);
            family
                .with_label_values(&[of.pool.as_str(), drive])
                .set(value);
        }
        families.extend(family.collect());
    }
    let drops = Opts::new(
        "strand_context_dropped_total",
        "Puts that were not taken: later misses.",
    );
    let drops = IntCounterVec::new(drops, &["pool", "drive", "reason"])?;
    let tight = Opts::new(
        "strand_context_endurance",
        "1 for how the day's budget of bytes written stands: ample, tight (blocks are taken on their second put) or spent.",
    );
    let tight = IntGaugeVec::new(tight, &["pool", "drive", "state"])?;
    let queued = Opts::new(
        "strand_context_queued_bytes",
        "Bytes of the transfers that wait for the drive: reads and writes of pods, and the store's own.",
    );
    let queued = IntGaugeVec::new(queued, &["pool", "drive", "class"])?;
    let left = Opts::new(
        "strand_context_endurance_left_bytes",
        "Bytes that the day's budget still lets be written.",
    );
    let left = IntGaugeVec::new(left, &labels)?;
    let amplified = Opts::new(
        "strand_context_write_amplification",
        "Bytes written to the drive for each byte of values taken, since the store was opened.",
    );
    let amplified = GaugeVec::new(amplified, &labels)?;
    let recovery = Opts::new(
        "strand_context_recovery_seconds",
        "Time that reading the drive's blocks back took when it was last opened.",
    );
    let recovery = GaugeVec::new(recovery, &labels)?;
    for (drive, of, stats) in drives {
        let pool = of.pool.as_str();
        for (reason, value) in DROPS {
            drops
                .with_label_values(&[pool, drive, reason])
                .inc_by(value(stats));
        }
        if let Some(state) = stats.endurance.and_then(words) {
            tight.with_label_values(&[pool, drive, state]).set(1);
        }
        let waiting = [
            ("read", stats.queued_read_bytes),
            ("write", stats.queued_write_bytes),
            ("own", stats.queued_own_bytes),
        ];
        for (class, bytes) in waiting {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            queued.with_label_values(&[pool, drive, class]).set(bytes);
        }
        if let Some(bytes) = stats.endurance_left {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            left.with_label_values(&[pool, drive]).set(bytes);
        }
        if let Some(ratio) = stats.write_amplification() {
            amplified.with_label_values(&[pool, drive]).set(ratio);
        }
        if let Some(seconds) = of.recovery_seconds {
            recovery.with_label_values(&[pool, drive]).set(seconds);
        }
    }
    families.extend(drops.collect());
    families.extend(tight.collect());
    families.extend(queued.collect());
    families.extend(left.collect());
    families.extend(amplified.collect());
    families.extend(recovery.collect());
    Ok(families)
}

fn words(endurance: Endurance) -> Option<&'static str> {
    match endurance {
        Endurance::Unlimited => None,
        Endurance::Ample => Some("ample"),
        Endurance::Tight => Some("tight"),
        Endurance::Spent => Some("spent"),
    }
}
