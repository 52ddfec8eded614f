//! Agent and endpoint with nothing to do, after they had something to do.

use super::words;
use crate::{
    context::{
        Plan,
        endpoint::Server,
        load::Blocks,
        medium::{Device, Kind},
        pairs::{Goal, Verdict},
        resp,
        serving::Serving,
    },
    report::Row,
};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let device = Device::new(Kind::Memory, 512 << 20)?;
    let mut serving = Serving::start(&device).await?;
    let endpoint = Server::endpoint(&serving.door(1).await?).await?;
    let blocks = Blocks {
        count: 64,
        len: 4 << 20,
    };
    block_in_place(|| resp::fill(endpoint.address(), blocks, 0..blocks.count))?;
    let _open = resp::Connection::open(endpoint.address())?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let processes = [serving.process(), endpoint.process()];
    let cpu = || {
        processes
            .iter()
            .map(|process| process.cpu())
            .sum::<anyhow::Result<Duration>>()
    };
    let (before, begun) = (cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(plan.size(60, 5))).await;
    let percent = (cpu()? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let besides = |index: usize| {
        let process = processes[index];
        anyhow::Ok((process.resident()? - process.shared()?) as f64 / f64::from(1 << 20))
    };
    let (agent, pod) = (besides(0)?, besides(1)?);
    endpoint.stop().await?;
    serving.end().await?;
    let reached = |goal: Goal, figure| goal.verdict(figure) == Verdict::Reached;
    let (least, small) = (Goal::AtMost(1.0), Goal::AtMost(16.0));
    Ok(vec![
        Row::goal(
            "idle store with door + endpoint, of a core",
            format!("{percent:.2} %"),
            "< 1 %",
            reached(least, percent) && percent < 1.0,
        ),
        Row::goal(
            "idle endpoint, resident besides its arena",
            format!("{pod:.1} MiB"),
            &words(small, " MiB", 0),
            reached(small, pod),
        ),
        Row::plain(
            "idle store with door, resident besides arenas",
            format!("{agent:.1} MiB"),
        ),
    ])
}
