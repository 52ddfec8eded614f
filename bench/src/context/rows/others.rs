//! Native GET against foyer's disk cache, and against a file a block on XFS: each on a device of its own, in memory.

use super::{Bed, MIB, device_bytes, gigabytes, ratio, size};
use crate::{
    context::{
        Plan,
        baseline::Baseline,
        load::{self, Blocks, Gets},
        medium::{Device, Kind},
        pairs::{Goal, Pairs, interleave},
    },
    report::Row,
};

const DEPTH: usize = 32;
const LENGTHS: [usize; 2] = [MIB, 128 << 10];

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::filled(plan, Kind::Memory, &LENGTHS, 0.75).await?;
    let mut rows = Vec::new();
    for engine in ["uring", "psync"] {
        let device = Device::new(Kind::Memory, device_bytes(plan, Kind::Memory))?;
        for (blocks, goal) in bed.blocks.iter().zip([2.0, 3.5]) {
            let other = Baseline::foyer(device.path(), device.len(), engine)?;
            rows.push(
                against(
                    plan,
                    &bed,
                    *blocks,
                    goal,
                    &format!("foyer ({engine})"),
                    other,
                )
                .await?,
            );
        }
    }
    let device = Device::new(Kind::Memory, device_bytes(plan, Kind::Memory))?;
    for (blocks, goal) in bed.blocks.iter().zip([0.85, 0.95]) {
        let other = Baseline::files(device.path())?;
        rows.push(
            against(
                plan,
                &bed,
                *blocks,
                goal,
                "O_DIRECT file a block on XFS",
                other,
            )
            .await?,
        );
    }
    drop(bed.client);
    bed.serving.end().await?;
    Ok(rows)
}

async fn against(
    plan: Plan,
    bed: &Bed,
    blocks: Blocks,
    goal: f64,
    name: &str,
    mut other: Baseline,
) -> anyhow::Result<Row> {
    other.fill(blocks).await?;
    let server = bed.serving.process();
    let rounds = interleave(
        plan.rounds,
        async || other.get(DEPTH, plan.slot).await,
        async || {
            Ok(
                load::get(&bed.client, Gets::of(blocks, DEPTH, plan.slot), server)
                    .await?
                    .rate,
            )
        },
    )
    .await?;
    other.end().await?;
    let what = format!(
        "native GET, {}, {} / {name}",
        Kind::Memory.words(),
        size(blocks.len)
    );
    Ok(ratio(
        what,
        Pairs::of(&rounds, |rate| *rate),
        Goal::AtLeast(goal),
        gigabytes,
    ))
}
