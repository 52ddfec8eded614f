//! Metrics of pods' doors, and of the namespaces that they serve.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Opts};
use strand_kv_door::{DoorStats, families};

use crate::context::Prefill;
use crate::context::report::OpenPool;

pub(super) fn of_pods(
    pools: &[OpenPool],
    prefill: Option<Prefill>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let stats: Vec<(&OpenPool, DoorStats)> =
        pools.iter().map(|pool| (pool, pool.node.stats())).collect();
    let doors = Opts::new("strand_context_doors", "Pods' doors on this node.");
    let doors = IntGaugeVec::new(doors, &["pool"])?;
    for pool in pools {
        let open = i64::try_from(pool.doors).unwrap_or(i64::MAX);
        doors.with_label_values(&[pool.name.as_str()]).set(open);
    }
    let mut all = doors.collect();
    all.extend(of_namespaces(&stats)?);
    if let Some(prefill) = prefill {
        all.extend(saved(&stats, prefill)?);
    }
    let by_name: Vec<(&str, DoorStats)> = stats
        .into_iter()
        .map(|(pool, stats)| (pool.name.as_str(), stats))
        .collect();
    all.extend(families(&by_name));
    Ok(all)
}

/// What the hits of each namespace's pods were worth.
fn saved(
    pools: &[(&OpenPool, DoorStats)],
    prefill: Prefill,
) -> prometheus::Result<Vec<MetricFamily>> {
    let seconds = Opts::new(
        "strand_context_prefill_seconds_saved_total",
        "Seconds of prefill that hits of a namespace's pods on this node have saved, at the configured bytes a token and tokens a second.",
    );
    let seconds = CounterVec::new(seconds, &["pool", "namespace"])?;
    for (pool, stats) in pools {
        for (number, meter) in &stats.namespaces {
            if let Some(namespace) = pool.namespaces.get(number) {
                let labels = [pool.name.as_str(), namespace.as_str()];
                let saved = prefill.seconds(meter.read_bytes);
                seconds.with_label_values(&labels).inc_by(saved);
            }
        }
    }
    Ok(seconds.collect())
}

/// By name, where a pod of the namespace has its door here now.
fn of_namespaces(pools: &[(&OpenPool, DoorStats)]) -> prometheus::Result<Vec<MetricFamily>> {
    let counter = |name, help, more: &[&str]| {
        let labels = [&["pool", "namespace"], more].concat();
        IntCounterVec::new(Opts::new(name, help), &labels)
    };
    let requests = counter(
        "strand_context_namespace_requests_total",
        "Requests of a namespace's pods on this node, by operation and outcome.",
        &["operation", "outcome"],
    )?;
    let read = counter(
        "strand_context_namespace_read_bytes_total",
        "Value bytes read by a namespace's pods on this node.",
        &[],
    )?;
    let written = counter(
        "strand_context_namespace_written_bytes_total",
        "Value bytes stored by a namespace's pods on this node.",
        &[],
    )?;
    for (pool, stats) in pools {
        for (number, meter) in &stats.namespaces {
            let Some(namespace) = pool.namespaces.get(number) else {
                continue;
            };
            let labels = [pool.name.as_str(), namespace.as_str()];
            read.with_label_values(&labels).inc_by(meter.read_bytes);
            written
                .with_label_values(&labels)
                .inc_by(meter.written_bytes);
            for operation in &meter.operations {
                for (outcome, count) in operation.by_outcome() {
                    let labels = [labels[0], labels[1], operation.operation, outcome];
                    requests.with_label_values(&labels).inc_by(count);
                }
            }
        }
    }
    let all = [requests, read, written];
    Ok(all.iter().flat_map(Collector::collect).collect())
}
