//! The report as a person reads it.

use super::{Report, Sums};
use crate::{
    bench::tally::Percentiles,
    kv::stat::duration,
    text::{Style, Tone, table},
};
use std::time::Duration;
use strand_api::ByteQuantity;

impl Report {
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
