//! A node's figures as Prometheus takes them.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::meter::{OperationStats, bound};
use crate::node::DoorStats;

/// The metrics of the doors of several pools, each with its name: families `strand_context_door_…`, label `pool`.
pub fn families(pools: &[(&str, DoorStats)]) -> Vec<MetricFamily> {
    let gauges: [Number; 5] = [
        ("sessions", "Sessions that are open.", |s| {
            s.usage.sessions as u64
        }),
        ("requests", "Requests that were not answered yet.", |s| {
            s.usage.requests as u64
        }),
        (
            "leases",
            "Values in arenas that pods have not released.",
            |s| s.usage.leases as u64,
        ),
        ("streams", "Values on their way in parts.", |s| {
            s.usage.streams as u64
        }),
        ("arena_bytes", "Arena bytes of this pool's pods.", |s| {
            s.arena_bytes as u64
        }),
    ];
    let counters: [Number; 4] = [
        ("sessions_total", "Sessions that were opened.", |s| s.opened),
        (
            "sessions_refused_total",
            "Sessions that were refused.",
            |s| s.refused,
        ),
        ("read_bytes_total", "Value bytes read.", |s| {
            s.total.read_bytes
        }),
        ("written_bytes_total", "Value bytes stored.", |s| {
            s.total.written_bytes
        }),
    ];
    let mut all = Vec::new();
    for (name, help, value) in gauges {
        let metrics = pools.iter().map(|(pool, stats)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value(stats) as f64);
            let mut metric = Metric::from_gauge(gauge);
            metric.set_label(labels(&[("pool", pool)]));
            metric
        });
        all.push(family(name, help, MetricType::GAUGE, metrics.collect()));
    }
    for (name, help, value) in counters {
        let metrics = pools
            .iter()
            .map(|(pool, stats)| count(&[("pool", pool)], value(stats)));
        all.push(family(name, help, MetricType::COUNTER, metrics.collect()));
    }
    let operations = || {
        pools.iter().flat_map(|(pool, stats)| {
            stats
                .total
                .operations
                .iter()
                .filter(|of| of.count() > 0)
                .map(move |of| (*pool, of))
        })
    };
    let outcomes = operations().flat_map(|(pool, of)| {
        let counted = of.by_outcome().filter(|(_, count)| *count > 0);
        counted.map(move |(outcome, value)| {
            let labels = [
                ("pool", pool),
                ("operation", of.operation),
                ("outcome", outcome),
            ];
            count(&labels, value)
        })
    });
    all.push(family(
        "requests_total",
        "Requests that were answered, by operation and outcome.",
        MetricType::COUNTER,
        outcomes.collect(),
    ));
    all.push(family(
        "seconds",
        "From a request's arrival to its answer.",
        MetricType::HISTOGRAM,
        operations().map(|(pool, of)| histogram(pool, of)).collect(),
    ));
    all
}

/// A number of a pool's doors: its name, what it is, where it stands.
type Number = (&'static str, &'static str, fn(&DoorStats) -> u64);

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("strand_context_door_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut labels: Vec<LabelPair> = pairs.iter().map(pair).collect();
    labels.sort();
    labels
}

fn count(pairs: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn histogram(pool: &str, of: &OperationStats) -> Metric {
    let mut seen = 0;
    let buckets = of.buckets.iter().enumerate().map(|(at, count)| {
        seen += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound(at) as f64 / 1e6);
        bucket.set_cumulative_count(seen);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(of.count());
    histogram.set_sample_sum(of.seconds);
    let mut metric = Metric::default();
    metric.set_label(labels(&[("pool", pool), ("operation", of.operation)]));
    metric.set_histogram(histogram);
    metric
}
