//! What the endpoint counts, for `/metrics` and `INFO`.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::store::{Connection, Store};

/// The endpoint's counters. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were accepted.
    pub accepted: IntCounter,
    /// Connections that were turned away because there were too many.
    pub turned_away: IntCounter,
    /// Connections closed because the client stopped within a command or an answer.
    pub stalled: IntCounter,
    /// Connections closed because the client did not speak RESP.
    pub protocol_errors: IntCounter,
    /// Commands, by name.
    pub commands: IntCounterVec,
    /// Seconds from a command's first line to its answer, its value's bytes included.
    seconds: HistogramVec,
    /// Values found.
    pub hits: IntCounter,
    /// Values not found, for whatever reason.
    pub misses: IntCounter,
    /// Of those: there was no agent.
    pub misses_agent_away: IntCounter,
    /// Of the misses: the client had been told shortly before that the key exists.
    pub misses_after_exists: IntCounter,
    /// Of the misses: answered with a line of a length that is a guess, for a client that may read fixed lengths.
    pub misses_unknown_length: IntCounter,
    /// Values sent in parts, because they do not fit the arena or have more than 32 MiB.
    pub streamed_out: IntCounter,
    /// Connections closed within a value, because its rest could not be read.
    pub late_failures: IntCounter,
    /// Values stored.
    pub stored: IntCounter,
    /// Values answered with OK and dropped: only later misses.
    pub dropped: IntCounter,
    /// Commands refused with an error.
    pub refused: IntCounter,
    /// Bytes of values sent to clients.
    pub bytes_read: IntCounter,
    /// Bytes of values taken from clients and stored.
    pub bytes_written: IntCounter,
}

/// Whether there is an agent, as a metric that asks when it is read.
pub struct AgentUp<S> {
    store: S,
    up: IntGauge,
}

impl<S: Store> AgentUp<S> {
    /// The metric `strand_kv_endpoint_agent_up`, for a registry.
    ///
    /// # Errors
    /// Never, but its parts say so.
    pub fn new(store: S) -> prometheus::Result<Self> {
        Ok(Self {
            store,
            up: IntGauge::new(
                "strand_kv_endpoint_agent_up",
                "1 while there is an agent behind this endpoint",
            )?,
        })
    }
}

impl<S: Store> Collector for AgentUp<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.up.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let up = matches!(self.store.connection(), Connection::Up { .. });
        self.up.set(up.into());
        self.up.collect()
    }
}

impl Metrics {
    /// Registers everything with `registry`.
    ///
    /// # Errors
    /// If `registry` has metrics of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(format!("strand_kv_endpoint_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let connections = IntGauge::new(
            "strand_kv_endpoint_connections",
            "Connections that are open",
        )?;
        registry.register(Box::new(connections.clone()))?;
        let commands = IntCounterVec::new(
            Opts::new(
                "strand_kv_endpoint_commands_total",
                "Commands of clients, by name",
            ),
            &["command"],
        )?;
        registry.register(Box::new(commands.clone()))?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "strand_kv_endpoint_command_seconds",
                "Time from a command's first line to its answer, the value's bytes included",
            )
            .buckets(vec![
                0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05,
                0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
            &["command"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            connections,
            accepted: counter("connections_accepted_total", "Connections accepted")?,
            turned_away: counter(
                "connections_turned_away_total",
                "Connections closed at once because --max-connections were open",
            )?,
            stalled: counter(
                "connections_stalled_total",
                "Connections closed because the client rested within a command or an answer for --stall-seconds",
            )?,
            protocol_errors: counter(
                "connections_protocol_error_total",
                "Connections closed because the client did not speak RESP",
            )?,
            commands,
            seconds,
            hits: counter("hits_total", "Values found")?,
            misses: counter("misses_total", "Values not found, for whatever reason")?,
            misses_agent_away: counter(
                "misses_agent_away_total",
                "Values not found because there was no agent",
            )?,
            misses_after_exists: counter(
                "misses_after_exists_total",
                "Values not found although EXISTS had said within the lease that they are there",
            )?,
            misses_unknown_length: counter(
                "misses_unknown_length_total",
                "Misses answered with a padded line of guessed length; --chunk-bytes tells it",
            )?,
            streamed_out: counter(
                "values_streamed_total",
                "Values sent in parts: they do not fit the arena, or have more than 32 MiB",
            )?,
            late_failures: counter(
                "late_failures_total",
                "Connections closed within a value whose rest could not be read or verified",
            )?,
            stored: counter("puts_stored_total", "Values stored")?,
            dropped: counter(
                "puts_dropped_total",
                "Values answered with OK and dropped (no agent, no room in time): only later misses",
            )?,
            refused: counter("refused_total", "Commands answered with an error")?,
            bytes_read: counter("read_bytes_total", "Bytes of values sent to clients")?,
            bytes_written: counter("written_bytes_total", "Bytes of values stored")?,
        })
    }

    /// The histogram for a command: `get`, `set`, `exists`, and `other` for the rest.
    pub fn seconds(&self, command: &str) -> Histogram {
        let label = match command {
            "get" | "set" | "exists" | "mget" | "mset" | "del" => command,
            _ => "other",
        };
        self.seconds.with_label_values(&[label])
    }
}
