//! The endpoint of a pod, its blocks on disk and far more than the agent's memory, against the drive.

use super::{MIB, gigabytes, ratio};
use crate::{
    context::{
        Plan,
        endpoint::Server,
        fio,
        load::Blocks,
        medium::{Device, Kind},
        pairs::{Goal, Pairs, Round, interleave},
        resp,
        serving::{LEAST_FREE, Serving},
    },
    report::Row,
};
use tokio::task::block_in_place;

const LEN: usize = 4 << 20;
const CONNECTIONS: u64 = 4;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let device = Device::new(Kind::Disk, plan.size(6 << 30, 1 << 30))?;
    // The last third is for fio's writes: it may not write where the store is.
    let partition = device.len() / 3 * 2 / MIB as u64 * MIB as u64;
    let mut serving = Serving::part(device.path(), (0, partition)).await?;
    let endpoint = Server::endpoint(&serving.door(1).await?).await?;
    let mut blocks = Blocks { count: 0, len: LEN };
    while serving.stats().await?.free > LEAST_FREE {
        let numbers = blocks.count..blocks.count + 8;
        block_in_place(|| resp::fill(endpoint.address(), blocks, numbers.clone()))?;
        blocks.count = numbers.end;
    }
    let job = |pattern, part| fio::Job {
        device: device.path(),
        pattern,
        block: LEN as u64,
        depth: CONNECTIONS as usize,
        part,
        time: plan.slot,
    };
    let gets = interleave(
        plan.rounds,
        async || {
            Ok(
                fio::run(job("randread", (MIB as u64, partition * 80 / 100)))
                    .await?
                    .rate,
            )
        },
        async || block_in_place(|| resp::get(endpoint.address(), blocks, CONNECTIONS, plan.slot)),
    )
    .await?;
    let memory = serving.process().peak()?;
    let raw = async || {
        Ok(
            fio::run(job("write", (partition, device.len() - partition)))
                .await?
                .rate,
        )
    };
    let set = |server: &Server| {
        block_in_place(|| resp::set(server.address(), blocks, CONNECTIONS, plan.slot))
    };
    let sets = interleave(plan.rounds, raw, async || set(&endpoint)).await?;
    endpoint.stop().await?;
    serving.end().await?;
    let mut serving = Serving::untrimmed(device.path(), (0, partition)).await?;
    let endpoint = Server::endpoint(&serving.door(1).await?).await?;
    let untrimmed = interleave(plan.rounds, raw, async || set(&endpoint)).await?;
    endpoint.stop().await?;
    serving.end().await?;
    let what = |verb, trim| {
        format!("RESP {verb}, disk-backed, 4 MiB, {CONNECTIONS} connections{trim} / raw")
    };
    let pairs = |rounds: &[Round<f64>]| Pairs::of(rounds, |rate| *rate);
    let bytes = blocks.count * LEN as u64;
    Ok(vec![
        ratio(
            what("GET", ""),
            pairs(&gets),
            Goal::AtLeast(0.95),
            gigabytes,
        ),
        ratio(what("SET", ""), pairs(&sets), Goal::AtLeast(0.9), gigabytes),
        ratio(
            what("SET", ", no TRIM"),
            pairs(&untrimmed),
            Goal::AtLeast(0.9),
            gigabytes,
        ),
        Row::plain(
            "… data read / memory of the agent at its highest, arenas included",
            format!("{:.0}", bytes as f64 / memory as f64),
        ),
    ])
}
