//! Figures of storage.

use crate::observe::Snapshot;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::{collections::BTreeMap, time::Duration};
use strand_api::PoolVolume;

/// Metrics of the storage loop.
#[derive(Clone)]
pub struct VolumeMetrics {
    pass: Histogram,
    actions: IntCounterVec,
    volumes: IntGaugeVec,
    legs: IntGaugeVec,
    snapshots: IntGaugeVec,
    lacking: IntGaugeVec,
    copied: IntGaugeVec,
}

impl VolumeMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If the registry has metrics of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            pass: Histogram::with_opts(
                HistogramOpts::new(
                    "strand_operator_storage_plan_seconds",
                    "Time to decide what to do with volumes, over all objects",
                )
                .buckets(prometheus::exponential_buckets(0.0005, 4.0, 8)?),
            )?,
            actions: IntCounterVec::new(
                Opts::new(
                    "strand_operator_storage_actions_total",
                    "Actions on volumes, legs and snapshots, by kind and result",
                ),
                &["kind", "result"],
            )?,
            volumes: gauge(
                "strand_volumes",
                "Volumes, by pool and phase",
                &["pool", "phase"],
            )?,
            legs: gauge("strand_legs", "Legs, by phase", &["phase"])?,
            snapshots: gauge(
                "strand_volume_snapshots",
                "Snapshots, by whether volumes can be made from them",
                &["ready"],
            )?,
            lacking: gauge(
                "strand_volume_legs_lacking",
                "Legs of volumes with redundancy that lack writes, by pool and what becomes of them (Out, Returning, Rebuilding)",
                &["pool", "phase"],
            )?,
            copied: gauge(
                "strand_volume_leg_copied_percent",
                "How far copying to a leg that lacks writes is, in tens of percent",
                &["volume", "leg"],
            )?,
        };
        registry.register(Box::new(metrics.pass.clone()))?;
        registry.register(Box::new(metrics.actions.clone()))?;
        registry.register(Box::new(metrics.volumes.clone()))?;
        registry.register(Box::new(metrics.legs.clone()))?;
        registry.register(Box::new(metrics.snapshots.clone()))?;
        registry.register(Box::new(metrics.lacking.clone()))?;
        registry.register(Box::new(metrics.copied.clone()))?;
        Ok(metrics)
    }

    /// A pass over all objects was made.
    pub(super) fn observe(&self, seen: &Snapshot, took: Duration) {
        self.pass.observe(took.as_secs_f64());
        let storage = seen.storage();
        let mut volumes: BTreeMap<(&str, String), i64> = BTreeMap::new();
        for volume in &storage.volumes {
            let phase = volume.status.as_ref().and_then(|s| s.phase);
            let phase = phase.map_or("Pending".into(), |phase| format!("{phase:?}"));
            *volumes.entry((&volume.spec.pool, phase)).or_default() += 1;
        }
        self.volumes.reset();
        for ((pool, phase), count) in volumes {
            self.volumes.with_label_values(&[pool, &phase]).set(count);
        }
        let mut legs: BTreeMap<String, i64> = BTreeMap::new();
        for leg in &storage.legs {
            let phase = leg.status.as_ref().and_then(|s| s.phase);
            let phase = phase.map_or("Pending".into(), |phase| format!("{phase:?}"));
            *legs.entry(phase).or_default() += 1;
        }
        self.legs.reset();
        for (phase, count) in legs {
            self.legs.with_label_values(&[&phase]).set(count);
        }
        self.lacking.reset();
        self.copied.reset();
        for volume in &storage.volumes {
            self.observe_legs(volume);
        }
        self.snapshots.reset();
        for snapshot in &storage.snapshots {
            let ready = snapshot.status.as_ref().is_some_and(|s| s.ready_to_use);
            let ready = if ready { "true" } else { "false" };
            self.snapshots.with_label_values(&[ready]).inc();
        }
    }

    fn observe_legs(&self, volume: &PoolVolume) {
        let told = volume.status.as_ref().and_then(|s| s.array.as_ref());
        for leg in &volume.spec.legs {
            let Some(lack) = &leg.lack else { continue };
            let phase = format!("{:?}", lack.phase);
            let labels = [volume.spec.pool.as_str(), &phase];
            self.lacking.with_label_values(&labels).inc();
            let mut told = told.iter().flat_map(|array| &array.legs);
            let told = told.find(|told| Some(&told.uuid) == leg.uuid.as_ref());
            if let Some(percent) = told.and_then(|told| told.percent) {
                let labels = [
                    volume.metadata.name.as_deref().unwrap_or_default(),
                    &leg.name,
                ];
                self.copied.with_label_values(&labels).set(percent);
            }
        }
    }

    /// An action was carried out, or not.
    pub(super) fn acted(&self, kind: &str, result: &str) {
        self.actions.with_label_values(&[kind, result]).inc();
    }
}
