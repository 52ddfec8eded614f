//! Puts in bursts on a small partition: room is made while they wait, not when the next one comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bed::{Hands, NS, identity, on_file, value};
use crate::engine::faulty::Faulty;
use crate::layout::Layout;
use crate::{Namespace, Put, PutOptions, Store};

const SEGMENT: u64 = 1 << 20;
const SEGMENTS: u32 = 96;
const VALUE: usize = 128 << 10;

async fn bursts(at_once: usize, puts: u64) {
    let (medium, hands) = (Faulty::default(), Hands::new());
    let layout = Layout {
        segment_len: SEGMENT,
        segments: SEGMENTS,
    };
    let (store, _) = Store::with_engine(
        Arc::new(medium),
        0,
        (1 << 20) + u64::from(SEGMENTS) * SEGMENT,
        layout,
        &identity(),
        hands.options(),
        |secret, namespace, key| secret.fingerprint(namespace, key),
    )
    .await
    .unwrap();
    let bytes = Arc::new(value(1, VALUE));
    let turns = Arc::new(Semaphore::new(at_once));
    let mut all = JoinSet::new();
    for number in 0..puts {
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let (store, bytes) = (store.clone(), Arc::clone(&bytes));
        all.spawn(async move {
            let key = number.to_le_bytes();
            let put = store
                .put_bytes(NS, &key, &bytes, PutOptions::default())
                .await;
            drop(turn);
            put
        });
    }
    while let Some(put) = all.join_next().await {
        let put = put.unwrap().unwrap();
        assert!(matches!(put, Put::Stored(_)), "{put:?}");
    }
    assert!(store.stats().evicted_blocks > 0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_put_of_a_burst_is_dropped() {
    for at_once in [4, 16] {
        bursts(at_once, 2000).await;
    }
}

/// What is free lies scattered where blocks of many sizes went: a large one needs segments in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_blocks_find_room_among_small_ones() {
    const LEN: u64 = 512 << 20;
    const LARGE: u64 = 128;
    // In memory: each round of eviction flushes.
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(LEN).unwrap();
    let mut options = Hands::new().options();
    // Room is made at once or, where the wait goes unnoticed, not at all.
    options.patience = Duration::from_secs(60);
    let (store, _) = on_file(&file, LEN, options).await.unwrap();
    let small = value(1, VALUE);
    let large = Arc::new(value(2, 1 << 20));
    let mut number = 0_u64;
    while store.stats().free_segments > 90 {
        let key = number.to_le_bytes();
        let put = store.put_bytes(NS, &key, &small, PutOptions::default());
        put.await.unwrap();
        number += 1;
    }
    let other = Namespace(9);
    let mut all = JoinSet::new();
    for pod in 0..24_u64 {
        let (store, large) = (store.clone(), Arc::clone(&large));
        all.spawn(async move {
            for turn in 0..40 {
                let again = (pod * 37 + turn * 11) % LARGE;
                let new = pod << 32 | turn;
                let key = if pod % 2 > 0 { again } else { new }.to_le_bytes();
                // What is read stays: blocks of both sizes are moved.
                let warm = (turn * 7 + pod).to_le_bytes();
                let _either = store.get_bytes(NS, &warm).await.unwrap();
                if store.get_bytes(other, &key).await.unwrap().is_none() {
                    let put = store.put_bytes(other, &key, &large, PutOptions::default());
                    let put = put.await.unwrap();
                    assert!(matches!(put, Put::Stored(_)), "{put:?}");
                }
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    store.close().await;
}
