//! A store that is as full as it gets against one that is half full, both while blocks are written at the same pace.

use super::{micros, ratio};
use crate::{
    context::{
        Plan,
        load::{self, Blocks, Gets},
        medium::{Device, Kind},
        pairs::{Goal, Pairs, interleave},
        serving::{Serving, Stats},
    },
    report::Row,
};
use futures::future::try_join_all;
use std::{cell::Cell, ops::Range, time::Duration};
use strand_kv_client::Client;

const LEN: usize = 128 << 10;
/// Eight blocks are written every so often: about 200 MB/s.
const PACE: Duration = Duration::from_millis(5);

/// A store and what is done with it.
struct Store {
    device: Device,
    serving: Serving,
    client: Client,
    read: Blocks,
    /// Numbers of the blocks that are written, again and again.
    ring: Range<u64>,
    next: Cell<u64>,
}

impl Store {
    /// `read` and `ring` are parts of the capacity.
    async fn new(plan: Plan, read: f64, ring: f64) -> anyhow::Result<Self> {
        let device = Device::new(Kind::Memory, plan.size(2 << 30, 512 << 20))?;
        let mut serving = Serving::start(&device).await?;
        let client = serving.client(1, 0.5).await?;
        let part = |part: f64| (device.len() as f64 * part) as u64;
        let read = Blocks::filling(part(read), LEN);
        let ring = Blocks::filling(part(ring), LEN).count;
        let store = Self {
            ring: read.count..read.count + ring,
            next: Cell::new(0),
            device,
            serving,
            client,
            read,
        };
        // The log goes round once, so that both have segments to make free.
        let round = store.device.len() / LEN as u64;
        load::put(&store.client, read, (0..round).map(|n| store.written(n)), 8).await?;
        store.next.set(round);
        // What is read is what was put last: to an LRU all else is older.
        load::put(&store.client, read, 0..read.count, 8).await?;
        Ok(store)
    }

    /// 99th percentile of gets, with or without writes beside them.
    async fn p99(&self, time: Duration, writes: bool) -> anyhow::Result<f64> {
        let gets = Gets {
            may_miss: true,
            ..Gets::of(self.read, 4, time)
        };
        let reading = load::get(&self.client, gets, self.serving.process());
        if !writes {
            return Ok(reading.await?.p99);
        }
        tokio::select! {
            figures = reading => Ok(figures?.p99),
            error = self.write() => Err(error),
        }
    }

    /// Writes at its pace; ends with an error alone.
    async fn write(&self) -> anyhow::Error {
        let mut pace = tokio::time::interval(PACE);
        loop {
            pace.tick().await;
            let next = self.next.replace(self.next.get() + 8);
            let puts =
                (next..next + 8).map(|n| load::put_one(&self.client, self.read, self.written(n)));
            if let Err(error) = try_join_all(puts).await {
                return error;
            }
        }
    }

    /// The number of the n-th block that is written.
    fn written(&self, n: u64) -> u64 {
        self.ring.start + n % (self.ring.end - self.ring.start)
    }

    async fn end(mut self) -> anyhow::Result<Stats> {
        let stats = self.serving.stats().await?;
        drop(self.client);
        self.serving.end().await?;
        Ok(stats)
    }
}

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    // What is written over and over is more than fits, or next to nothing.
    let (full, half) = (
        Store::new(plan, 0.45, 1.5).await?,
        Store::new(plan, 0.45, 0.05).await?,
    );
    let beside = interleave(
        plan.rounds,
        async || half.p99(plan.slot, true).await,
        async || full.p99(plan.slot, true).await,
    )
    .await?;
    let quiet = interleave(
        plan.rounds,
        async || half.p99(plan.slot, false).await,
        async || full.p99(plan.slot, true).await,
    )
    .await?;
    let (full, half) = (full.end().await?, half.end().await?);
    let percent = |stats: &Stats| stats.live as f64 * 100.0 / stats.capacity as f64;
    Ok(vec![
        ratio(
            format!(
                "p99 GET 128 KiB at {:.0} % / {:.0} % full, both under 200 MB/s of writes",
                percent(&full),
                percent(&half)
            ),
            Pairs::of(&beside, |p99| *p99),
            Goal::AtMost(2.0),
            micros,
        ),
        ratio(
            "… the former / the latter without writes",
            Pairs::of(&quiet, |p99| *p99),
            Goal::AtMost(2.0),
            micros,
        ),
    ])
}
