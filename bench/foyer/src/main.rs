//! foyer's disk cache on a block device, as a child of strand-bench: a command a line in, an answer a line out.
//!
//! `strand-bench-foyer DEVICE BYTES psync|uring`, then `fill COUNT LEN`, `get DEPTH MILLISECONDS`. Answers begin with `= `:
//! foyer prints lines of its own.
//!
//! Only its disk cache is measured: blocks are loaded from the store beneath the memory cache, which holds next to nothing.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use foyer::{
    BlockEngineConfig, Device, DeviceBuilder, FileDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, IoEngineConfig, Load, PsyncIoEngineConfig, RecoverMode, UringIoEngineConfig,
};

type Cache = HybridCache<u64, Vec<u8>>;

/// Bytes that may wait to be written while the cache is filled; what comes beyond them foyer drops.
const WAITING: usize = 64 << 20;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, bytes, engine] = &arguments[..] else {
        bail!("usage: strand-bench-foyer DEVICE BYTES psync|uring");
    };
    let cache = open(device, bytes.parse()?, engine).await?;
    let mut count = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["fill", blocks, len] => {
                count = blocks.parse()?;
                fill(&cache, count, len.parse()?).await?
            }
            ["get", depth, millis] => {
                get(
                    &cache,
                    count,
                    depth.parse()?,
                    Duration::from_millis(millis.parse()?),
                )
                .await?
            }
            _ => bail!("unknown command: {line}"),
        };
        println!("= {answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn open(device: &str, bytes: usize, engine: &str) -> anyhow::Result<Cache> {
    let device: Arc<dyn Device> = FileDeviceBuilder::new(device)
        .with_capacity(bytes)
        .with_direct(true)
        .build()?;
    let engine: Box<dyn IoEngineConfig> = match engine {
        "uring" => UringIoEngineConfig::new().boxed(),
        _ => PsyncIoEngineConfig::new().boxed(),
    };
    let blocks = BlockEngineConfig::new(device)
        .with_block_size(64 << 20)
        .with_buffer_pool_size(2 * WAITING)
        .with_submit_queue_size_threshold(4 * WAITING);
    let cache = HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(1 << 20)
        .with_shards(1)
        .with_weighter(|_: &u64, value: &Vec<u8>| value.len())
        .storage()
        .with_io_engine_config(engine)
        .with_engine_config(blocks)
        .with_recover_mode(RecoverMode::None)
        .build()
        .await?;
    Ok(cache)
}

async fn fill(cache: &Cache, count: u64, len: usize) -> anyhow::Result<String> {
    let mut waiting = 0;
    for key in 0..count {
        let mut value = vec![0; len];
        let mut state = key | 1 << 63;
        for word in value.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        cache.storage_writer(key).force().insert(value);
        waiting += len;
        if waiting >= WAITING {
            cache.storage().wait().await;
            waiting = 0;
        }
    }
    cache.storage().wait().await;
    let mut there = 0;
    for key in 0..count {
        there += u64::from(matches!(
            cache.storage().load(&key).await?,
            Load::Entry { .. }
        ));
    }
    Ok(format!("{there}"))
}

/// Random blocks at a depth: blocks that were there, and nanoseconds.
async fn get(cache: &Cache, count: u64, depth: u64, time: Duration) -> anyhow::Result<String> {
    let done = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..depth {
        let (cache, done) = (cache.clone(), done.clone());
        tasks.push(tokio::spawn(async move {
            let mut state = (task + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            while begun.elapsed() < time {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if let Load::Entry { .. } = cache.storage().load(&(state % count)).await? {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await.context("a reader panicked")??;
    }
    Ok(format!(
        "{} {}",
        done.load(Ordering::Relaxed),
        begun.elapsed().as_nanos()
    ))
}
