//! What a restart does not change: how much may still be written, and what was used lately.

use std::time::Duration;

use super::bed::{Hands, NS, on_faulty, value};
use crate::engine::faulty::Faulty;
use crate::{DropReason, Endurance, Put, PutOptions, Store};

const LEN: u64 = 40 << 20;

async fn put(store: &Store, key: u64, len: usize) -> Put {
    let bytes = value(key, len);
    let key = key.to_le_bytes();
    let put = store.put_bytes(NS, &key, &bytes, PutOptions::default());
    put.await.unwrap()
}

/// An agent that is killed again and again, each time after some megabytes of blocks: a day's budget and what flows in
/// during the day is all that is written, as if nothing had happened.
#[tokio::test]
async fn restarts_add_nothing_to_the_budget() {
    const BUDGET: u64 = 16 << 20;
    let hands = Hands::new();
    let mut options = hands.options();
    options.daily_write_budget = Some(BUDGET);
    let mut medium = Faulty::default();
    let (mut written, mut spent) = (0, false);
    for life in 0..40_u64 {
        let (store, recovery) = on_faulty(&medium, LEN, options.clone()).await.unwrap();
        assert_eq!(recovery.formatted, life == 0);
        for number in 0..4 {
            match put(&store, life << 32 | number, 200_000).await {
                Put::Stored(_) => written += 200_000,
                Put::Dropped(DropReason::FirstTouch | DropReason::Budget) => spent = true,
                other => panic!("{other:?}"),
            }
        }
        assert!(written <= BUDGET, "{written} bytes in life {life}");
        // By turns without a word and in order.
        let killed = medium.killed();
        let kill = life % 2 == 0;
        store.close().await;
        if kill {
            medium = killed;
        }
    }
    assert!(spent && written > BUDGET / 2, "{written} bytes");
    hands.advance(Duration::from_secs(86_400));
    let (store, _) = on_faulty(&medium, LEN, options).await.unwrap();
    assert_eq!(store.stats().endurance, Some(Endurance::Ample));
    assert!(
        store
            .stats()
            .endurance_left
            .is_some_and(|left| left > BUDGET * 9 / 10)
    );
    store.close().await;
}

/// How an agent ends in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    InOrder,
    Killed,
    /// And what was written down of the accesses is damaged.
    Damaged,
}

/// A third of what the partition holds, the oldest of it, is used again; then a flood comes. Which part of it is left, and
/// of the others.
async fn hot_and_cold_left(end: End) -> (f64, f64) {
    const VALUE: usize = 30_000;
    // Of what fits, so few that nothing is evicted yet.
    const BLOCKS: u64 = 780;
    let (medium, hands) = (Faulty::default(), Hands::new());
    let (mut store, _) = on_faulty(&medium, LEN, hands.options()).await.unwrap();
    for key in 0..BLOCKS {
        assert!(matches!(put(&store, key, VALUE).await, Put::Stored(_)));
    }
    for key in 0..BLOCKS / 3 {
        store.touch_run(NS, &[&key.to_le_bytes()]);
    }
    if end != End::Never {
        let after = match end {
            End::Killed => {
                store.shared.picture().await;
                medium.killed()
            }
            _ => medium,
        };
        store.close().await;
        if end == End::Damaged {
            for copy in crate::recency::COPIES {
                after.flip(copy + 20, 1);
            }
        }
        (store, _) = on_faulty(&after, LEN, hands.options()).await.unwrap();
    }
    let mut next = BLOCKS;
    while store.stats().evicted_blocks < BLOCKS / 6 {
        put(&store, next, VALUE).await;
        next += 1;
    }
    let left = |keys: std::ops::Range<u64>| {
        let many = keys.end - keys.start;
        let left = keys.filter(|key| store.len_of(NS, &key.to_le_bytes()).is_some());
        left.count() as f64 / many as f64
    };
    let both = (left(0..BLOCKS / 3), left(BLOCKS / 3..BLOCKS));
    store.close().await;
    both
}

#[tokio::test]
async fn what_was_hot_before_a_restart_is_not_evicted_first() {
    for end in [End::Never, End::InOrder, End::Killed, End::Damaged] {
        let (hot, cold) = hot_and_cold_left(end).await;
        println!("{end:?}: {hot:.2} of the hot ones are left, {cold:.2} of the cold ones");
        assert_eq!(
            hot > cold,
            end != End::Damaged,
            "{end:?}: {hot:.2}, {cold:.2}"
        );
    }
}
