//! What a replay came to, for people and for programs.

use super::{
    feed::{Speed, Survey},
    tally::{Percentiles, Tally},
};
use crate::{
    kv::stat::duration,
    text::{Style, Tone, table},
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

    /// As text.
    pub fn text(&self, style: Style) -> String {
        let mut text = self.heading(style);
        text.push('\n');
        text.push_str(&self.caches(style));
        text.push('\n');
        text.push_str(&self.latencies(style));
        text.push('\n');
        for (tone, line) in self.sentences() {
            text.push_str(&style.paint(tone, &line));
            text.push('\n');
        }
        text
    }

    fn heading(&self, style: Style) -> String {
        let speed = match self.speed.as_str() {
            "max" => "as fast as it goes".into(),
            "trace" => "at the trace's speed".into(),
            times => format!(
                "at {} times the trace's speed",
                times.trim_start_matches('x')
            ),
        };
        let broken = if self.interrupted {
            ", then interrupted"
        } else {
            ""
        };
        let title = format!(
            "{} of {} requests in {}{broken}",
            self.served.requests,
            self.trace.requests,
            duration(seconds(self.seconds))
        );
        format!(
            "{}\n{}: {} of requests, {} different blocks of {}\nthrough {} with {} clients, {speed}\n",
            style.paint(Tone::Strong, &title),
            self.trace.file,
            duration(seconds(self.trace.span_seconds)),
            self.trace.different_blocks,
            size(self.block_bytes),
            self.through.join(", "),
            self.clients,
        )
    }

    fn caches(&self, style: Style) -> String {
        let row = |name: String, sums: &Sums| {
            vec![
                name,
                sums.blocks_asked.to_string(),
                sums.blocks_hit.to_string(),
                format!("{:.1} %", 100.0 * sums.hit_rate),
                size(sums.bytes_read),
                size(sums.bytes_written),
            ]
        };
        let of = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        let rate = |bytes: u64| format!("{:.2} GB/s", bytes as f64 / self.seconds.max(1e-3) / 1e9);
        let rows = [
            row("this replay".into(), &self.served),
            row(format!("LRU of {}", size(self.capacity_bytes)), &self.lru),
            vec![
                "of the LRU's".into(),
                String::new(),
                of(self.hits_of_lru),
                String::new(),
                String::new(),
                of(self.written_of_lru),
            ],
            row("endless cache".into(), &self.endless),
            vec![
                "speed".into(),
                String::new(),
                String::new(),
                String::new(),
                rate(self.served.bytes_read),
                rate(self.served.bytes_written),
            ],
        ];
        table(
            style,
            &["CACHE", "BLOCKS", "HIT", "RATE", "READ", "WRITTEN"],
            &rows,
        )
    }

    fn latencies(&self, style: Style) -> String {
        let latency = &self.latency_milliseconds;
        let row = |(name, of): (&str, Percentiles)| {
            let ms = |value: f64| format!("{value:.2} ms");
            vec![
                name.into(),
                of.count.to_string(),
                ms(of.p50),
                ms(of.p90),
                ms(of.p99),
            ]
        };
        let rows = [
            ("lookup", latency.lookup),
            ("get", latency.get),
            ("set", latency.set),
        ]
        .map(row);
        table(style, &["LATENCY", "COUNT", "P50", "P90", "P99"], &rows)
    }

    fn sentences(&self) -> Vec<(Tone, String)> {
        let mut lines = vec![match self.blocks_wrong {
            0 => (
                Tone::Good,
                format!("Content: all {} blocks read were right.", self.blocks_right),
            ),
            wrong => (
                Tone::Bad,
                format!(
                    "Content: {wrong} BLOCKS WERE WRONG, in {} bytes; {} were right.",
                    self.bytes_wrong, self.blocks_right
                ),
            ),
        }];
        if self.blocks_lost > 0 {
            lines.push((
                Tone::Note,
                format!(
                    "Lost: {} blocks were there in the lookup and missed by the get after it.",
                    self.blocks_lost
                ),
            ));
        }
        if self.writes_dropped > 0 {
            lines.push((
                Tone::Note,
                format!(
                    "Dropped: {} of the writes were not kept (other clients' among them).",
                    self.writes_dropped
                ),
            ));
        }
        if self.latest_seconds >= 1.0 {
            lines.push((
                Tone::Note,
                format!(
                    "Late: up to {}, because all clients were busy.",
                    duration(seconds(self.latest_seconds))
                ),
            ));
        }
        lines.push((
            Tone::Strong,
            format!(
                "Prefill saved: {} at {} tokens a second.",
                duration(seconds(self.prefill_seconds_saved)),
                self.prefill_tokens_per_second
            ),
        ));
        lines.push((Tone::Strong, match &self.wear {
            None => "Wear: not known, the trace takes no time.".into(),
            Some(wear) => format!(
                "Wear: at the trace's own speed {:.2} drive writes a day to {}; rated for {} in all, {}.",
                wear.drive_writes_per_day,
                size(wear.drive_bytes),
                size(wear.rated_bytes),
                match &wear.worn_out_on {
                    Some(day) => format!("a new drive wears out on {day}"),
                    None => "a new drive lasts more than a hundred years".into(),
                }
            ),
        }));
        lines
    }
}

