//! Puts in bursts on a small partition: room is made while they wait, not when the next one comes.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bed::{Hands, NS, identity, value};
use crate::engine::faulty::Faulty;
use crate::layout::Layout;
use crate::{Put, PutOptions, Store};

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
