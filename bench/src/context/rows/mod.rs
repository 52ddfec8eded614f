//! A family of figures a file.

pub mod agent;
pub mod amplification;
pub mod endpoint;
pub mod fairness;
pub mod fullness;
pub mod get;
pub mod latency;
pub mod million;
pub mod others;
pub mod put;
pub mod redis;
pub mod traces;

use std::time::Duration;

use strand_kv_client::Client;

use super::{
    Plan, fio,
    load::Blocks,
    medium::{Device, Kind},
    pairs::{Goal, Pairs},
    serving::Serving,
};
use crate::report::Row;

const MIB: usize = 1 << 20;

/// Bytes of a device to read from.
fn device_bytes(plan: Plan, kind: Kind) -> u64 {
    match kind {
        Kind::Memory => plan.size(2 << 30, 512 << 20),
        Kind::Disk => plan.size(4 << 30, 1 << 30),
    }
}

/// A store on a device of its own that holds blocks of some sizes, all there; nothing was evicted.
struct Bed {
    device: Device,
    serving: Serving,
    client: Client,
    blocks: Vec<Blocks>,
}

impl Bed {
    /// Fills a device with blocks of these lengths, as many bytes of each.
    async fn filled(plan: Plan, kind: Kind, lengths: &[usize], get: f64) -> anyhow::Result<Self> {
        let device = Device::new(kind, device_bytes(plan, kind))?;
        let mut serving = Serving::start(&device).await?;
        let client = serving.client(1, get).await?;
        let blocks = serving.fill(&client, lengths).await?;
        Ok(Self {
            device,
            serving,
            client,
            blocks,
        })
    }
}

/// Random reads of the part of a bed's device that has blocks for certain: segments are taken in their order.
fn raw(device: &Device, block: usize, depth: usize, time: Duration) -> fio::Job<'_> {
    raw_part(device, (0, device.len()), block, depth, time)
}

/// The same of a partition: first byte and bytes.
fn raw_part(
    device: &Device,
    part: (u64, u64),
    block: usize,
    depth: usize,
    time: Duration,
) -> fio::Job<'_> {
    fio::Job {
        device: device.path(),
        pattern: "randread",
        block: block as u64,
        depth,
        part: (part.0 + MIB as u64, part.1 * 80 / 100),
        time,
    }
}

/// A row of a ratio.
pub fn ratio(
    what: impl Into<String>,
    pairs: Pairs,
    goal: Goal,
    detail: impl Fn(f64) -> String,
) -> Row {
    let ratio = pairs.ratio();
    let figure = format!(
        "{ratio:.3} ({} / {})",
        detail(pairs.ours()),
        detail(pairs.baseline())
    );
    let verdict = pairs.verdict(goal, ratio);
    Row::compared(what, figure, &words(goal, "", 2), verdict, pairs)
}

fn words(goal: Goal, unit: &str, digits: usize) -> String {
    match goal {
        Goal::AtLeast(bound) => format!(">= {bound:.digits$}{unit}"),
        Goal::AtMost(bound) => format!("<= {bound:.digits$}{unit}"),
    }
}

/// Bytes a second for people.
pub fn gigabytes(rate: f64) -> String {
    format!("{:.2} GB/s", rate / 1e9)
}

fn micros(time: f64) -> String {
    format!("{time:.0} us")
}

fn size(len: usize) -> String {
    match len {
        len if len >= MIB => format!("{} MiB", len >> 20),
        len => format!("{} KiB", len >> 10),
    }
}