fn size(bytes: u64) -> String {
    ByteQuantity(bytes).rounded()
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::tally::Blocks, golden::compare};
    use strand_traces::{Request, Served};

    fn totals(requests: u64, hit: usize, hour_ms: u64) -> Totals {
        let mut totals = Totals::default();
        for number in 0..requests {
            let request = Request {
                timestamp_ms: number * hour_ms / (requests - 1),
                input_length: 10_000,
                output_length: 100,
                hash_ids: (0..20).collect(),
            };
            let served = Served {
                hit,
                written: 20 - hit,
            };
            totals.add(&request, served);
        }
        totals
    }

    fn survey() -> Survey {
        Survey {
            file: "chat.jsonl".into(),
            endless: totals(1_000, 11, 3_600_000),
            blocks: 9_000,
        }
    }

    fn report(change: impl FnOnce(&mut Run)) -> Report {
        let survey = survey();
        let mut blocks = Blocks {
            right: 8_000,
            ..Blocks::default()
        };
        for number in 1..=1_000u64 {
            blocks.lookups.add(Duration::from_micros(number));
            blocks.gets.add(Duration::from_micros(2_000 + number));
            blocks.sets.add(Duration::from_micros(3_000 + number));
        }
        let mut run = Run {
            through: vec!["127.0.0.1:6379".into()],
            clients: 8,
            speed: Speed::Max,
            seconds: 42.0,
            interrupted: false,
            block_bytes: 2 << 20,
            capacity: 1 << 40,
            prefill_rate: 10_000.0,
            drive: Drive::new(1 << 40, 1.0, 5.0, None).unwrap(),
            today: "2027-01-01T00:00:00Z".parse().unwrap(),
            survey: &survey,
            reference: totals(1_000, 8, 3_600_000),
            latest: Duration::ZERO,
            tally: Tally {
                totals: totals(1_000, 8, 3_600_000),
                blocks,
            },
        };
        change(&mut run);
        Report::of(run)
    }

    #[test]
    fn a_replay_in_words() {
        compare("bench-replay.txt", &report(|_| {}).text(Style::PLAIN));
    }

    #[test]
    fn a_replay_that_did_not_go_well_says_so() {
        let bad = report(|run| {
            run.speed = Speed::Times(10.0);
            run.interrupted = true;
            run.tally.totals = totals(500, 7, 1_800_000);
            run.tally.blocks.wrong = 2;
            run.tally.blocks.wrong_bytes = 4_096;
            run.tally.blocks.lost = 3;
            run.tally.blocks.dropped = 17;
            run.latest = Duration::from_millis(2_500);
            run.drive = Drive::new(1 << 50, 1.0, 5.0, Some(ByteQuantity(1 << 60))).unwrap();
        });
        compare("bench-replay-bad.txt", &bad.text(Style::PLAIN));
    }

    #[test]
    fn a_replay_for_programs() {
        let json = serde_json::to_string_pretty(&report(|_| {})).unwrap();
        compare("bench-replay.json", &(json + "\n"));
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let text = report(|run| {
            run.tally = Tally::default();
            run.reference = Totals::default();
        })
        .text(Style::PLAIN);
        assert!(text.contains("Wear: not known"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(Drive::new(0, 1.0, 5.0, None).is_err());
        assert!(Drive::new(1, 0.0, 5.0, None).is_err());
        assert!(Drive::new(1, 1.0, f64::NAN, None).is_err());
    }
}
