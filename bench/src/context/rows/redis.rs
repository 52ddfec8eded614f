//! The endpoint of a pod, its blocks on a device in memory, against Redis, whose values are all in its memory: same client.

use super::{gigabytes, ratio};
use crate::{
    context::{
        Plan,
        endpoint::Server,
        load::Blocks,
        medium::{Device, Kind},
        pairs::{Goal, Pairs, Round, interleave},
        resp,
        serving::Serving,
    },
    report::Row,
};
use tokio::task::block_in_place;

const LEN: usize = 4 << 20;
const CONNECTIONS: u64 = 4;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let device = Device::new(Kind::Memory, plan.size(2 << 30, 512 << 20))?;
    let mut serving = Serving::start(&device).await?;
    let endpoint = Server::endpoint(&serving.door(1).await?).await?;
    let redis = Server::redis().await?;
    let blocks = Blocks::filling(device.len() / 2, LEN);
    for server in [&endpoint, &redis] {
        block_in_place(|| resp::fill(server.address(), blocks, 0..blocks.count))?;
    }
    let get = |server: &Server| {
        block_in_place(|| resp::get(server.address(), blocks, CONNECTIONS, plan.slot))
    };
    let gets = interleave(plan.rounds, async || get(&redis), async || get(&endpoint)).await?;
    let set = |server: &Server| {
        block_in_place(|| resp::set(server.address(), blocks, CONNECTIONS, plan.slot))
    };
    let sets = interleave(plan.rounds, async || set(&redis), async || set(&endpoint)).await?;
    endpoint.stop().await?;
    serving.end().await?;
    let mut serving = Serving::untrimmed(device.path(), (0, device.len())).await?;
    let endpoint = Server::endpoint(&serving.door(1).await?).await?;
    let untrimmed = interleave(plan.rounds, async || set(&redis), async || set(&endpoint)).await?;
    redis.stop().await?;
    endpoint.stop().await?;
    serving.end().await?;
    let what = |verb, trim| {
        format!("RESP {verb}, RAM-backed, 4 MiB, {CONNECTIONS} connections{trim} / Redis")
    };
    let pairs = |rounds: &[Round<f64>]| Pairs::of(rounds, |rate| *rate);
    Ok(vec![
        ratio(what("GET", ""), pairs(&gets), Goal::AtLeast(1.0), gigabytes),
        ratio(what("SET", ""), pairs(&sets), Goal::AtLeast(0.8), gigabytes),
        ratio(
            what("SET", ", no TRIM"),
            pairs(&untrimmed),
            Goal::AtLeast(0.8),
            gigabytes,
        ),
    ])
}
