//! Reading a trace, a line at a time.

use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::Request;

/// The longest line, in bytes: a prompt of a million tokens has 2,000 ids, some 40 KB.
const LONGEST: u64 = 16 << 20;

/// Why a trace cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file itself.
    #[error("line {line} cannot be read: {source}; check the file and its medium")]
    Read {
        /// Number of the line, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// No request on that line.
    #[error(
        "line {line} is no request: {why}; each line must be one JSON object like {{\"timestamp\": 3000, \
         \"input_length\": 1024, \"output_length\": 100, \"hash_ids\": [0, 17]}}"
    )]
    Malformed {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Requests go back in time.
    #[error(
        "line {line} is out of order: its timestamp is {now} ms, after one of {before} ms; sort the lines by timestamp"
    )]
    OutOfOrder {
        /// Number of the line, from 1.
        line: u64,
        /// Its timestamp.
        now: u64,
        /// The timestamp before it.
        before: u64,
    },
}

/// The requests of a trace, in order of time. Holds one line at a time; ends after the first error. Empty lines are
/// passed over.
#[derive(Debug)]
pub struct Requests<R> {
    input: R,
    line: u64,
    latest_ms: u64,
    buffer: Vec<u8>,
    ended: bool,
}

/// A line. Timestamps may have a fraction: other tools write them so.
#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

impl<R: BufRead> Requests<R> {
    /// The requests in `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            line: 0,
            latest_ms: 0,
            buffer: Vec::new(),
            ended: false,
        }
    }

    fn read(&mut self) -> Result<Option<Request>, TraceError> {
        loop {
            self.line += 1;
            self.buffer.clear();
            let line = self.line;
            let read = (&mut self.input)
                .take(LONGEST)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| TraceError::Read { line, source })?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LONGEST && !self.buffer.ends_with(b"\n") {
                return Err(self.malformed(format!("it has more than {} MiB", LONGEST >> 20)));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return self.parse().map(Some);
            }
        }
    }

    fn parse(&mut self) -> Result<Request, TraceError> {
        let line: Line = serde_json::from_slice(self.buffer.trim_ascii()).map_err(|error| {
            let text = error.to_string();
            // The parser's own "line 1" would be taken for the trace's.
            let what = text.split(" at line ").next().unwrap_or_default();
            self.malformed(format!("{what} (column {})", error.column()))
        })?;
        if !(0.0..=9e15).contains(&line.timestamp) {
            return Err(self.malformed(format!("timestamp is {}", line.timestamp)));
        }
        let request = Request {
            timestamp_ms: line.timestamp as u64,
            input_length: line.input_length,
            output_length: line.output_length,
            hash_ids: line.hash_ids,
        };
        if request.timestamp_ms < self.latest_ms {
            return Err(TraceError::OutOfOrder {
                line: self.line,
                now: request.timestamp_ms,
                before: self.latest_ms,
            });
        }
        self.latest_ms = request.timestamp_ms;
        Ok(request)
    }

    fn malformed(&self, why: String) -> TraceError {
        TraceError::Malformed {
            line: self.line,
            why,
        }
    }
}

impl<R: BufRead> Iterator for Requests<R> {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
