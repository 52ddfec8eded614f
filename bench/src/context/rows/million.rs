//! A million blocks: memory of the index, and the time until they are served again after `kill -9`.

use super::words;
use crate::{
    context::{
        Plan,
        load::{self, Blocks},
        medium::{Device, Kind},
        pairs::{Goal, Verdict},
        serving::Serving,
    },
    report::Row,
};
use anyhow::ensure;
use std::time::Instant;

/// Bytes of a block: packed, so that a million fit a device of a few GiB.
const LEN: usize = 100;
/// Blocks between two looks at the index.
const STEP: u64 = 10_000;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let count = plan.size(1_000_000, 100_000);
    let device = Device::new(Kind::Disk, 2 << 30)?;
    let mut serving = Serving::start(&device).await?;
    let client = serving.client(1, 0.25).await?;
    let blocks = Blocks { count, len: LEN };
    let empty = serving.process().resident()?;
    let mut worst = 0f64;
    for part in (0..count).step_by(STEP as usize) {
        let end = (part + STEP).min(count);
        load::put(&client, blocks, part..end, 64).await?;
        let stats = serving.stats().await?;
        if end > count / 2 {
            worst = worst.max(stats.index as f64 / stats.blocks as f64);
        }
    }
    let stats = serving.stats().await?;
    ensure!(
        stats.blocks == count,
        "{} of {count} blocks are there",
        stats.blocks
    );
    let (index, grown) = (
        stats.index as f64 / count as f64,
        serving.process().resident()? - empty,
    );
    drop(client);
    serving.kill().await?;

    let begun = Instant::now();
    let mut serving = Serving::start(&device).await?;
    let client = serving.client(1, 0.25).await?;
    let first = client.get(&blocks.key(count - 1)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(
        first.is_some_and(|block| block.len() == LEN),
        "the last block is not there"
    );
    let mut there = 0;
    for part in (0..count).step_by(STEP as usize) {
        let keys: Vec<_> = (part..(part + STEP).min(count))
            .map(|n| blocks.key(n))
            .collect();
        there += client
            .exists_many(&keys)
            .await?
            .into_iter()
            .filter(|is| *is)
            .count() as u64;
    }
    let recovery = &serving.recovery;
    let found = format!(
        "{:.2} s, {} segments read by footer, {} scanned",
        recovery.seconds, recovery.sealed, recovery.scanned
    );
    drop(client);
    serving.end().await?;

    let reached = |goal: Goal, figure| goal.verdict(figure) == Verdict::Reached;
    let (bytes, time) = (Goal::AtMost(32.0), Goal::AtMost(2.0));
    Ok(vec![
        Row::goal(
            format!(
                "index memory a block at {count} blocks, at worst since {}",
                count / 2
            ),
            format!("{worst:.1} B (at the end {index:.1} B)"),
            &words(bytes, " B", 0),
            reached(bytes, worst),
        ),
        Row::plain(
            "… growth of the process's resident memory a block, arenas included",
            format!("{:.0} B", grown as f64 / count as f64),
        ),
        Row::goal(
            format!("restart with {count} blocks, from start to first GET, disk-backed"),
            format!("{seconds:.2} s"),
            &words(time, " s", 0),
            reached(time, seconds),
        ),
        Row::goal(
            "… Committed blocks that are there after kill -9",
            there.to_string(),
            &count.to_string(),
            there == count,
        ),
        Row::plain("… of that, opening the store", found),
    ])
}
