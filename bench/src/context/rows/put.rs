//! Native PUT into a full partition, until three times its size went in, against the drive written from end to end.

use super::{MIB, gigabytes, ratio};
use crate::{
    context::{
        Plan, fio,
        load::{self, Blocks},
        medium::{Device, Kind},
        pairs::{Goal, Pairs, interleave},
        serving::Serving,
    },
    report::Row,
};
use std::{cell::Cell, time::Instant};

const DEPTH: usize = 32;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let (with, dropped) = measured(plan, true).await?;
    let (without, dropped_too) = measured(plan, false).await?;
    let what = |trim| format!("PUT of 3 x the partition, disk-backed, 1 MiB, depth 32{trim} / raw");
    let goal = Goal::AtLeast(0.9);
    Ok(vec![
        ratio(what(""), with, goal, gigabytes),
        ratio(what(", no TRIM"), without, goal, gigabytes),
        Row::plain(
            "… puts that were dropped and sent again",
            (dropped + dropped_too).to_string(),
        ),
    ])
}

/// Rates, and how many puts were dropped.
async fn measured(plan: Plan, trim: bool) -> anyhow::Result<(Pairs, u64)> {
    // Large enough that a segment, a 1,024th of it, holds more than a few blocks, as on a drive it does.
    let device = Device::new(Kind::Disk, plan.size(16 << 30, 1 << 30))?;
    let raw = device.len() / 8;
    let partition = device.len() - raw;
    let mut serving = match trim {
        true => Serving::part(device.path(), (0, partition)).await?,
        false => Serving::untrimmed(device.path(), (0, partition)).await?,
    };
    let client = serving.client(1, 0.25).await?;
    let blocks = Blocks::filling(partition, MIB);
    load::put(&client, blocks, 0..blocks.count, DEPTH).await?;
    let next = Cell::new(blocks.count);
    let each = 3 * blocks.count / plan.rounds as u64;
    let dropped = serving.stats().await?.dropped;
    let rounds = interleave(
        plan.rounds,
        async || {
            let job = fio::Job {
                device: device.path(),
                pattern: "write",
                block: MIB as u64,
                depth: DEPTH,
                part: (partition, raw),
                time: plan.slot,
            };
            Ok(fio::run(job).await?.rate)
        },
        async || {
            let numbers = next.get()..next.get() + each;
            next.set(numbers.end);
            let begun = Instant::now();
            load::put(&client, blocks, numbers, DEPTH).await?;
            Ok((each * MIB as u64) as f64 / begun.elapsed().as_secs_f64())
        },
    )
    .await?;
    let dropped = serving.stats().await?.dropped - dropped;
    drop(client);
    serving.end().await?;
    Ok((Pairs::of(&rounds, |rate| *rate), dropped))
}
