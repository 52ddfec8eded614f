//! Many clients that read fixed lengths, as LMCache's native one does, on a store far smaller than what they write: each
//! asks whether blocks exist and then gets those that do, while they are evicted under it and its agent comes and goes.

#![allow(clippy::unwrap_used, reason = "all of this is test")]

mod support;

use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kv_endpoint::Config;
use strand_kv_client::Client;
use support::agent::{Agent, connect};
use support::client::{Answer, Client as Ordinary, pattern};
use support::fixed::Fixed;
use support::{Server, until};
use tokio::task::JoinSet;

const MIB: usize = 1 << 20;
const PARTITION: u64 = 128 << 20;
/// Bytes of the blocks of each cache group; their headers differ in length.
const LENGTHS: [usize; 4] = [7_000, 131_072, 999_999, 2 * MIB];
/// Blocks that there may be: some five times the partition.
const BLOCKS: u64 = 800;
const WRITERS: u64 = 48;
const READERS: u64 = 16;
const ROUNDS: u64 = 3;
/// Blocks that a client asks for before it gets the first of them.
const BATCH: u64 = 12;

/// What clients saw.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    gets: u64,
    hits: u64,
    /// `GET`s that missed what `EXISTS` had found.
    broken: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.broken += other.broken;
    }
}

fn key(block: u64) -> String {
    let group = block % LENGTHS.len() as u64;
    let hash = block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("model@00000001@{group:x}@{hash:032x}")
}

fn length(block: u64) -> usize {
    LENGTHS[block as usize % LENGTHS.len()]
}

/// Blocks as a skewed, reproducible draw gives them: half of them from a tenth.
struct Draw(u64);

impl Draw {
    fn block(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let number = self.0 >> 33;
        match number % 2 {
            0 => number / 2 % (BLOCKS / 10),
            _ => number / 2 % BLOCKS,
        }
    }
}

async fn get(client: &mut Fixed, block: u64, seen: &mut Seen) {
    seen.gets += 1;
    match client.get(&key(block), length(block)).await {
        Some(value) => {
            assert!(value == pattern(length(block), block), "a wrong value");
            seen.hits += 1;
        }
        None => seen.broken += 1,
    }
}

/// Asks for a batch of blocks, writes what is not there, gets what was.
async fn write_and_read(address: SocketAddr, number: u64, rounds: Arc<AtomicU64>) -> Seen {
    let mut client = Fixed::connect(address).await;
    let (mut draw, mut seen) = (Draw(number), Seen::default());
    for _ in 0..ROUNDS {
        let mut there = Vec::new();
        for _ in 0..BATCH {
            let block = draw.block();
            match client.exists(&key(block)).await {
                true => there.push(block),
                false => {
                    client
                        .set(&key(block), &pattern(length(block), block))
                        .await
                }
            }
        }
        for block in there {
            get(&mut client, block, &mut seen).await;
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

/// Asks and gets until `stop`; writes nothing, so that its endpoint learns lengths from what it asks alone.
async fn read(address: SocketAddr, number: u64, stop: Arc<AtomicBool>) -> Seen {
    let mut client = Fixed::connect(address).await;
    let (mut draw, mut seen) = (Draw(number), Seen::default());
    while !stop.load(Ordering::Relaxed) {
        let mut there = Vec::new();
        for _ in 0..BATCH {
            let block = draw.block();
            if client.exists(&key(block)).await {
                there.push(block);
            }
        }
        for block in there {
            get(&mut client, block, &mut seen).await;
        }
    }
    seen
}

async fn all(mut clients: JoinSet<Seen>) -> Seen {
    let mut all = Seen::default();
    while let Some(seen) = clients.join_next().await {
        all += seen.unwrap();
    }
    all
}

/// What `INFO` says of a counter.
async fn counted(server: &Server<Client>, name: &str) -> u64 {
    let mut client = Ordinary::connect(server.nil).await;
    let Answer::Value(text) = client.call(&["INFO", "strand"]).await else {
        panic!("INFO is text");
    };
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_exists_and_get_under_eviction_hangs_nobody() {
    let agent = Agent::start(PARTITION).await;
    let mut doors = ["writers.sock", "readers.sock"].map(|name| agent.door(name, 32 * MIB));
    let mut servers = Vec::new();
    for door in &doors {
        let client = connect(door.path()).await;
        servers.push(Server::over(client, Config::default()).await);
    }
    let [writers, readers] = &servers[..] else {
        panic!("two pods");
    };

    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let (mut writing, mut reading) = (JoinSet::new(), JoinSet::new());
    for number in 0..WRITERS {
        writing.spawn(write_and_read(writers.padded, number, rounds.clone()));
    }
    for number in 0..READERS {
        reading.spawn(read(readers.padded, WRITERS + number, stop.clone()));
    }
    // Meanwhile the agent goes away and comes back, a few times.
    for third in 1..3 {
        until("blocks are written and read", || {
            rounds.load(Ordering::Relaxed) >= third * WRITERS * ROUNDS / 3
        })
        .await;
        drop(doors);
        tokio::time::sleep(Duration::from_millis(20)).await;
        doors = ["writers.sock", "readers.sock"].map(|name| agent.door(name, 32 * MIB));
    }
    let mut seen = [all(writing).await, Seen::default()];
    stop.store(true, Ordering::Relaxed);
    seen[1] = all(reading).await;

    let stats = agent.store().stats();
    assert!(stats.evicted_bytes > PARTITION / 2, "{stats:?}");
    for (server, seen) in servers.iter().zip(seen) {
        assert!(seen.hits > 0, "{seen:?}");
        // An answer is counted just after it is given.
        until("answers are counted", || {
            let counted = (server.metrics.hits.get(), server.metrics.misses.get());
            counted == (seen.hits, seen.broken)
        })
        .await;
        // Two that asked for the same block share one lease, so both may see it broken.
        let after_exists = counted(server, "misses_after_exists").await;
        assert!(after_exists <= seen.broken, "{after_exists} of {seen:?}");
        assert_eq!(counted(server, "misses_unknown_length").await, 0);
        assert_eq!(counted(server, "commands_refused").await, 0);
        assert_eq!(server.metrics.stalled.get(), 0);
    }

    // A promise that does not hold, whatever the machine's speed: another pod takes the block away.
    let mut client = Fixed::connect(readers.padded).await;
    let before = counted(readers, "misses_after_exists").await;
    client.set(&key(2), &pattern(length(2), 2)).await;
    let kept = client.exists(&key(2)).await;
    writers.store.flush().await.unwrap();
    assert_eq!(client.get(&key(2), length(2)).await, None);
    let broken = counted(readers, "misses_after_exists").await - before;
    assert_eq!(broken, u64::from(kept));
    // What is flushed is gone at once, and forgotten a little later.
    until("the store is empty", || agent.store().stats().blocks == 0).await;
    drop(client);
    agent.at_rest(2).await;
}
