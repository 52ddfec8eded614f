//! One request of a trace.

/// Tokens in one block of a trace (Mooncake's traces, FAST '25 release).
pub const BLOCK_TOKENS: u64 = 512;

/// One request, in the form of Mooncake's public traces: one JSON object a line
/// (<https://github.com/kvcache-ai/Mooncake>, `FAST25-release/traces`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrives, in milliseconds since the trace began.
    pub timestamp_ms: u64,
    /// Tokens of its prompt.
    pub input_length: u64,
    /// Tokens it generates.
    pub output_length: u64,
    /// The prompt's blocks of [`BLOCK_TOKENS`] tokens, in order; the last one may be partly filled. An id stands for
    /// a block's tokens and all before it, so that equal ids are equal prefixes.
    pub hash_ids: Vec<u64>,
}

impl Request {
    /// The request as a line of a trace, without the line's end.
    pub fn to_line(&self) -> String {
        let ids: Vec<String> = self.hash_ids.iter().map(u64::to_string).collect();
        format!(
            "{{\"timestamp\": {}, \"input_length\": {}, \"output_length\": {}, \"hash_ids\": [{}]}}",
            self.timestamp_ms,
            self.input_length,
            self.output_length,
            ids.join(", ")
        )
    }

    /// Tokens of the prompt in its first `blocks` blocks.
    pub fn tokens_in(&self, blocks: usize) -> u64 {
        (blocks as u64)
            .saturating_mul(BLOCK_TOKENS)
            .min(self.input_length)
    }
}
