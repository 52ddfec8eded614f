//! What a replay comes to.

use crate::{Request, Served};

/// Sums over the requests of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests served.
    pub requests: u64,
    /// Blocks in their prompts.
    pub blocks_asked: u64,
    /// Blocks of their leading runs: read instead of recomputed.
    pub blocks_hit: u64,
    /// Blocks written.
    pub blocks_written: u64,
    /// Tokens in their prompts.
    pub tokens_asked: u64,
    /// Tokens in the blocks hit.
    pub tokens_hit: u64,
    /// Milliseconds of the trace from its first request to its last.
    pub span_ms: u64,
    first_ms: Option<u64>,
}

impl Totals {
    /// Adds a request and how it was served.
    pub fn add(&mut self, request: &Request, served: Served) {
        let first = *self.first_ms.get_or_insert(request.timestamp_ms);
        self.span_ms = self.span_ms.max(request.timestamp_ms.saturating_sub(first));
        self.requests += 1;
        self.blocks_asked += request.hash_ids.len() as u64;
        self.blocks_hit += served.hit as u64;
        self.blocks_written += served.written as u64;
        self.tokens_asked += request.input_length;
        self.tokens_hit += request.tokens_in(served.hit);
    }

    /// Blocks hit of blocks asked, 0 to 1; 0 of none.
    pub fn hit_rate(&self) -> f64 {
        ratio(self.blocks_hit, self.blocks_asked)
    }

    /// Bytes read, with blocks of that many bytes.
    pub fn bytes_read(&self, block_bytes: u64) -> u64 {
        self.blocks_hit.saturating_mul(block_bytes)
    }

    /// Bytes written, with blocks of that many bytes.
    pub fn bytes_written(&self, block_bytes: u64) -> u64 {
        self.blocks_written.saturating_mul(block_bytes)
    }

    /// Seconds of prefill that the hits saved, on a server that computes so many prompt tokens a second.
    pub fn prefill_seconds_saved(&self, tokens_per_second: f64) -> f64 {
        self.tokens_hit as f64 / tokens_per_second
    }

    /// Seconds of the trace from its first request to its last.
    pub fn span_seconds(&self) -> f64 {
        self.span_ms as f64 / 1000.0
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}
