//! `strandctl kv top`: namespaces by what they hold, with hit rate, traffic and latency, over the whole rack.

use super::stat::size;
use crate::{
    cluster::Target,
    output::{Output, formed},
    scrape::{Said, Sample, samples},
    text::{Style, Tone, count, table},
};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Shows who uses context memory.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Seconds between the two looks that traffic is reckoned from
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Another form: wide has more columns, json and yaml are for programs
    #[arg(short, long, value_enum, hide_possible_values = true)]
    output: Option<Output>,
    #[command(flatten)]
    target: Target,
}

/// What a namespace of a pool has and does. Hit rate and latencies are those between the looks; where nothing was asked then, those
/// since the agents began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    pool: String,
    namespace: String,
    /// Bytes of its blocks on all drives.
    held_bytes: u64,
    /// Bytes that it may hold against the others.
    share_bytes: u64,
    /// Drives with blocks of it.
    drives: u64,
    /// Of gets, those that found their block: 0 to 1.
    hit_rate: Option<f64>,
    gets_per_second: f64,
    read_bytes_per_second: f64,
    written_bytes_per_second: f64,
    /// Seconds in the stores, of gets that found their block.
    get_p50_seconds: Option<f64>,
    get_p99_seconds: Option<f64>,
    /// Puts that drives did not take since the agents began.
    dropped: u64,
}

/// What is told.
#[derive(Debug, Serialize)]
struct Top {
    namespaces: Vec<Row>,
    /// Nodes whose agent did not answer, and why.
    unheard: BTreeMap<String, String>,
}

/// Runs `strandctl kv top`.
pub async fn run(args: TopArgs) -> Result<()> {
    let agents = args.target.agents().await?;
    let earlier = agents.pages().await?;
    let pause = Duration::from_secs(args.interval);
    tokio::time::sleep(pause).await;
    let later = agents.pages().await?;
    let top = Top::of(&earlier, &later, pause);
    if let (Some((node, why)), true) = (top.unheard.iter().next(), top.unheard.len() == later.len())
    {
        bail!("no agent answers; that of node {node}: {why}");
    }
    let table = |wide| top.text(Style::of_stdout(), wide);
    print!("{}", formed(args.output, || Ok(&top), table)?);
    Ok(())
}

/// A namespace of a pool.
type Whose = (String, String);

/// Sums over all drives and nodes, at one look.
#[derive(Clone, Debug, Default)]
struct Sums {
    held: f64,
    drives: u64,
    share: f64,
    hits: f64,
    misses: f64,
    read: f64,
    written: f64,
    dropped: f64,
    /// Gets in the buckets up to a number of seconds.
    gets: Vec<(f64, f64)>,
}

impl Top {
    fn of(earlier: &[Said], later: &[Said], pause: Duration) -> Self {
        let (before, now) = (sums(earlier), sums(later));
        let nothing = Sums::default();
        let mut namespaces: Vec<_> = now
            .iter()
            .map(|(whose, now)| row(whose, before.get(whose).unwrap_or(&nothing), now, pause))
            .collect();
        namespaces.sort_by_key(|row| std::cmp::Reverse(row.held_bytes));
        let unheard = later.iter().filter_map(|(node, page)| {
            let error = page.as_ref().err()?;
            Some((node.clone(), format!("{error:#}")))
        });
        Self {
            namespaces,
            unheard: unheard.collect(),
        }
    }

    fn text(&self, style: Style, wide: bool) -> String {
        let mut head = vec![
            "POOL",
            "NAMESPACE",
            "HOLDS",
            "SHARE",
            "HIT",
            "READ/S",
            "WRITTEN/S",
            "GET P50",
            "GET P99",
            "DROPPED",
        ];
        if wide {
            head.extend(["GETS/S", "DRIVES"]);
        }
        let rows: Vec<_> = self.namespaces.iter().map(|row| row.cells(wide)).collect();
        let mut text = if rows.is_empty() {
            "No namespace has blocks, or a pod that asks for any.\n".into()
        } else {
            table(style, &head, &rows)
        };
        if let Some((node, why)) = self.unheard.iter().next() {
            let who = count(self.unheard.len(), "node");
            let told =
                format!("{who} not counted, since the agent does not answer; {node}: {why}\n");
            text.push_str(&style.paint(Tone::Bad, &told));
        }
        text
    }
}

