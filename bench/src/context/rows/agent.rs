//! A real agent, as the operator and it make of a blank drive, and a real endpoint: what the other families measure of
//! their parts, measured of the whole.

use super::{MIB, gigabytes, micros, ratio, raw_part, size, words};
use crate::{
    context::{
        Plan,
        agent::Node,
        endpoint::Server,
        fio,
        load::{self, Blocks, Gets},
        medium::{Device, Kind},
        pairs::{Goal, Pairs, Verdict, interleave},
        resp, serving,
    },
    report::Row,
};
use anyhow::ensure;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

const DEPTH: usize = 32;
const LENGTHS: [(usize, f64); 2] = [(MIB, 0.85), (128 << 10, 0.95)];

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let device = Device::blank(Kind::Memory, plan.size(2 << 30, 1 << 30))?;
    let node = Node::start(&device).await?;
    let mut rows = gets(plan, &device, &node).await?;
    let endpoint = Server::endpoint(&node.door("bench-resp").await?).await?;
    rows.extend(rest(plan, &node, &endpoint).await?);
    endpoint.stop().await?;
    rows.extend(restart(node).await?);
    Ok(rows)
}

async fn gets(plan: Plan, device: &Device, node: &Node) -> anyhow::Result<Vec<Row>> {
    let socket = node.door("bench").await?;
    let client = serving::connect(&socket, 0.75, Duration::ZERO).await?;
    let filled = node.fill(&client, &LENGTHS.map(|(len, _)| len)).await?;
    let server = node.process();
    let mut rows = Vec::new();
    for (blocks, (len, goal)) in filled.iter().zip(LENGTHS) {
        let rounds = interleave(
            plan.rounds,
            async || {
                let raw = fio::run(raw_part(device, node.partition, len, DEPTH, plan.slot)).await?;
                Ok((raw.rate, raw.cpu_a_gb))
            },
            async || {
                let ours = load::get(&client, Gets::of(*blocks, DEPTH, plan.slot), server).await?;
                Ok((ours.rate, ours.cpu_a_gb))
            },
        )
        .await?;
        let what = format!(
            "agent: native GET, RAM-backed, {}, depth {DEPTH} / raw",
            size(len)
        );
        rows.push(ratio(
            what,
            Pairs::of(&rounds, |(rate, _)| *rate),
            Goal::AtLeast(goal),
            gigabytes,
        ));
        if len == MIB {
            let cpu = Pairs::of(&rounds, |(_, cpu)| *cpu);
            let (goal, figure) = (Goal::AtMost(0.12), cpu.ours());
            let (words, verdict) = (words(goal, " s/GB", 2), goal.verdict(figure));
            let what = "agent: CPU of it + client, native GET, 1 MiB";
            rows.push(Row::compared(
                what,
                format!("{figure:.3} s/GB"),
                &words,
                verdict,
                cpu,
            ));
        }
    }
    drop(client);
    let client = serving::connect(&socket, 0.75, Duration::from_micros(50)).await?;
    let rounds = interleave(
        plan.rounds,
        async || {
            Ok(
                fio::run(raw_part(device, node.partition, 128 << 10, 1, plan.slot))
                    .await?
                    .p50,
            )
        },
        async || {
            Ok(
                load::get(&client, Gets::of(filled[1], 1, plan.slot), server)
                    .await?
                    .p50,
            )
        },
    )
    .await?;
    let p50 = Pairs::of(&rounds, |p50| *p50);
    let (goal, more) = (Goal::AtMost(30.0), p50.difference());
    let figure = format!(
        "{more:+.0} us ({} / {})",
        micros(p50.ours()),
        micros(p50.baseline())
    );
    let what = "agent: native GET, RAM-backed, 128 KiB, depth 1, spin <= 50 us, p50 - raw";
    let (words, verdict) = (words(goal, " us", 0), p50.verdict(goal, more));
    rows.push(Row::compared(what, figure, &words, verdict, p50));
    Ok(rows)
}

/// With nothing to do, after there was something.
async fn rest(plan: Plan, node: &Node, endpoint: &Server) -> anyhow::Result<[Row; 3]> {
    let blocks = Blocks {
        count: 8,
        len: 4 << 20,
    };
    block_in_place(|| resp::fill(endpoint.address(), blocks, 0..blocks.count))?;
    let _open = resp::Connection::open(endpoint.address())?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let processes = [node.process(), endpoint.process()];
    let cpu = || {
        processes
            .iter()
            .map(|process| process.cpu())
            .sum::<anyhow::Result<Duration>>()
    };
    let (before, begun) = (cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(plan.size(60, 5))).await;
    let percent = (cpu()? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let mut besides = Vec::new();
    for process in processes {
        besides.push((process.resident()? - process.shared()?) as f64 / f64::from(1 << 20));
    }
    let small = Goal::AtMost(16.0);
    Ok([
        Row::goal(
            "idle agent + endpoint, of a core",
            format!("{percent:.2} %"),
            "< 1 %",
            percent < 1.0,
        ),
        Row::goal(
            "idle endpoint, resident besides its arena",
            format!("{:.1} MiB", besides[1]),
            &words(small, " MiB", 0),
            small.verdict(besides[1]) == Verdict::Reached,
        ),
        Row::plain(
            "idle agent, resident besides arenas",
            format!("{:.1} MiB", besides[0]),
        ),
    ])
}

/// From `kill -9` of the agent until a pod's client, which stays, reads a block again.
async fn restart(node: Node) -> anyhow::Result<[Row; 1]> {
    let client = serving::connect(&node.door("bench-again").await?, 0.5, Duration::ZERO).await?;
    let blocks = Blocks {
        count: 64,
        len: 128 << 10,
    };
    load::put(&client, blocks, 0..blocks.count, 8).await?;
    let begun = Instant::now();
    let node = node.restart().await?;
    while client.get(&blocks.key(0)).await?.is_none() {
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "no block is read after a restart"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let figure = format!("{:.2} s", begun.elapsed().as_secs_f64());
    drop(client);
    node.stop().await?;
    Ok([Row::plain(
        "agent: from kill -9 to the next hit of a client that stays",
        figure,
    )])
}
