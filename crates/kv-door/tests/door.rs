//! Client and door in one process: what each operation promises.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::time::Duration;

use bed::Bed;
use prometheus::TextEncoder;
use strand_kv_client::{Client, Error, Options, Put, PutOptions, Ttl};
use strand_kv_door::{Namespace, families};

#[tokio::test]
async fn a_block_goes_in_and_comes_out() {
    let bed = Bed::new();
    let client = bed.client().await;
    assert!(client.get(b"k").await.unwrap().is_none());
    let value = bed::value(7, 300_000);
    let put = client
        .put(b"k", &value, PutOptions::default())
        .await
        .unwrap();
    assert_eq!(put, Put::Stored);
    let block = client.get(b"k").await.unwrap().unwrap();
    assert_eq!(&block[..], &value[..]);
    bed.until(|usage| usage.leases == 1).await;
    drop(block);
    bed.until(|usage| usage.leases == 0).await;
    let counters = client.counters();
    assert_eq!((counters.hits, counters.misses, counters.puts), (1, 1, 1));
    let stats = bed.node.stats();
    assert_eq!(
        (stats.opened, stats.refused, stats.arena_bytes),
        (1, 0, 64 << 20)
    );
    assert_eq!(stats.namespaces.get(&Namespace(1)), Some(&stats.total));
    assert_eq!(
        (stats.total.read_bytes, stats.total.written_bytes),
        (300_000, 300_000)
    );
    let text = TextEncoder::new()
        .encode_to_string(&families(&[("rack", stats)]))
        .unwrap();
    for line in [
        "strand_context_door_requests_total{operation=\"get\",outcome=\"hit\",pool=\"rack\"} 1",
        "strand_context_door_requests_total{operation=\"get\",outcome=\"miss\",pool=\"rack\"} 1",
        "strand_context_door_requests_total{operation=\"put\",outcome=\"stored\",pool=\"rack\"} 1",
        "strand_context_door_seconds_count{operation=\"get\",pool=\"rack\"} 2",
        "strand_context_door_seconds_bucket{operation=\"get\",pool=\"rack\",le=\"+Inf\"} 2",
        "strand_context_door_arena_bytes{pool=\"rack\"} 67108864",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    drop(client);
    bed.at_rest().await;
}

#[tokio::test]
async fn every_operation() {
    let bed = Bed::new();
    let client = bed.client().await;
    let keys: Vec<Vec<u8>> = (0..3000u32)
        .map(|n| format!("key-{n}").into_bytes())
        .collect();
    for key in &keys[..10] {
        client.put(key, key, PutOptions::default()).await.unwrap();
    }
    let present = client.exists_many(&keys).await.unwrap();
    assert_eq!(present.len(), keys.len());
    assert!(
        present
            .iter()
            .enumerate()
            .all(|(at, there)| *there == (at < 10))
    );
    assert_eq!(client.leading_run(&keys).await.unwrap(), 10);
    assert_eq!(client.length(&keys[3]).await.unwrap(), Some(5));
    assert_eq!(client.ttl(&keys[3]).await.unwrap(), Ttl::Forever);
    assert_eq!(client.ttl(b"absent").await.unwrap(), Ttl::Absent);
    let hour = Duration::from_secs(3600);
    assert!(client.expire(&keys[3], Some(hour)).await.unwrap());
    assert!(matches!(client.ttl(&keys[3]).await.unwrap(), Ttl::Left(left) if left <= hour));
    assert!(client.expire(&keys[3], Some(Duration::ZERO)).await.unwrap());
    assert!(!client.exists(&keys[3]).await.unwrap());
    assert!(!client.expire(&keys[3], None).await.unwrap());
    let absent = PutOptions {
        only_if_absent: true,
        ..PutOptions::default()
    };
    assert_eq!(
        client.put(&keys[4], b"x", absent).await.unwrap(),
        Put::Present
    );
    assert_eq!(
        client.put(&keys[3], b"x", absent).await.unwrap(),
        Put::Stored
    );
    assert!(client.delete(&keys[4]).await.unwrap());
    assert!(!client.delete(&keys[4]).await.unwrap());
    assert_eq!(client.stats().await.unwrap().blocks, 9);
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let page = client.scan(cursor, 4).await.unwrap();
        seen.extend(page.keys);
        cursor = page.cursor;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen.len(), 9);
    client.flush().await.unwrap();
    assert_eq!(client.stats().await.unwrap().blocks, 0);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_in_words() {
    let bed = Bed::with(4 << 20, 64 << 20);
    let client = bed.client().await;
    let error = client.reserve(3 << 20).await.unwrap_err();
    assert!(
        matches!(error, Error::ValueLength { max: 0x20_0000, .. }),
        "{error}"
    );
    assert!(matches!(client.reserve(0).await, Err(Error::Empty)));
    let empty = client.put(b"k", b"", PutOptions::default()).await;
    assert!(matches!(empty, Err(Error::Empty)), "{empty:?}");
    assert!(matches!(client.upload(b"k", 0).await, Err(Error::Empty)));
    assert!(!client.exists(b"k").await.unwrap());
    let error = client.get(&[0; 1025]).await.unwrap_err();
    assert!(error.to_string().contains("1025"), "{error}");
    assert!(client.get(b"").await.is_err());
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let bed = Bed::new();
    let other = bed.door("other.sock", 2, 64 << 20);
    let (ours, theirs) = (bed.client().await, bed.client_of(&other).await);
    ours.put(b"k", b"ours", PutOptions::default())
        .await
        .unwrap();
    assert!(theirs.get(b"k").await.unwrap().is_none());
    assert!(!theirs.delete(b"k").await.unwrap());
    theirs.flush().await.unwrap();
    assert_eq!(&ours.get(b"k").await.unwrap().unwrap()[..], b"ours");
}

#[tokio::test]
async fn without_an_agent_there_are_misses_and_dropped_puts_but_no_silent_deletes() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(Options::new(directory.path().join("kv.sock")));
    assert!(client.get(b"k").await.unwrap().is_none());
    assert_eq!(
        client.put(b"k", b"v", PutOptions::default()).await.unwrap(),
        Put::Dropped
    );
    assert_eq!(
        client.exists_many(&[b"a", b"b"]).await.unwrap(),
        [false, false]
    );
    assert_eq!(client.leading_run(&[b"a"]).await.unwrap(), 0);
    let error = client.delete(b"k").await.unwrap_err();
    assert!(
        matches!(error, Error::Down { call: "delete", .. }),
        "{error}"
    );
    assert!(client.flush().await.is_err());
    let counters = client.counters();
    assert_eq!((counters.misses_down, counters.dropped_down), (1, 1));
}