impl Row {
    fn cells(&self, wide: bool) -> Vec<String> {
        let rate = |bytes: f64| match bytes as u64 {
            0 => String::new(),
            bytes => size(bytes),
        };
        let latency = |seconds: Option<f64>| {
            seconds.map_or(String::new(), |s| match s * 1e6 {
                us @ ..1000.0 => format!("{us:.0} us"),
                us => format!("{:.1} ms", us / 1e3),
            })
        };
        let mut cells = vec![
            self.pool.clone(),
            self.namespace.clone(),
            size(self.held_bytes),
            size(self.share_bytes),
            self.hit_rate
                .map_or(String::new(), |hit| format!("{:.1} %", 100.0 * hit)),
            rate(self.read_bytes_per_second),
            rate(self.written_bytes_per_second),
            latency(self.get_p50_seconds),
            latency(self.get_p99_seconds),
            self.dropped.to_string(),
        ];
        if wide {
            cells.extend([
                format!("{:.1}", self.gets_per_second),
                self.drives.to_string(),
            ]);
        }
        cells
    }
}

fn row((pool, namespace): &Whose, before: &Sums, now: &Sums, pause: Duration) -> Row {
    // An agent that began anew counts from nothing.
    let new = |before: f64, now: f64| if now < before { now } else { now - before };
    let a_second = |before, now| new(before, now) / pause.as_secs_f64();
    let (hits, misses) = (new(before.hits, now.hits), new(before.misses, now.misses));
    let asked = |hits: f64, misses: f64| (hits + misses > 0.0).then(|| hits / (hits + misses));
    let recent: Vec<_> = now
        .gets
        .iter()
        .map(|(up_to, count)| {
            let earlier = before.gets.iter().find(|(other, _)| other == up_to);
            (
                *up_to,
                new(earlier.map_or(0.0, |(_, count)| *count), *count),
            )
        })
        .collect();
    let gets = match recent.last() {
        Some((_, all)) if *all > 0.0 => recent,
        _ => now.gets.clone(),
    };
    Row {
        pool: pool.clone(),
        namespace: namespace.clone(),
        held_bytes: now.held as u64,
        share_bytes: now.share as u64,
        drives: now.drives,
        hit_rate: asked(hits, misses).or_else(|| asked(now.hits, now.misses)),
        gets_per_second: (hits + misses) / pause.as_secs_f64(),
        read_bytes_per_second: a_second(before.read, now.read),
        written_bytes_per_second: a_second(before.written, now.written),
        get_p50_seconds: quantile(&gets, 0.5),
        get_p99_seconds: quantile(&gets, 0.99),
        dropped: now.dropped as u64,
    }
}

/// A quantile of cumulative buckets, as Prometheus' `histogram_quantile` has it: linear within a bucket, and the end of the last
/// bucket that has one for what is above.
fn quantile(buckets: &[(f64, f64)], part: f64) -> Option<f64> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
    let rank = part * all;
    let (mut low, mut below) = (0.0, 0.0);
    for &(up_to, count) in buckets {
        if count >= rank {
            let within = (rank - below) / (count - below);
            return Some(if up_to.is_finite() {
                low + (up_to - low) * within
            } else {
                low
            });
        }
        (low, below) = (up_to, count);
    }
    None
}

fn sums(pages: &[Said]) -> BTreeMap<Whose, Sums> {
    let pages: Vec<_> = pages
        .iter()
        .filter_map(|(_, page)| page.as_deref().ok().map(samples))
        .collect();
    let all = || pages.iter().flatten();
    // Nodes without a pod of a namespace know it by its number alone.
    let names: BTreeMap<_, _> = all()
        .filter(|sample| sample.name == "strand_context_namespace_info")
        .map(|sample| {
            (
                (sample.label("pool"), sample.label("number")),
                sample.label("namespace"),
            )
        })
        .collect();
    let mut sums: BTreeMap<Whose, Sums> = BTreeMap::new();
    for sample in all().filter(|sample| sample.labels.contains_key("namespace")) {
        let (pool, label) = (sample.label("pool"), sample.label("namespace"));
        let namespace = names.get(&(pool, label)).copied().unwrap_or(label);
        let sums = sums.entry((pool.into(), namespace.into())).or_default();
        sums.add(sample);
    }
    for sums in sums.values_mut() {
        sums.gets
            .sort_by(|(one, _), (other, _)| one.total_cmp(other));
    }
    sums
}

