//! Bytes that the kernel wrote to the device for each byte that was taken, over two partitions' worth of puts.

use super::{MIB, words};
use crate::{
    context::{
        Plan,
        load::{self, Blocks},
        medium::{Device, Kind},
        pairs::Goal,
        serving::Serving,
    },
    report::Row,
};

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, lengths, most) in [
        ("1 MiB", &[MIB][..], 1.01),
        ("128 KiB", &[128 << 10], 1.04),
        ("28 B and 2 MiB, 1:1", &[28, 2 * MIB], 1.05),
    ] {
        let device = Device::new(Kind::Memory, plan.size(4 << 30, 256 << 20))?;
        let mut serving = Serving::start(&device).await?;
        let client = serving.client(1, 0.25).await?;
        let before = device.written()?;
        let each: usize = lengths.iter().sum();
        let count = 2 * device.len() / each as u64;
        let mut taken = 0;
        // Side by side: a few hundred of each at a time.
        for part in (0..count).step_by(256) {
            for len in lengths {
                let blocks = Blocks { count, len: *len };
                let numbers = part..(part + 256).min(count);
                taken += (numbers.end - numbers.start) * *len as u64;
                load::put(&client, blocks, numbers, 16).await?;
            }
        }
        let stats = serving.stats().await?;
        drop(client);
        serving.end().await?;
        let written = device.written()? - before;
        let factor = written as f64 / taken as f64;
        let goal = Goal::AtMost(most);
        let reached = goal.verdict(factor) == crate::context::pairs::Verdict::Reached;
        rows.push(Row::goal(
            format!("host bytes written / accepted, {name}"),
            format!("{factor:.4} ({} MiB moved)", stats.moved >> 20),
            &words(goal, "", 2),
            reached,
        ));
    }
    Ok(rows)
}
