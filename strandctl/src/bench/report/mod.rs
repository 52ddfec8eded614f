//! What a replay came to, for people and for programs.

#[cfg(test)]
mod tests;
mod text;

use crate::bench::{
    feed::{Speed, Survey},
    tally::{Percentiles, Tally},
};
use anyhow::{Result, bail};
use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Serialize;
use std::time::Duration;
use strand_api::ByteQuantity;
use strand_traces::{Endurance, Totals, Wear};

/// The drives that take the writes.
#[derive(Clone, Copy, Debug)]
pub struct Drive {
    bytes: u64,
    endurance: Endurance,
}

impl Drive {
    /// Of so many bytes, that may be written `dwpd` times a day for `years`, or with `tbw` bytes in all.
    pub fn new(bytes: u64, dwpd: f64, years: f64, tbw: Option<ByteQuantity>) -> Result<Self> {
        if bytes == 0 {
            bail!("--capacity and --drive-bytes must be above 0");
        }
        for (flag, value) in [("--dwpd", dwpd), ("--years", years)] {
            if !(value.is_finite() && value > 0.0) {
                bail!("{flag} is {value}; it must be above 0");
            }
        }
        let by_days = Endurance::DriveWritesPerDay {
            writes: dwpd,
            years,
        };
        Ok(Self {
            bytes,
            endurance: tbw.map_or(by_days, |tbw| Endurance::Bytes(tbw.0 as f64)),
        })
    }
}

/// What is known when a replay has ended.
pub struct Run<'a> {
    /// Where it went.
    pub through: Vec<String>,
    /// Clients at once.
    pub clients: u64,
    /// How fast it was meant to go.
    pub speed: Speed,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was ended before the trace was.
    pub interrupted: bool,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Bytes of the reference.
    pub capacity: u64,
    /// Prompt tokens a second.
    pub prefill_rate: f64,
    /// What the writes wear out.
    pub drive: Drive,
    /// When they begin to.
    pub today: Timestamp,
    /// The trace.
    pub survey: &'a Survey,
    /// What the reference made of the requests.
    pub reference: Totals,
    /// How late a request was at most.
    pub latest: Duration,
    /// What was seen.
    pub tally: Tally,
}

/// The report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    trace: Trace,
    through: Vec<String>,
    clients: u64,
    speed: String,
    seconds: f64,
    /// Ctrl-C ended it before the trace did.
    interrupted: bool,
    block_bytes: u64,
    served: Sums,
    /// The LRU of `capacity_bytes` over the same requests.
    lru: Sums,
    /// A cache without end over the whole trace.
    endless: Sums,
    capacity_bytes: u64,
    /// Hits of those of the LRU; none: it had none.
    hits_of_lru: Option<f64>,
    /// Bytes sent to be written, of those that the LRU would write; none: it would write none.
    written_of_lru: Option<f64>,
    latency_milliseconds: Latency,
    /// How late a request was sent at most, because all clients were busy.
    latest_seconds: f64,
    blocks_right: u64,
    blocks_wrong: u64,
    bytes_wrong: u64,
    /// Promised by a lookup, missed by the get after it.
    blocks_lost: u64,
    /// Writes that were dropped.
    writes_dropped: u64,
    prefill_tokens_per_second: f64,
    prefill_seconds_saved: f64,
    wear: Option<Worn>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    file: String,
    requests: u64,
    span_seconds: f64,
    different_blocks: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    requests: u64,
    blocks_asked: u64,
    blocks_hit: u64,
    hit_rate: f64,
    bytes_read: u64,
    bytes_written: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    lookup: Percentiles,
    get: Percentiles,
    set: Percentiles,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worn {
    drive_bytes: u64,
    rated_bytes: u64,
    drive_writes_per_day: f64,
    /// The day; none: in more than a hundred years.
    worn_out_on: Option<String>,
}

impl Sums {
    fn of(totals: &Totals, block_bytes: u64) -> Self {
        Self {
            requests: totals.requests,
            blocks_asked: totals.blocks_asked,
            blocks_hit: totals.blocks_hit,
            hit_rate: totals.hit_rate(),
            bytes_read: totals.bytes_read(block_bytes),
            bytes_written: totals.bytes_written(block_bytes),
        }
    }
}

impl Worn {
    /// At the speed of the trace, whatever that of the replay was.
    fn of(run: &Run) -> Option<Self> {
        let Drive { bytes, endurance } = run.drive;
        let totals = &run.tally.totals;
        let written = totals.bytes_written(run.block_bytes);
        let wear = Wear::of(written, totals.span_seconds(), bytes, endurance)?;
        let days = wear.days_to_wear_out;
        let on = (days < 36_525.0).then(|| {
            let then = run.today + SignedDuration::from_hours((days * 24.0) as i64);
            then.to_zoned(TimeZone::UTC).date().to_string()
        });
        Some(Self {
            drive_bytes: bytes,
            rated_bytes: endurance.bytes(bytes) as u64,
            drive_writes_per_day: wear.drive_writes_per_day,
            worn_out_on: on,
        })
    }
}

impl Report {
    /// Of a replay.
    pub fn of(run: Run) -> Self {
        let sums = |totals: &Totals| Sums::of(totals, run.block_bytes);
        let (totals, blocks) = (&run.tally.totals, &run.tally.blocks);
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        Self {
            trace: Trace {
                file: run.survey.file.display().to_string(),
                requests: run.survey.endless.requests,
                span_seconds: run.survey.endless.span_seconds(),
                different_blocks: run.survey.blocks,
            },
            clients: run.clients,
            speed: run.speed.to_string(),
            seconds: run.seconds,
            interrupted: run.interrupted,
            block_bytes: run.block_bytes,
            served: sums(totals),
            lru: sums(&run.reference),
            endless: sums(&run.survey.endless),
            capacity_bytes: run.capacity,
            hits_of_lru: ratio(totals.blocks_hit, run.reference.blocks_hit),
            written_of_lru: ratio(totals.blocks_written, run.reference.blocks_written),
            latency_milliseconds: Latency {
                lookup: blocks.lookups.clone().percentiles(),
                get: blocks.gets.clone().percentiles(),
                set: blocks.sets.clone().percentiles(),
            },
            latest_seconds: run.latest.as_secs_f64(),
            blocks_right: blocks.right,
            blocks_wrong: blocks.wrong,
            bytes_wrong: blocks.wrong_bytes,
            blocks_lost: blocks.lost,
            writes_dropped: blocks.dropped,
            prefill_tokens_per_second: run.prefill_rate,
            prefill_seconds_saved: totals.prefill_seconds_saved(run.prefill_rate),
            wear: Worn::of(&run),
            through: run.through,
        }
    }
}
