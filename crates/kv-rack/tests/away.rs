//! Peers that go away and come back: misses at once, puts elsewhere, nothing deleted or overwritten comes back.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bed::proxy::Mode;
use bed::{Bed, NS, value, wait};
use strand_kv_client::{Error, Put, PutOptions, Ttl};
use strand_kv_rack::PeerState;

const PATIENCE: Duration = Duration::from_millis(500);

/// What a busy machine of two cores adds.
const SLACK: Duration = Duration::from_secs(4);

async fn put(bed: &Bed, member: usize, key: &[u8], value: &[u8]) -> Put {
    bed.client(member)
        .put(key, value, PutOptions::default())
        .await
        .unwrap()
}

async fn has(bed: &Bed, member: usize, key: &[u8], value: &[u8]) -> bool {
    let block = bed.client(member).get(key).await.unwrap();
    block.is_some_and(|block| block[..] == *value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_peer_is_a_miss_in_time_and_at_once_afterwards_and_comes_back() {
    let bed = Bed::with(2, |options| options.patience = PATIENCE).await;
    let keys = bed.keys_of(1, 3, "frozen").await;
    assert!(has(&bed, 0, &keys[0], b"x").await);
    bed.members[1].proxy.set(Mode::Frozen);

    let start = Instant::now();
    assert!(bed.client(0).get(&keys[0]).await.unwrap().is_none());
    let first = start.elapsed();
    assert!(
        first >= PATIENCE / 2,
        "{first:?}: it did not wait for the peer"
    );
    assert!(first < PATIENCE + SLACK, "{first:?}");
    bed.until(0, 1, PeerState::Dead).await;
    let start = Instant::now();
    for _ in 0..10 {
        assert!(bed.client(0).get(&keys[1]).await.unwrap().is_none());
        assert!(!bed.client(0).exists(&keys[2]).await.unwrap());
    }
    let next = start.elapsed();
    assert!(next < SLACK, "{next:?} for twenty requests");
    println!("first miss after {first:?}, the next twenty in {next:?}");

    bed.members[1].proxy.set(Mode::Open);
    bed.until(0, 1, PeerState::Up).await;
    for key in &keys {
        assert!(has(&bed, 0, key, b"x").await);
    }
    assert!(bed.members[0].sees("node-1").deaths >= 1);
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_takes_longer_than_the_patience_is_no_dead_peer() {
    // Without optimization, on a busy machine, a checksum alone takes tens of milliseconds a chunk.
    let patience = Duration::from_millis(600);
    let bed = Bed::with(2, |options| options.patience = patience).await;
    let keys = bed.keys_of(1, 1, "long").await;
    assert!(has(&bed, 0, &keys[0], b"x").await);
    let long = value(3, 4 << 20);
    // 64 KiB in 30 ms: two seconds.
    let shared = &bed.members[1].proxy.shared;
    shared.slow.store(30_000, Ordering::Relaxed);
    let start = Instant::now();
    assert_eq!(put(&bed, 0, &keys[0], &long).await, Put::Stored);
    assert!(start.elapsed() > 2 * patience, "{:?}", start.elapsed());
    let start = Instant::now();
    let found = has(&bed, 0, &keys[0], &long).await;
    assert!(
        found,
        "{:?} {:?}",
        start.elapsed(),
        bed.members[0].sees("node-1")
    );
    assert!(start.elapsed() > 2 * patience, "{:?}", start.elapsed());
    assert_eq!(bed.members[0].rack.stats().diverted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_elsewhere_meanwhile_is_what_is_read_and_the_owner_forgets_its_own() {
    let bed = Bed::new(3).await;
    let keys = bed.keys_of(1, 2, "divert").await;
    bed.members[1].proxy.set(Mode::Cut);
    bed.until_asked_in_vain(0, 1, &keys[0]).await;

    assert_eq!(put(&bed, 0, &keys[0], b"newer").await, Put::Stored);
    assert_eq!(bed.members[0].rack.stats().diverted, 1);
    assert!(
        has(&bed, 0, &keys[0], b"newer").await,
        "the next owner has it"
    );
    assert_eq!(bed.members[0].rack.stats().owed, 1);
    let left = bed.client(0).ttl(&keys[0]).await.unwrap();
    assert!(
        matches!(left, Ttl::Left(left) if left <= Duration::from_secs(3600)),
        "{left:?}"
    );

    bed.members[1].proxy.set(Mode::Open);
    bed.until(0, 1, PeerState::Up).await;
    wait(|| bed.members[0].rack.stats().owed == 0).await;
    assert!(
        bed.members[1].store.len_of(NS, &keys[0]).is_none(),
        "it was owed"
    );
    assert!(bed.members[1].store.len_of(NS, &keys[1]).is_some());
    assert!(!has(&bed, 2, &keys[0], b"x").await, "it was overwritten");
    // What was put beside would be an old block the next time that the owner is away.
    wait(|| bed.holders(&keys[0]).is_empty()).await;
    assert_eq!(put(&bed, 0, &keys[0], b"newest").await, Put::Stored);
    assert_eq!(bed.holders(&keys[0]), [1], "what was put beside is gone");
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_cannot_reach_everyone_is_refused() {
    let bed = Bed::new(3).await;
    let keys = bed.keys_of(1, 1, "delete").await;
    bed.members[1].proxy.set(Mode::Cut);
    bed.until_asked_in_vain(0, 1, &keys[0]).await;
    let deleted = bed.client(0).delete(&keys[0]).await;
    assert!(matches!(deleted, Err(Error::Refused { .. })), "{deleted:?}");
    let expired = bed.client(0).expire(&keys[0], None).await;
    assert!(matches!(expired, Err(Error::Refused { .. })), "{expired:?}");
    let flushed = bed.client(0).flush().await;
    assert!(matches!(flushed, Err(Error::Refused { .. })), "{flushed:?}");
    bed.members[1].proxy.set(Mode::Open);
    bed.until(0, 1, PeerState::Up).await;
    assert!(bed.client(0).delete(&keys[0]).await.unwrap());
    assert!(!bed.client(2).exists(&keys[0]).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_is_away_is_as_a_peer_that_is() {
    let bed = Bed::new(3).await;
    let keys = bed.keys_of(1, 2, "drive").await;
    let own = bed.keys_of(0, 1, "own").await;
    let (drive, store) = (bed.members[1].drive, Arc::clone(&bed.members[1].store));
    bed.members[1].rack.remove_drive(drive);
    assert!(bed.client(0).get(&keys[0]).await.unwrap().is_none());
    assert!(bed.client(1).get(&keys[0]).await.unwrap().is_none());
    assert!(bed.client(0).delete(&keys[0]).await.is_err());
    assert_eq!(put(&bed, 0, &keys[0], b"newer").await, Put::Stored);
    assert_eq!(put(&bed, 1, &keys[1], b"mine").await, Put::Stored);
    assert!(has(&bed, 0, &keys[0], b"newer").await);
    bed.members[1].rack.add_drive(drive, store).await;
    wait(|| bed.members[0].rack.stats().owed == 0).await;
    assert!(bed.members[1].store.len_of(NS, &keys[0]).is_none());
    assert!(bed.members[1].store.len_of(NS, &keys[1]).is_none());
    assert!(!has(&bed, 2, &keys[0], b"x").await);

    let (drive, store) = (bed.members[0].drive, Arc::clone(&bed.members[0].store));
    bed.members[0].rack.remove_drive(drive);
    assert_eq!(put(&bed, 0, &own[0], b"newer").await, Put::Stored);
    bed.members[0].rack.add_drive(drive, store).await;
    assert!(
        !has(&bed, 0, &own[0], b"x").await,
        "an overwritten block of the node's own drive"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_copies_the_second_serves_while_the_first_is_away() {
    let bed = Bed::with(3, |options| options.copies = 2).await;
    let block = value(5, 3 << 20);
    let keys: Vec<_> = (0..12)
        .map(|number| format!("copy {number}").into_bytes())
        .collect();
    for key in &keys {
        assert_eq!(put(&bed, 0, key, &block).await, Put::Stored);
        assert_eq!(bed.holders(key).len(), 2);
    }
    bed.members[1].proxy.set(Mode::Cut);
    for key in &keys {
        assert!(has(&bed, 0, key, &block).await);
        assert!(has(&bed, 2, key, &block).await);
    }
    let present = bed.client(0).leading_run(&keys).await.unwrap();
    assert_eq!(present, keys.len());
    bed.at_rest().await;
}
