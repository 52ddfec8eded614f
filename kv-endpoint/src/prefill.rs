//! Seconds of prefill that hits have saved, given what a token takes of the cache and how fast the model computes one.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntCounter};

/// The metric `strand_kv_endpoint_prefill_seconds_saved_total`: bytes read, as time.
pub struct PrefillSaved {
    read: IntCounter,
    seconds_a_byte: f64,
    saved: Counter,
}

impl PrefillSaved {
    /// From the bytes that are read. `token_bytes` is what a token of context takes of the cache, over all layers and, with
    /// tensor parallelism, of the ranks that this endpoint serves; `tokens_a_second` is the rate of prefill.
    ///
    /// # Errors
    /// Never, but its parts say so.
    pub fn new(
        read: IntCounter,
        token_bytes: u64,
        tokens_a_second: f64,
    ) -> prometheus::Result<Self> {
        let saved = Counter::new(
            "strand_kv_endpoint_prefill_seconds_saved_total",
            "Seconds of prefill that hits have saved, at the configured bytes a token and tokens a second",
        )?;
        Ok(Self {
            read,
            seconds_a_byte: 1.0 / (token_bytes as f64 * tokens_a_second),
            saved,
        })
    }
}

impl Collector for PrefillSaved {
    fn desc(&self) -> Vec<&Desc> {
        self.saved.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.read.get() as f64 * self.seconds_a_byte;
        // Two scrapes at once may both find it behind; a counter must not go back.
        self.saved.inc_by((now - self.saved.get()).max(0.0));
        self.saved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_seconds() {
        let read = IntCounter::new("read", "bytes").expect("a name");
        // Llama-3.1-8B: 128 KiB a token; 8,000 tokens a second.
        let saved = PrefillSaved::new(read.clone(), 128 << 10, 8000.0).expect("a name");
        read.inc_by((128 << 10) * 16_000);
        saved.collect();
        saved.collect();
        assert!(
            (saved.saved.get() - 2.0).abs() < 1e-9,
            "{}",
            saved.saved.get()
        );
    }
}
