//! Metrics of drives by namespace, and how long things took.

use prometheus::core::Collector;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use strand_context_store::{LatencyStats, Namespace, NamespaceCounts, NamespaceReport};

use crate::context::report::{OpenDrive, OpenPool};

/// Namespaces of a drive that are shown: those that hold most on it.
const SHOWN: usize = 64;

/// One drive's namespaces.
struct Held<'a> {
    pool: &'a str,
    drive: &'a str,
    /// With their labels.
    namespaces: Vec<(String, NamespaceReport)>,
    transfers: Vec<LatencyStats>,
}

/// One number of a namespace on a drive.
type Number = (&'static str, &'static str, fn(&NamespaceCounts) -> u64);

const COUNTERS: [Number; 6] = [
    (
        "strand_context_namespace_drive_hits_total",
        "Gets of a namespace that found their block on the drive, whichever node's pods asked.",
        |c| c.hits,
    ),
    (
        "strand_context_namespace_drive_misses_total",
        "Gets of a namespace that did not find a block on the drive.",
        |c| c.misses,
    ),
    (
        "strand_context_namespace_drive_in_bytes_total",
        "Value bytes of a namespace that the drive took.",
        |c| c.bytes_in,
    ),
    (
        "strand_context_namespace_drive_out_bytes_total",
        "Value bytes of a namespace that the drive gave.",
        |c| c.bytes_out,
    ),
    (
        "strand_context_namespace_drive_evicted_bytes_total",
        "Bytes of a namespace's blocks that made room on the drive.",
        |c| c.evicted_bytes,
    ),
    (
        "strand_context_namespace_drive_busy_total",
        "Gets that were refused because too much of the namespace waited for the drive.",
        |c| c.busy,
    ),
];

/// A reason why a namespace's puts were dropped, and how often.
type Drop = (&'static str, fn(&NamespaceCounts) -> u64);

const DROPS: [Drop; 5] = [
    ("no_space", |c| c.dropped_no_space),
    ("busy", |c| c.dropped_busy),
    ("first_touch", |c| c.dropped_first_touch),
    ("endurance", |c| c.dropped_budget),
    ("quota", |c| c.dropped_quota),
];

/// The label of a namespace: its name where a pod of it has had its door on this node, else the front of its number.
fn label(namespace: Namespace, pool: Option<&OpenPool>) -> String {
    let name = pool.and_then(|pool| pool.names.get(&namespace));
    name.cloned().unwrap_or_else(|| number(namespace))
}

fn number(namespace: Namespace) -> String {
    format!("{:016x}", namespace.0 >> 64)
}

pub(super) fn of_namespaces(
    drives: &[(&str, &OpenDrive)],
    pools: &[OpenPool],
) -> prometheus::Result<Vec<MetricFamily>> {
    let held: Vec<Held<'_>> = drives
        .iter()
        .filter_map(|(drive, open)| {
            let store = open.store.as_ref()?;
            let pool = pools.iter().find(|pool| pool.name == open.pool);
            let reports = store.largest_namespaces(SHOWN).into_iter();
            Some(Held {
                pool: &open.pool,
                drive,
                namespaces: reports
                    .map(|report| (label(report.namespace, pool), report))
                    .collect(),
                transfers: store.latencies(),
            })
        })
        .collect();
    let mut families = numbers(&held)?;
    families.extend(names(pools)?);
    families.push(histograms(
        "strand_context_operation_seconds",
        "Time that the store took for what a namespace asked of a drive: get (hits), open, chunk, put (taken ones), exists, delete.",
        "operation",
        held.iter().flat_map(|held| {
            held.namespaces.iter().flat_map(move |(label, report)| {
                let all = report.latencies.iter();
                all.map(move |stats| (held, Some(label.as_str()), stats))
            })
        }),
    ));
    families.push(histograms(
        "strand_context_transfer_seconds",
        "Time of a drive's transfers: wait in the queue, then read, write or flush by the drive.",
        "phase",
        held.iter()
            .flat_map(|held| held.transfers.iter().map(move |stats| (held, None, stats))),
    ));
    Ok(families)
}

fn numbers(held: &[Held<'_>]) -> prometheus::Result<Vec<MetricFamily>> {
    let labels = ["pool", "drive", "namespace"];
    let all = || {
        held.iter().flat_map(|held| {
            let spaces = held.namespaces.iter();
            spaces.map(move |(label, report)| ([held.pool, held.drive, label.as_str()], report))
        })
    };
    let mut families = Vec::new();
    for (name, help, value) in COUNTERS {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (labels, report) in all() {
            let value = value(&report.stats.counts);
            family.with_label_values(&labels).inc_by(value);
        }
        families.extend(family.collect());
    }
    let drops = Opts::new(
        "strand_context_namespace_drive_dropped_total",
        "Puts of a namespace that the drive did not take: later misses.",
    );
    let drops = IntCounterVec::new(drops, &["pool", "drive", "namespace", "reason"])?;
    let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &labels);
    let used = gauge(
        "strand_context_namespace_drive_used_bytes",
        "Bytes of a namespace's blocks on the drive.",
    )?;
    let share = gauge(
        "strand_context_namespace_drive_share_bytes",
        "Bytes that a namespace may hold on the drive against the others.",
    )?;
    for (labels, report) in all() {
        let [pool, drive, namespace] = labels;
        for (reason, value) in DROPS {
            let value = value(&report.stats.counts);
            let labels = [pool, drive, namespace, reason];
            drops.with_label_values(&labels).inc_by(value);
        }
        for (family, bytes) in [(&used, report.stats.bytes), (&share, report.stats.share)] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            family.with_label_values(&labels).set(bytes);
        }
    }
    families.extend(drops.collect());
    families.extend(used.collect());
    families.extend(share.collect());
    Ok(families)
}

/// Which number a name has on nodes that know it by that alone.
fn names(pools: &[OpenPool]) -> prometheus::Result<Vec<MetricFamily>> {
    let info = Opts::new(
        "strand_context_namespace_info",
        "Always 1: the number by which nodes without a pod of the namespace show it.",
    );
    let info = IntGaugeVec::new(info, &["pool", "namespace", "number"])?;
    for pool in pools {
        for (namespace, name) in &pool.names {
            let labels = [pool.name.as_str(), name, &number(*namespace)];
            info.with_label_values(&labels).set(1);
        }
    }
    Ok(info.collect())
}

/// A family of histograms by pool, drive, namespace where there is one, and what took so long.
fn histograms<'a>(
    name: &str,
    help: &str,
    what: &str,
    of: impl Iterator<Item = (&'a Held<'a>, Option<&'a str>, &'a LatencyStats)>,
) -> MetricFamily {
    let metrics = of.map(|(held, namespace, stats)| {
        let pairs = [
            ("pool", held.pool),
            ("drive", held.drive),
            (what, stats.what),
        ];
        let mut labels: Vec<LabelPair> = pairs
            .into_iter()
            .chain(namespace.map(|namespace| ("namespace", namespace)))
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.to_owned());
                pair.set_value(value.to_owned());
                pair
            })
            .collect();
        labels.sort();
        let mut metric = Metric::default();
        metric.set_label(labels);
        metric.set_histogram(histogram(stats));
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics.collect());
    family
}

fn histogram(stats: &LatencyStats) -> Histogram {
    let buckets = stats.cumulative().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(stats.count);
    histogram.set_sample_sum(stats.seconds);
    histogram
}
