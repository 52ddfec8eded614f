//! The map changes: only what must move moves, what has moved is still found, and nothing old comes back.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bed::proxy::Mode;
use bed::{Bed, NS, value, wait};
use strand_kv_client::{Error, Put, PutOptions};

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("epoch {number}").into_bytes())
        .collect()
}

fn block(key: usize) -> Vec<u8> {
    value(key as u64, 5000 + 977 * key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_change_under_load_keeps_hits_and_moves_only_what_must_move() {
    let mut bed = Bed::new(3).await;
    let fourth = bed.join(|_| {}).await;
    let keys = Arc::new(keys(200));
    for (number, key) in keys.iter().enumerate() {
        let put = bed
            .client(number % 3)
            .put(key, &block(number), PutOptions::default())
            .await;
        assert_eq!(put.unwrap(), Put::Stored);
    }
    let before: Vec<_> = keys.iter().map(|key| bed.holders(key)).collect();
    let (stop, rounds) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let readers: Vec<_> = (0..3)
        .map(|member| {
            let client = bed.client(member).clone();
            let (keys, stop, rounds) = (Arc::clone(&keys), Arc::clone(&stop), Arc::clone(&rounds));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    for (number, key) in keys.iter().enumerate() {
                        let found = client.get(key).await.unwrap();
                        let found = found.unwrap_or_else(|| panic!("block {number} was lost"));
                        assert!(found[..] == block(number)[..]);
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    wait(|| rounds.load(Ordering::Relaxed) >= 3).await;
    bed.map(vec![0, 1, 2, fourth]);
    let at_change = rounds.load(Ordering::Relaxed);
    wait(|| rounds.load(Ordering::Relaxed) >= at_change + 6).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let former: u64 = bed
        .members
        .iter()
        .map(|member| member.rack.stats().former_hits)
        .sum();
    assert!(former > 0, "nothing was read at a former owner");
    for client in 0..4 {
        assert_eq!(
            bed.client(client).leading_run(&keys).await.unwrap(),
            keys.len()
        );
        let there = bed.client(client).exists_many(&keys[..]).await.unwrap();
        assert!(there.iter().all(|there| *there));
    }

    // Put again: what the fourth owns now moves there, the rest stays, and no copy is left behind.
    for (number, key) in keys.iter().enumerate() {
        bed.client(number % 4)
            .put(key, &block(number), PutOptions::default())
            .await
            .unwrap();
    }
    let mut moved = 0;
    for (key, before) in keys.iter().zip(before) {
        let now = bed.holders(key);
        assert_eq!(now.len(), 1, "a copy was left behind");
        assert!(
            now == before || now == [fourth],
            "{before:?} went to {now:?}"
        );
        moved += usize::from(now == [fourth]);
    }
    assert!(
        (25..80).contains(&moved),
        "{moved} of 200 moved to one drive of four"
    );
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_or_overwritten_after_a_change_does_not_come_back_from_a_former_owner() {
    let mut bed = Bed::new(2).await;
    let third = bed.join(|_| {}).await;
    let keys = keys(60);
    for key in &keys {
        bed.client(0)
            .put(key, b"old", PutOptions::default())
            .await
            .unwrap();
    }
    bed.map(vec![0, 1, third]);
    let (deleted, rest) = keys.split_at(20);
    let (overwritten, expired) = rest.split_at(20);
    for key in deleted {
        assert!(bed.client(1).delete(key).await.unwrap());
    }
    for key in overwritten {
        bed.client(1)
            .put(key, b"new", PutOptions::default())
            .await
            .unwrap();
        // As if it were evicted: what is read then must not be the former one.
        let owner = bed.holders(key);
        assert_eq!(owner.len(), 1);
        bed.members[owner[0]].store.delete(NS, key).await.unwrap();
    }
    for key in expired {
        assert!(
            bed.client(1)
                .expire(key, Some(std::time::Duration::ZERO))
                .await
                .unwrap()
        );
    }
    for member in 0..3 {
        for key in &keys {
            let found = bed.client(member).get(key).await.unwrap();
            assert!(
                found.is_none(),
                "{:?} at {member}",
                String::from_utf8_lossy(key)
            );
        }
    }

    // With a former owner away, what it may have is not deleted by halves.
    for key in &keys {
        bed.client(0)
            .put(key, b"again", PutOptions::default())
            .await
            .unwrap();
    }
    bed.map(vec![0, third]);
    bed.members[1].proxy.set(Mode::Cut);
    for key in &keys {
        // Of the two of the first map it was owner or next for every key.
        match bed.client(0).delete(key).await {
            Err(Error::Refused { words, .. }) => assert!(words.contains("node-1"), "{words}"),
            other => panic!("{other:?}"),
        }
    }
    let flushed = bed.client(0).flush().await;
    assert!(matches!(flushed, Err(Error::Refused { .. })), "{flushed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn former_owners_are_forgotten_in_time() {
    let memory = std::time::Duration::from_secs(5);
    let mut bed = Bed::with(3, |options| options.memory = memory).await;
    let third = 2;
    bed.map(vec![0, 1]);
    let keys = keys(40);
    for key in &keys {
        bed.client(0)
            .put(key, b"old", PutOptions::default())
            .await
            .unwrap();
    }
    bed.map(vec![third]);
    assert_eq!(
        bed.client(third).leading_run(&keys).await.unwrap(),
        keys.len()
    );
    tokio::time::sleep(memory).await;
    assert_eq!(bed.client(third).leading_run(&keys).await.unwrap(), 0);
}
