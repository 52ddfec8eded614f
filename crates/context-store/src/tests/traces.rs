//! Conversations replayed against the store itself, beside a block LRU that has room for as many blocks as the store's
//! segments. The clock is the trace's: how many segments the store keeps free goes by how fast puts come.

use std::time::Duration;

use strand_traces::{Generator, Infinite, Lru, Request, Served, Shape, Totals, replay};

use super::bed::{Hands, NS, identity};
use crate::engine::faulty::Faulty;
use crate::layout::Layout;
use crate::{Put, PutOptions, Store};

/// A block whose record takes exactly two pages: what is measured is the choice of what stays.
const VALUE: usize = 4096;
/// Pages of a segment: a header, a footer, and records. Few, so that the partition has some hundred segments: a real one
/// has about a thousand.
const PAGES: u64 = 12;
const RECORDS: u64 = (PAGES - 2) / 2;

struct Seen {
    ours: Totals,
    lru: Totals,
    /// Bytes that went to the drive for each of the LRU's, headers and footers left out.
    written: f64,
}

async fn against_lru(seed: u64, part: f64, requests: u64) -> Seen {
    let shape = Shape {
        seed,
        requests,
        ..Shape::default()
    };
    let requests: Vec<Request> = Generator::new(shape).collect();
    let mut all = Infinite::default();
    replay(&mut all, &requests);
    let segments = (all.blocks() as f64 * part) as u64 / RECORDS;
    let layout = Layout {
        segment_len: PAGES * 4096,
        segments: segments as u32,
    };
    let lru = replay(&mut Lru::new((segments * RECORDS) as usize), &requests);
    let (medium, hands) = (Faulty::default(), Hands::new());
    let len = (1 << 20) + segments * PAGES * 4096;
    let (store, _) = Store::with_engine(
        std::sync::Arc::new(medium.clone()),
        0,
        len,
        layout,
        &identity(),
        hands.options(),
        |secret, namespace, key| secret.fingerprint(namespace, key),
    )
    .await
    .unwrap();
    let mut ours = Totals::default();
    let mut time = 0;
    for request in &requests {
        let passed = Duration::from_millis(request.timestamp_ms - time);
        hands.advance(passed);
        tokio::time::advance(passed).await;
        time = request.timestamp_ms;
        ours.add(request, serve(&store, &request.hash_ids).await);
    }
    let stats = store.stats();
    let moved = stats.moved_blocks as f64;
    store.close().await;
    Seen {
        written: (ours.blocks_written as f64 + moved) / lru.blocks_written as f64,
        ours,
        lru,
    }
}

/// Reads the longest leading run that is there and puts the rest, as an inference server does.
async fn serve(store: &Store, ids: &[u64]) -> Served {
    let keys: Vec<[u8; 8]> = ids.iter().map(|id| id.to_le_bytes()).collect();
    let slices: Vec<&[u8]> = keys.iter().map(<[u8; 8]>::as_slice).collect();
    let run = store.longest_run(NS, &slices);
    for key in &keys[..run] {
        assert!(store.get_bytes(NS, key).await.unwrap().is_some());
    }
    let value = [7; VALUE];
    let mut puts = tokio::task::JoinSet::new();
    for key in &keys[run..] {
        let (store, key) = (store.clone(), *key);
        puts.spawn(async move {
            store
                .put_bytes(NS, &key, &value, PutOptions::default())
                .await
        });
    }
    let mut written = 0;
    while let Some(put) = puts.join_next().await {
        written += usize::from(matches!(put.unwrap().unwrap(), Put::Stored(_)));
    }
    store.touch_run(NS, &slices);
    Served { hit: run, written }
}

/// Of near a thousand segments, as a real partition has. Few requests make few hits, of which a handful more or less
/// depends on which blocks are sampled: over 6,000 requests it is within a hundredth. `STRAND_REPLAYED=6000` replays
/// as many, of three traces.
#[tokio::test(start_paused = true)]
async fn hits_are_nearly_those_of_a_block_lru_and_so_is_what_is_written() {
    let all = std::env::var("STRAND_REPLAYED").map(|count| count.parse().unwrap());
    let (requests, seeds) = match all {
        Ok(requests) => (requests, 1..=3),
        Err(_) => (3000, 2..=2),
    };
    for (part, least) in [(0.10, 0.95), (0.30, 0.97)] {
        for seed in seeds.clone() {
            let seen = against_lru(seed, part, requests).await;
            let hits = seen.ours.blocks_hit as f64 / seen.lru.blocks_hit as f64;
            println!(
                "trace {seed}, {part}: hits {hits:.3}, written {:.3}",
                seen.written
            );
            assert!(
                hits >= least && seen.written <= 1.08,
                "of {part} of the blocks: hits {hits:.3}, written {:.3}",
                seen.written
            );
        }
    }
}
