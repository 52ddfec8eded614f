//! How far a replay is, on standard error.

use super::tally::Tally;
use crate::kv::stat::duration;
use std::{
    io::{IsTerminal, Write, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines of a file, and between two looks of a line on a terminal.
const EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_millis(500)];

/// Tells how far it is, until dropped.
pub async fn tell(tally: &Mutex<Tally>, requests: u64, block_bytes: u64) {
    let started = Instant::now();
    let terminal = stderr().is_terminal();
    let mut interval = tokio::time::interval(EVERY[usize::from(terminal)]);
    interval.tick().await;
    loop {
        interval.tick().await;
        let line = {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            line(&tally, requests, block_bytes, started.elapsed())
        };
        let mut out = stderr().lock();
        // Whoever closed standard error wants to see nothing.
        let _ = match terminal {
            true => write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()),
            false => writeln!(out, "{line}"),
        };
    }
}

/// Ends a line that a terminal shows.
pub fn end() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

fn line(tally: &Tally, requests: u64, block_bytes: u64, passed: Duration) -> String {
    let totals = &tally.totals;
    let moved = totals.bytes_read(block_bytes) + totals.bytes_written(block_bytes);
    let rate = moved as f64 / passed.as_secs_f64().max(0.001) / 1e9;
    let left = match totals.requests {
        0 => "?".into(),
        done => {
            let factor = requests.saturating_sub(done) as f64 / done as f64;
            duration(
                Duration::try_from_secs_f64(passed.as_secs_f64() * factor).unwrap_or(Duration::MAX),
            )
        }
    };
    let wrong = match tally.blocks.wrong {
        0 => String::new(),
        wrong => format!(", {wrong} WRONG BLOCKS"),
    };
    format!(
        "{} of {requests} requests, {:.1} % of blocks hit, {rate:.2} GB/s, {left} left{wrong}",
        totals.requests,
        100.0 * totals.hit_rate()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use strand_traces::{Request, Served};

    #[test]
    fn a_line_tells_requests_hits_speed_and_the_time_left() {
        let mut tally = Tally::default();
        let minute = Duration::from_secs(60);
        assert_eq!(
            line(&tally, 40, 1 << 20, minute),
            "0 of 40 requests, 0.0 % of blocks hit, 0.00 GB/s, ? left"
        );
        let request = Request {
            timestamp_ms: 0,
            input_length: 10_000,
            output_length: 1,
            hash_ids: (0..20_000).collect(),
        };
        tally.totals.add(
            &request,
            Served {
                hit: 5_000,
                written: 15_000,
            },
        );
        tally.blocks.wrong = 2;
        assert_eq!(
            line(&tally, 40, 1 << 20, minute),
            "1 of 40 requests, 25.0 % of blocks hit, 0.35 GB/s, 39 min 0 s left, 2 WRONG BLOCKS"
        );
    }
}
