//! Load on a native door.

use anyhow::bail;
use futures::TryStreamExt;
use std::{
    ops::Range,
    time::{Duration, Instant},
};
use strand_kv_client::{Client, Put, PutOptions};

use super::pairs::percentile;
use crate::process::Process;

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Bytes a second.
    pub rate: f64,
    /// Latencies in microseconds.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// Processor seconds for 1e9 bytes, of this process and the one that serves.
    pub cpu_a_gb: f64,
}

/// Blocks `0..count` of one length.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// How many.
    pub count: u64,
    /// Bytes of each.
    pub len: usize,
}

impl Blocks {
    /// As many as fill `bytes`.
    pub fn filling(bytes: u64, len: usize) -> Self {
        Self {
            count: bytes / len as u64,
            len,
        }
    }

    /// A block's key: as long as those of inference servers, prefixes in common.
    pub fn key(&self, number: u64) -> Vec<u8> {
        format!("bench/meta-llama/Llama-3.1-8B/{}/{number:016x}", self.len).into_bytes()
    }

    /// Makes a reserved place this block's: each page differs from every other.
    pub fn write(&self, number: u64, into: &mut [u8]) {
        for (page, bytes) in into.chunks_mut(4096).enumerate() {
            let stamp = mixed(number << 20 | page as u64).to_le_bytes();
            let len = stamp.len().min(bytes.len());
            bytes[..len].copy_from_slice(&stamp[..len]);
        }
    }
}

/// Puts blocks, `depth` at once, each until it is taken.
pub async fn put(
    client: &Client,
    blocks: Blocks,
    numbers: impl Iterator<Item = u64>,
    depth: usize,
) -> anyhow::Result<()> {
    futures::stream::iter(numbers.map(Ok))
        .try_for_each_concurrent(depth, |number| async move {
            for _ in 0..100 {
                if put_one(client, blocks, number).await? == Put::Stored {
                    return Ok(());
                }
            }
            bail!(
                "block {number} of {} bytes was dropped a hundred times",
                blocks.len
            )
        })
        .await
}

/// Puts one block.
pub async fn put_one(client: &Client, blocks: Blocks, number: u64) -> anyhow::Result<Put> {
    let Some(mut room) = client.reserve(blocks.len as u64).await? else {
        return Ok(Put::Dropped);
    };
    blocks.write(number, &mut room);
    Ok(room
        .commit(&blocks.key(number), PutOptions::default())
        .await?)
}

/// Gets of random blocks.
#[derive(Clone, Debug)]
pub struct Gets {
    /// What they are of.
    pub blocks: Blocks,
    /// Which of them.
    pub numbers: Range<u64>,
    /// How many at once.
    pub depth: usize,
    /// For how long.
    pub time: Duration,
    /// Time from the start of one to the start of the next of each of the `depth`; zero: none is waited for.
    pub pace: Duration,
    /// A miss is nothing unusual.
    pub may_miss: bool,
}

impl Gets {
    /// Of blocks that are all there, as fast as it goes.
    pub fn of(blocks: Blocks, depth: usize, time: Duration) -> Self {
        Self {
            blocks,
            numbers: 0..blocks.count,
            depth,
            time,
            pace: Duration::ZERO,
            may_miss: false,
        }
    }

    /// One after the other; latencies in microseconds of those that hit.
    async fn one(self, client: Client, begun: Instant, seed: u64) -> anyhow::Result<Vec<f64>> {
        let mut random = mixed(seed);
        let mut latencies = Vec::new();
        let mut next = tokio::time::Instant::now();
        while begun.elapsed() < self.time {
            random = mixed(random);
            let number = self.numbers.start + random % (self.numbers.end - self.numbers.start);
            let key = self.blocks.key(number);
            let asked = Instant::now();
            let block = client.get(&key).await?;
            let latency = asked.elapsed().as_secs_f64() * 1e6;
            match block.map(|block| block.len()) {
                Some(len) if len == self.blocks.len => latencies.push(latency),
                None if self.may_miss => {}
                len => bail!("a get of {} bytes found {len:?}", self.blocks.len),
            }
            if !self.pace.is_zero() {
                next = (next + self.pace).max(tokio::time::Instant::now());
                tokio::time::sleep_until(next).await;
            }
        }
        Ok(latencies)
    }
}

/// Gets blocks; `server` is the process whose time counts beside this one's.
pub async fn get(client: &Client, gets: Gets, server: Process) -> anyhow::Result<Figures> {
    let processes = [Process::own(), server];
    let before = cpu(&processes)?;
    let begun = Instant::now();
    let seed = std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let tasks: Vec<_> = (0..gets.depth as u64)
        .map(|task| tokio::spawn(gets.clone().one(client.clone(), begun, seed ^ task << 56)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = (cpu(&processes)? - before).as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let bytes = (latencies.len() * gets.blocks.len) as f64;
    Ok(Figures {
        rate: bytes / seconds,
        p50: percentile(&latencies, 0.5),
        p99: percentile(&latencies, 0.99),
        cpu_a_gb: cpu / (bytes / 1e9),
    })
}

fn cpu(processes: &[Process]) -> anyhow::Result<Duration> {
    processes.iter().map(Process::cpu).sum()
}

/// The next number of a sequence that looks random (splitmix64's finalizer, Steele and others 2014).
pub fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
