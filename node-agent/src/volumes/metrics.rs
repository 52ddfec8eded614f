//! The volumes' metrics, of what each drive's last pass saw: a scrape waits for no drive. Labels go with their drive and leg.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use strand_volumes::{Drive, LegState, Space, VolumeError};

/// What a pass saw of a drive.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    space: Space,
    legs: Vec<LegState>,
}

impl Seen {
    /// Looks at a drive. Blocks.
    pub(super) fn of(drive: &Drive) -> Result<Seen, VolumeError> {
        Ok(Seen {
            space: drive.space()?,
            legs: drive.legs()?,
        })
    }
}

/// A drive that is served.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) seen: Option<Seen>,
    /// What ails it.
    pub(super) ailment: Option<&'static str>,
    /// What was tried in vain, for the drive's fault, since the agent started.
    pub(super) errors: u64,
    /// Bytes that the drive was told are free, since the agent started.
    pub(super) trimmed: u64,
}

/// A collector over the drives that are served. Clones are the same.
#[derive(Clone)]
pub struct VolumeMetrics {
    drives: Arc<Mutex<BTreeMap<String, Shown>>>,
    desc: Vec<Desc>,
}

impl VolumeMetrics {
    pub(super) fn new() -> Self {
        let (name, help) = ("strand_storage", "Storage sides of drives, and their legs.");
        let desc = Desc::new(name.into(), help.into(), Vec::new(), HashMap::new());
        Self {
            drives: Arc::default(),
            desc: desc.into_iter().collect(),
        }
    }

    /// The drives that are shown, by name of their object.
    pub(super) fn drives(&self) -> MutexGuard<'_, BTreeMap<String, Shown>> {
        self.drives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for VolumeMetrics {
    /// One that stands for all, which come and go with the drives: a registry takes no two collectors that describe nothing.
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let drives = self.drives().clone();
        // Names and words are constants and fit each other; were one wrong, the others would still be shown.
        let all = [of_drives(&drives), of_legs(&drives)];
        all.into_iter()
            .flat_map(Result::unwrap_or_default)
            .collect()
    }
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn of_drives(drives: &BTreeMap<String, Shown>) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let bytes = |name, help| gauge(name, help, &["drive"]);
    let size = bytes(
        "strand_storage_size_bytes",
        "File system of a drive's storage side.",
    )?;
    let free = bytes(
        "strand_storage_free_bytes",
        "What that file system has free.",
    )?;
    let usable = bytes(
        "strand_storage_usable_bytes",
        "What thick legs of a drive can be promised.",
    )?;
    let promised = bytes(
        "strand_storage_promised_bytes",
        "What the legs of a drive are promised; on a thin drive more than it has.",
    )?;
    let legs = gauge(
        "strand_storage_legs",
        "Legs on a drive.",
        &["drive", "kind"],
    )?;
    let attached = bytes(
        "strand_storage_attached_legs",
        "Legs of a drive that are attached.",
    )?;
    let ailing = gauge(
        "strand_storage_ailing",
        "1 while something ails a drive's storage side; the reason as in its legs' condition Healthy.",
        &["drive", "reason"],
    )?;
    let errors = IntCounterVec::new(
        Opts::new(
            "strand_storage_errors_total",
            "What was tried with a drive's legs in vain, for the drive's fault.",
        ),
        &["drive"],
    )?;
    let trimmed = IntCounterVec::new(
        Opts::new(
            "strand_storage_trimmed_bytes_total",
            "Free bytes that a drive was told of.",
        ),
        &["drive"],
    )?;
    for (name, drive) in drives {
        let of = [name.as_str()];
        errors.with_label_values(&of).inc_by(drive.errors);
        trimmed.with_label_values(&of).inc_by(drive.trimmed);
        if let Some(reason) = drive.ailment {
            ailing.with_label_values(&[name.as_str(), reason]).set(1);
        }
        let Some(seen) = &drive.seen else { continue };
        let Space {
            size: all,
            free: left,
            ..
        } = seen.space;
        size.with_label_values(&of).set(signed(all));
        free.with_label_values(&of).set(signed(left));
        usable.with_label_values(&of).set(signed(seen.space.usable));
        promised
            .with_label_values(&of)
            .set(signed(seen.space.promised));
        let of_drive = |kind| legs.with_label_values(&[name.as_str(), kind]);
        for kind in ["volume", "snapshot", "scratch"] {
            of_drive(kind).set(0);
        }
        for leg in &seen.legs {
            of_drive(kind(leg)).inc();
        }
        let used = seen.legs.iter().filter(|leg| leg.record.attached.is_some());
        attached
            .with_label_values(&of)
            .set(signed(used.count() as u64));
    }
    let gauges = [size, free, usable, promised, legs, attached, ailing];
    let counters = [errors, trimmed];
    let gauges = gauges.iter().flat_map(Collector::collect);
    Ok(gauges
        .chain(counters.iter().flat_map(Collector::collect))
        .collect())
}

fn kind(leg: &LegState) -> &'static str {
    match (&leg.record.snapshot, &leg.record.scratch) {
        (Some(_), _) => "snapshot",
        (None, Some(_)) => "scratch",
        (None, None) => "volume",
    }
}

fn of_legs(drives: &BTreeMap<String, Shown>) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let of_leg = |name, help| gauge(name, help, &["drive", "volume", "leg", "kind"]);
    let size = of_leg("strand_leg_size_bytes", "Bytes that a leg's consumer sees.")?;
    let allocated = of_leg(
        "strand_leg_allocated_bytes",
        "Bytes that a leg takes on its drive, those that it shares with others included.",
    )?;
    let attached = of_leg("strand_leg_attached", "1 while a leg is attached.")?;
    for (name, drive) in drives {
        for leg in drive.seen.iter().flat_map(|seen| &seen.legs) {
            let record = &leg.record;
            let labels = [name.as_str(), &record.volume, &record.name, kind(leg)];
            size.with_label_values(&labels).set(signed(record.size));
            allocated
                .with_label_values(&labels)
                .set(signed(leg.allocated));
            attached
                .with_label_values(&labels)
                .set(i64::from(record.attached.is_some()));
        }
    }
    let all = [size, allocated, attached];
    Ok(all.iter().flat_map(Collector::collect).collect())
}
