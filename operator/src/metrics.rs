//! The operator's own figures.

use crate::observe::Snapshot;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::{collections::BTreeMap, time::Duration};

/// Metrics of one operator.
#[derive(Clone)]
pub struct Metrics {
    leader: IntGauge,
    pass: Histogram,
    actions: IntCounterVec,
    drives: IntGaugeVec,
    epoch: IntGaugeVec,
    map_bytes: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// If the registry has metrics of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            leader: IntGauge::new(
                "strand_operator_leader",
                "1 while this process holds the lease",
            )?,
            pass: Histogram::with_opts(
                HistogramOpts::new(
                    "strand_operator_plan_seconds",
                    "Time to decide what to do, over all objects",
                )
                .buckets(prometheus::exponential_buckets(0.0005, 4.0, 8)?),
            )?,
            actions: IntCounterVec::new(
                Opts::new(
                    "strand_operator_actions_total",
                    "Actions carried out, by kind and result",
                ),
                &["kind", "result"],
            )?,
            drives: IntGaugeVec::new(
                Opts::new("strand_drives", "Drives, by pool and phase"),
                &["pool", "phase"],
            )?,
            epoch: IntGaugeVec::new(
                Opts::new("strand_pool_map_epoch", "Epoch of the published map"),
                &["pool"],
            )?,
            map_bytes: IntGaugeVec::new(
                Opts::new("strand_pool_map_bytes", "Size of the published map as JSON"),
                &["pool"],
            )?,
        };
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.pass.clone()))?;
        registry.register(Box::new(metrics.actions.clone()))?;
        registry.register(Box::new(metrics.drives.clone()))?;
        registry.register(Box::new(metrics.epoch.clone()))?;
        registry.register(Box::new(metrics.map_bytes.clone()))?;
        Ok(metrics)
    }

    /// This process holds the lease from now on.
    pub fn leads(&self) {
        self.leader.set(1);
    }

    /// A pass over all objects was made.
    pub fn observe(&self, seen: &Snapshot, took: Duration) {
        self.pass.observe(took.as_secs_f64());
        let mut counts: BTreeMap<(&str, String), i64> = BTreeMap::new();
        for drive in seen.drives() {
            let phase = drive.status.as_ref().and_then(|s| s.phase);
            let phase = phase.map_or("Unjudged".into(), |phase| format!("{phase:?}"));
            *counts
                .entry((drive.spec.pool.as_deref().unwrap_or(""), phase))
                .or_default() += 1;
        }
        self.drives.reset();
        for ((pool, phase), count) in counts {
            self.drives
                .with_label_values(&[pool, phase.as_str()])
                .set(count);
        }
    }

    /// An action was carried out, or not.
    pub fn acted(&self, kind: &str, result: &str) {
        self.actions.with_label_values(&[kind, result]).inc();
    }

    /// A map was published.
    pub fn published(&self, pool: &str, epoch: i64, bytes: usize) {
        self.epoch.with_label_values(&[pool]).set(epoch);
        self.map_bytes.with_label_values(&[pool]).set(bytes as i64);
    }
}
