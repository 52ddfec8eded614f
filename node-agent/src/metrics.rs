//! The agent's metrics, in a registry of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry,
};
use strand_placement::verdict::Health;

/// Verdict and phase of a drive, as words.
pub type Standing = (String, String);

/// The agent's metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    drives: IntGaugeVec,
    judge: Histogram,
    carve: Histogram,
    writes: IntCounterVec,
    scans: IntCounter,
    watch_errors: IntCounter,
    temperature: GaugeVec,
    used: GaugeVec,
    written: GaugeVec,
    media_errors: GaugeVec,
    map_epoch: IntGaugeVec,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// Only where two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let of_drive = |name, help| GaugeVec::new(Opts::new(name, help), &["drive"]);
        let seconds = |name, help, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let metrics = Self {
            drives: IntGaugeVec::new(
                Opts::new("strand_drives", "Drives of this node by verdict and phase."),
                &["verdict", "phase"],
            )?,
            judge: seconds(
                "strand_judge_seconds",
                "Time to look at a drive before it is judged.",
                &[0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0],
            )?,
            carve: seconds(
                "strand_carve_seconds",
                "Time to carve a drive, to change its carve or to take it back.",
                &[0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0],
            )?,
            writes: IntCounterVec::new(
                Opts::new(
                    "strand_api_writes_total",
                    "Writes to the Kubernetes API by kind and result.",
                ),
                &["kind", "result"],
            )?,
            scans: IntCounter::new(
                "strand_scans_total",
                "Times that this node was looked over for drives.",
            )?,
            watch_errors: IntCounter::new(
                "strand_api_watch_errors_total",
                "Times that a watch on the Kubernetes API failed and was begun again.",
            )?,
            temperature: of_drive(
                "strand_drive_temperature_celsius",
                "Composite temperature of a drive.",
            )?,
            used: of_drive(
                "strand_drive_endurance_used_percent",
                "Rated endurance used; goes beyond 100.",
            )?,
            written: of_drive(
                "strand_drive_written_bytes",
                "Bytes that the host has written in the drive's life.",
            )?,
            media_errors: of_drive(
                "strand_drive_media_errors",
                "Unrecovered data integrity errors of a drive.",
            )?,
            map_epoch: IntGaugeVec::new(
                Opts::new(
                    "strand_pool_map_epoch",
                    "Epoch of the pool map that this agent has.",
                ),
                &["pool"],
            )?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let info = Opts::new("strand_build_info", "Always 1; the version is a label.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("process", "node-agent");
        let info = Gauge::with_opts(info)?;
        info.set(1.0);
        let all: [Box<dyn prometheus::core::Collector>; 12] = [
            Box::new(info),
            Box::new(self.drives.clone()),
            Box::new(self.judge.clone()),
            Box::new(self.carve.clone()),
            Box::new(self.writes.clone()),
            Box::new(self.scans.clone()),
            Box::new(self.watch_errors.clone()),
            Box::new(self.temperature.clone()),
            Box::new(self.used.clone()),
            Box::new(self.written.clone()),
            Box::new(self.media_errors.clone()),
            Box::new(self.map_epoch.clone()),
        ];
        all.into_iter()
            .try_for_each(|metric| self.registry.register(metric))
    }

    /// The registry that `/metrics` shows.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A drive was looked at.
    pub fn judged(&self, took: Duration) {
        self.judge.observe(took.as_secs_f64());
    }

    /// A drive was carved or taken back.
    pub fn carved(&self, took: Duration) {
        self.carve.observe(took.as_secs_f64());
    }

    /// The machine was scanned.
    pub fn scanned(&self) {
        self.scans.inc();
    }

    /// A watch failed.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// A write to the API ended.
    pub fn wrote(&self, kind: &str, done: bool) {
        let result = if done { "ok" } else { "error" };
        self.writes.with_label_values(&[kind, result]).inc();
    }

    /// The agent has a map of this epoch.
    pub fn map(&self, pool: &str, epoch: i64) {
        self.map_epoch.with_label_values(&[pool]).set(epoch);
    }

    /// Shows how many drives stand how; `before` is what was shown last.
    pub fn drives(&self, before: &BTreeMap<Standing, i64>, standing: &BTreeMap<Standing, i64>) {
        for (verdict, phase) in before.keys().filter(|key| !standing.contains_key(*key)) {
            // Only an unknown series cannot be removed, and then there is nothing to remove.
            let _ = self.drives.remove_label_values(&[verdict, phase]);
        }
        for ((verdict, phase), count) in standing {
            self.drives.with_label_values(&[verdict, phase]).set(*count);
        }
    }

    /// Shows what a drive's SMART log says.
    pub fn health(&self, drive: &str, health: &Health) {
        let Health::Smart(smart) = health else {
            return;
        };
        let set = |gauge: &GaugeVec, value| gauge.with_label_values(&[drive]).set(value);
        set(&self.temperature, f64::from(smart.temperature_celsius));
        set(&self.used, f64::from(smart.used_percent));
        set(&self.written, smart.written_bytes as f64);
        set(&self.media_errors, smart.media_errors as f64);
    }

    /// Takes away what was shown of a drive that is no longer there.
    pub fn forget(&self, drive: &str) {
        for gauge in [
            &self.temperature,
            &self.used,
            &self.written,
            &self.media_errors,
        ] {
            // A drive without a SMART log has no series.
            let _ = gauge.remove_label_values(&[drive]);
        }
    }
}
