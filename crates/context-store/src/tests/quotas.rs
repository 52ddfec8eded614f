//! What a namespace may hold at most, whatever room there is.

use std::time::Duration;

use super::bed::{Hands, file, on_file, value};
use crate::{Namespace, Put, PutOptions, Share};

const LEN: u64 = 64 << 20;
const VALUE: usize = 64 << 10;
const BOUND: Namespace = Namespace(1);
const FREE: Namespace = Namespace(2);

fn quarter() -> [(Namespace, Share); 1] {
    let share = Share {
        weight: 1,
        most: Some(0.25),
    };
    [(BOUND, share)]
}

async fn holds(store: &crate::Store, namespace: Namespace) -> u64 {
    let key = |number: u64| number.to_le_bytes();
    let there = (0..2000).filter(|number| store.len_of(namespace, &key(*number)).is_some());
    there.count() as u64 * (VALUE + 4096) as u64
}

/// Waits, for a minute at most, until the namespace holds little enough.
async fn comes_within(store: &crate::Store, most: u64) {
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        while holds(store, BOUND).await > most {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    patience.await.unwrap();
}

#[tokio::test]
async fn its_own_coldest_blocks_go_and_stay_gone_and_nobody_elses() {
    let file = file(LEN);
    let options = || Hands::new().options();
    let (store, _) = on_file(&file, LEN, options()).await.unwrap();
    let most = store.stats().capacity / 4;
    let blocks = most / (VALUE + 4096) as u64;
    store.set_shares(&quarter());
    let bytes = value(3, VALUE);
    let put = async |namespace, number: u64| {
        let key = number.to_le_bytes();
        let put = store.put_bytes(namespace, &key, &bytes, PutOptions::default());
        put.await.unwrap()
    };
    for number in 0..blocks / 2 {
        assert!(matches!(put(FREE, number).await, Put::Stored(_)));
    }
    // Twice as much as it may hold, while the first is used again and again.
    let mut refused = 0;
    for number in 0..2 * blocks {
        match put(BOUND, number).await {
            Put::Stored(_) => {}
            Put::Dropped(crate::DropReason::Quota) => refused += 1,
            other => panic!("{other:?}"),
        }
        let first = 0_u64.to_le_bytes();
        assert!(
            store.get_bytes(BOUND, &first).await.unwrap().is_some(),
            "the hottest went"
        );
    }
    assert!(refused < blocks / 2, "{refused} of {} refused", 2 * blocks);
    comes_within(&store, most).await;
    let held = holds(&store, BOUND).await;
    assert!(held > most / 2, "{held} of {most}: more went than had to");
    assert_eq!(
        holds(&store, FREE).await,
        blocks / 2 * (VALUE + 4096) as u64
    );
    let gone = (0..2 * blocks).find(|number| store.len_of(BOUND, &number.to_le_bytes()).is_none());
    let gone = gone.unwrap().to_le_bytes();
    assert!(!store.delete(BOUND, &gone).await.unwrap());
    store.close().await;

    // Without a bound after a restart: what went is not found again.
    let (store, _) = on_file(&file, LEN, options()).await.unwrap();
    assert_eq!(holds(&store, BOUND).await, held);
    assert!(store.len_of(BOUND, &gone).is_none());
    // A bound that comes later counts for what is there.
    let share = Share {
        weight: 1,
        most: Some(0.05),
    };
    store.set_shares(&[(BOUND, share)]);
    comes_within(&store, store.stats().capacity / 20).await;
    store.close().await;
}

#[tokio::test]
async fn a_block_larger_than_all_it_may_hold_is_refused_in_words() {
    let file = file(LEN);
    let (store, _) = on_file(&file, LEN, Hands::new().options()).await.unwrap();
    let share = Share {
        weight: 1,
        most: Some(0.001),
    };
    store.set_shares(&[(BOUND, share)]);
    let bytes = value(1, 1 << 20);
    let put = store.put_bytes(BOUND, b"k", &bytes, PutOptions::default());
    assert_eq!(put.await.unwrap(), Put::Dropped(crate::DropReason::Quota));
    assert_eq!(store.stats().dropped_quota, 1);
    store.close().await;
}

/// Of two that by turns write more than half of what there is room for, each keeps what shelters it, whoever wrote last.
#[tokio::test]
async fn room_is_shared_by_weight() {
    let file = file(LEN);
    let (store, _) = on_file(&file, LEN, Hands::new().options()).await.unwrap();
    let bytes = value(5, VALUE);
    let both = [BOUND, FREE];
    let mut number = 0_u64;
    for weights in [[1, 3], [3, 1]] {
        let shares = both.into_iter().zip(weights);
        let shares: Vec<_> = shares
            .map(|(namespace, weight)| (namespace, Share { weight, most: None }))
            .collect();
        store.set_shares(&shares);
        for round in 0..4 {
            for namespace in both {
                for _ in 0..LEN as usize * 6 / 10 / VALUE {
                    number += 1;
                    let key = number.to_le_bytes();
                    let put = store.put_bytes(namespace, &key, &bytes, PutOptions::default());
                    put.await.unwrap();
                }
            }
            let held = both.map(|namespace| store.namespace_stats(namespace).unwrap().bytes);
            let parts = held.map(|bytes| bytes * 100 / (held[0] + held[1]));
            for (part, weight) in parts.into_iter().zip(weights) {
                // Nine tenths of a share are sheltered, and what is on its way out is counted no more.
                let share = 25 * u64::from(weight);
                assert!(
                    part >= share * 8 / 10,
                    "round {round}, weights {weights:?}: {parts:?} of 100"
                );
            }
        }
    }
    store.close().await;
}
