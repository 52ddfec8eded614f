//! How fast a peer's blocks come, and what that costs. Run by hand:
//! `cargo test --release -p strand-kv-rack --test speed -- --ignored --nocapture`, with TMPDIR on a tmpfs to leave the drive out, and
//! `ONLY="0 1024 8"` (reader, KiB, depth) for one row alone.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::time::{Duration, Instant};

use bed::{Bed, value};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use strand_kv_client::PutOptions;

/// Processor time of this process, from its start, in seconds: user, system.
fn processor() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    let seconds = |field: usize| fields[field].parse::<f64>().unwrap() / 100.0;
    (seconds(12), seconds(13))
}

async fn gets(bed: &Bed, member: usize, keys: &[Vec<u8>], length: usize, depth: usize) {
    let only = std::env::var("ONLY");
    if only.is_ok_and(|only| only != format!("{member} {} {depth}", length >> 10)) {
        return;
    }
    let client = bed.client(member);
    let total = (4usize << 30) / length;
    let mut running = FuturesUnordered::new();
    let (start, before) = (Instant::now(), processor());
    let mut misses = 0;
    for number in 0..total {
        if running.len() >= depth {
            misses += usize::from(!running.next().await.unwrap_or(true));
        }
        let (client, key) = (client.clone(), keys[number % keys.len()].clone());
        running.push(async move { client.get(&key).await.unwrap().is_some() });
    }
    while let Some(found) = running.next().await {
        misses += usize::from(!found);
    }
    let (took, after) = (start.elapsed().as_secs_f64(), processor());
    let gb = (total * length) as f64 / 1e9;
    println!(
        "{} get {:>5} KiB depth {depth:>2}: {:.2} GB/s, {:.3} s a GB (user {:.3}, system {:.3}), {misses} misses of {total}",
        if member == 0 { "remote" } else { "local " },
        length >> 10,
        gb / took,
        (after.0 + after.1 - before.0 - before.1) / gb,
        (after.0 - before.0) / gb,
        (after.1 - before.1) / gb,
    );
}

#[ignore = "takes a while and says nothing without optimization"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_gets() {
    let bed = Bed::with(2, |options| options.patience = Duration::from_millis(500)).await;
    // Without the proxy.
    bed.map_direct(0, 1);
    for (length, count) in [(128 << 10, 64), (1 << 20, 32), (4 << 20, 16)] {
        let keys = bed.keys_of(1, count, &format!("{length}")).await;
        let block = value(1, length);
        let start = Instant::now();
        for key in &keys {
            bed.client(0)
                .put(key, &block, PutOptions::default())
                .await
                .unwrap();
        }
        let gb = (count * length) as f64 / 1e9;
        println!(
            "remote put depth 1: {:.2} GB/s",
            gb / start.elapsed().as_secs_f64()
        );
        for depth in [1, 8] {
            gets(&bed, 1, &keys, length, depth).await;
            gets(&bed, 0, &keys, length, depth).await;
        }
    }
    println!("{:#?}", bed.members[0].sees("node-1"));
}