#[tokio::test]
async fn a_put_that_waits_for_its_agent_is_sent_from_the_bytes_still_held() {
    let bed = Bed::new();
    let client = bed
        .client_with(|options| options.resend_within = bed::PATIENCE)
        .await;
    let value = bed::value(3, 2_500_000);
    let mut room = client.reserve(3 << 20).await.unwrap().unwrap();
    room[..value.len()].copy_from_slice(&value);
    room.truncate(value.len());
    // The session ends between the write and the commit, and another agent comes up later.
    let Bed {
        node,
        door,
        directory,
    } = bed;
    drop(door);
    let commit = tokio::spawn(room.commit(b"k", PutOptions::default()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bed = Bed::at(directory, node);
    assert_eq!(commit.await.unwrap().unwrap(), Put::Stored);
    assert_eq!(&client.get(b"k").await.unwrap().unwrap()[..], &value[..]);
    assert_eq!(client.counters().puts_resent, 1);
    drop(client);
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_changes_nothing_but_time() {
    let bed = Bed::new();
    let client = bed
        .client_with(|options| options.spin = Duration::from_micros(50))
        .await;
    for round in 0..2000u64 {
        let key = (round % 50).to_le_bytes();
        client
            .put(&key, &round.to_le_bytes(), PutOptions::default())
            .await
            .unwrap();
        let block = client.get(&key).await.unwrap().unwrap();
        assert_eq!(&block[..], &round.to_le_bytes());
    }
    drop(client);
    bed.at_rest().await;
}
