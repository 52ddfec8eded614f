//! Conversations of several turns through a native door, into a partition of a tenth and of three tenths of their blocks,
//! against a block LRU of that size that is asked the same.

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
use futures::{StreamExt, TryStreamExt};
use strand_kv_client::{Client, Put};
use strand_traces::{Generator, Infinite, Lru, Request, Served, Shape, Totals, replay};

const LEN: usize = 128 << 10;
const DEPTH: usize = 16;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for seed in [1, 2] {
        let shape = Shape {
            seed,
            requests: plan.size(4000, 800),
            ..Shape::default()
        };
        let requests: Vec<Request> = Generator::new(shape).collect();
        let mut all = Infinite::default();
        replay(&mut all, &requests);
        for part in [0.10, 0.30] {
            let capacity = (all.blocks() as f64 * part) as usize;
            let name = format!(
                "trace {seed}, {:.0} % of {} blocks of 128 KiB",
                part * 100.0,
                all.blocks()
            );
            rows.extend(against_lru(&requests, capacity, &name).await?);
        }
    }
    Ok(rows)
}

async fn against_lru(
    requests: &[Request],
    capacity: usize,
    name: &str,
) -> anyhow::Result<[Row; 2]> {
    let lru = replay(&mut Lru::new(capacity), requests);
    let device = Device::new(Kind::Memory, (capacity * LEN) as u64 / 4096 * 4096)?;
    let mut serving = Serving::start(&device).await?;
    let client = serving.client(1, 0.5).await?;
    let before = device.written()?;
    let mut ours = Totals::default();
    for request in requests {
        ours.add(request, serve(&client, &request.hash_ids).await?);
    }
    let dropped = serving.stats().await?.dropped;
    // Each get follows a look that said the block is there.
    let gone = client.counters().misses;
    drop(client);
    serving.end().await?;
    let written = (device.written()? - before) as f64;
    let hits = ours.blocks_hit as f64 / lru.blocks_hit as f64;
    let flash = written / lru.bytes_written(LEN as u64) as f64;
    let reached = |goal: Goal, figure| goal.verdict(figure) == Verdict::Reached;
    let (most, least) = (Goal::AtMost(1.08), Goal::AtLeast(0.97));
    Ok([
        Row::goal(
            format!("prefix hits / block LRU's, {name}"),
            format!(
                "{hits:.3} ({:.3} / {:.3}; {gone} gone after a look)",
                ours.hit_rate(),
                lru.hit_rate()
            ),
            &words(least, "", 2),
            reached(least, hits),
        ),
        Row::goal(
            "… bytes written to the drive / what that LRU would write",
            format!("{flash:.3} ({dropped} dropped)"),
            &words(most, "", 2),
            reached(most, flash),
        ),
    ])
}

/// Reads the longest leading run that is there and puts the rest, as an inference server does.
async fn serve(client: &Client, ids: &[u64]) -> anyhow::Result<Served> {
    let blocks = Blocks { count: 0, len: LEN };
    let keys: Vec<_> = ids.iter().map(|id| blocks.key(*id)).collect();
    let run = client.leading_run(&keys).await?;
    let found: Vec<bool> = futures::stream::iter(&keys[..run])
        .map(async |key| anyhow::Ok(client.get(key).await?.is_some()))
        .buffered(DEPTH)
        .try_collect()
        .await?;
    let hit = found.iter().take_while(|found| **found).count();
    let written: Vec<Put> = futures::stream::iter(&ids[hit..])
        .map(|id| load::put_one(client, blocks, *id))
        .buffered(DEPTH)
        .try_collect()
        .await?;
    Ok(Served {
        hit,
        written: written.iter().filter(|put| **put == Put::Stored).count(),
    })
}