impl Sums {
    fn add(&mut self, sample: &Sample) {
        let (value, outcome) = (sample.value, sample.label("outcome"));
        let is_get = matches!(sample.label("operation"), "get" | "open");
        match sample.name.trim_start_matches("strand_context_") {
            "namespace_drive_used_bytes" => {
                self.held += value;
                self.drives += u64::from(value > 0.0);
            }
            "namespace_drive_share_bytes" => self.share += value,
            "namespace_drive_dropped_total" => self.dropped += value,
            "namespace_read_bytes_total" => self.read += value,
            "namespace_written_bytes_total" => self.written += value,
            "namespace_requests_total" if is_get && outcome == "hit" => self.hits += value,
            "namespace_requests_total" if is_get && outcome == "miss" => self.misses += value,
            "operation_seconds_bucket" if sample.label("operation") == "get" => {
                let Ok(up_to) = sample.label("le").parse::<f64>() else {
                    return;
                };
                match self.gets.iter_mut().find(|(other, _)| *other == up_to) {
                    Some((_, count)) => *count += value,
                    None => self.gets.push((up_to, value)),
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::compare;

    fn page(held: u64, hits: u64, read: u64) -> String {
        let on = "pool=\"default\",namespace=\"chat\"";
        let bucket = |le: &str, count| {
            format!(
                "strand_context_operation_seconds_bucket{{{on},drive=\"d\",operation=\"get\",le=\"{le}\"}} {count}\n"
            )
        };
        format!(
            "strand_context_namespace_info{{{on},number=\"00ff\"}} 1\n\
             strand_context_namespace_drive_used_bytes{{{on},drive=\"d\"}} {held}\n\
             strand_context_namespace_drive_share_bytes{{{on},drive=\"d\"}} 1073741824\n\
             strand_context_namespace_requests_total{{{on},operation=\"get\",outcome=\"hit\"}} {hits}\n\
             strand_context_namespace_requests_total{{{on},operation=\"get\",outcome=\"miss\"}} 10\n\
             strand_context_namespace_requests_total{{{on},operation=\"put\",outcome=\"dropped\"}} 9\n\
             strand_context_namespace_read_bytes_total{{{on}}} {read}\n{}{}{}",
            bucket("0.000128", hits / 2),
            bucket("0.002", hits),
            bucket("+Inf", hits),
        )
    }

    #[test]
    fn namespaces_over_the_whole_rack() {
        // The second node has blocks of the namespace, and no pod of it.
        let other = "strand_context_namespace_drive_used_bytes{pool=\"default\",namespace=\"00ff\",drive=\"e\"} 1048576\n\
                     strand_context_namespace_drive_dropped_total{pool=\"default\",namespace=\"00ff\",drive=\"e\",reason=\"busy\"} 4\n\
                     strand_context_namespace_drive_used_bytes{pool=\"default\",namespace=\"idle\",drive=\"e\"} 4096\n";
        let look = |first: String| {
            vec![
                ("node-1".into(), Ok(first)),
                ("node-2".into(), Ok(other.to_owned())),
                ("node-3".into(), Err(anyhow::anyhow!("connection refused"))),
            ]
        };
        let top = Top::of(
            &look(page(1 << 20, 100, 0)),
            &look(page(3 << 20, 190, 8 << 20)),
            Duration::from_secs(2),
        );
        assert_eq!(
            top.namespaces[0].hit_rate,
            Some(1.0),
            "no miss between the looks"
        );
        compare("kv-top.txt", &top.text(Style::PLAIN, false));
        compare("kv-top-wide.txt", &top.text(Style::PLAIN, true));
        let still = Top::of(
            &look(page(1, 90, 0)),
            &look(page(1, 90, 0)),
            Duration::from_secs(2),
        );
        assert_eq!(still.namespaces[0].namespace, "chat");
        assert_eq!(
            still.namespaces[0].hit_rate,
            Some(0.9),
            "since the agents began"
        );
        let again = Top::of(
            &look(page(1, 90, 900)),
            &look(page(1, 2, 20)),
            Duration::from_secs(2),
        );
        assert_eq!(
            again.namespaces[0].read_bytes_per_second, 10.0,
            "an agent that began anew"
        );
    }

    #[test]
    fn quantiles_are_prometheus_own() {
        let buckets = [(1.0, 50.0), (2.0, 90.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.7), Some(1.5));
        assert_eq!(quantile(&buckets, 0.99), Some(2.0));
        assert_eq!(quantile(&[(1.0, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
