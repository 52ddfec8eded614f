//! Values that do not fit the arena pass in parts, and go on where they stood.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::time::Duration;

use bed::Bed;
use futures::future::join_all;
use strand_kv_client::{Client, Connection, Error, Next, Options, Put, PutOptions};

const MIB: usize = 1 << 20;

async fn put(client: &Client, key: &[u8], value: &[u8]) -> Put {
    let put = client.put(key, value, PutOptions::default());
    put.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_larger_than_the_arena() {
    let bed = Bed::with(8 * MIB, 64 * MIB);
    let client = bed.client().await;
    for length in [
        4 * MIB,
        4 * MIB + 1,
        5 * MIB - 1,
        5 * MIB,
        33 * MIB + 7,
        128 * MIB,
    ] {
        let value = bed::value(length as u64, length);
        assert_eq!(put(&client, b"k", &value).await, Put::Stored, "{length}");
        let found = client.fetch(b"k").await.unwrap().unwrap();
        assert_eq!(found.length(), length as u64);
        assert!(bed::whole(found).await.unwrap() == value, "{length}");
        assert_eq!(client.length(b"k").await.unwrap(), Some(length as u64));
    }
    assert!(matches!(client.get(b"k").await, Err(Error::Larger { .. })));
    let too_long = client.upload(b"k", (128 * MIB + 1) as u64).await;
    assert!(too_long.unwrap_err().to_string().contains("134217728"));
    assert!(client.upload(b"k", 0).await.is_err());
    let absent = PutOptions {
        only_if_absent: true,
        ..PutOptions::default()
    };
    let value = bed::value(1, 6 * MIB);
    assert_eq!(
        client.put(b"k", &value, absent).await.unwrap(),
        Put::Present
    );
    assert!(client.delete(b"k").await.unwrap());
    assert!(client.fetch(b"k").await.unwrap().is_none());
    let counters = client.counters();
    assert_eq!((counters.hits, counters.misses, counters.lost), (6, 1, 0));
    drop(client);
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_the_arena() {
    let bed = Bed::with(8 * MIB, 64 * MIB);
    let patient = |options: &mut Options| options.patience = 3 * bed::PATIENCE;
    let client = bed.client_with(patient).await;
    let tasks = (0..24u64).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            let value = bed::value(task, 5 * MIB + task as usize);
            let small = bed::value(task, 3 * MIB);
            let key = task.to_le_bytes();
            assert_eq!(put(&client, &key, &value).await, Put::Stored);
            assert_eq!(put(&client, &[1], &small).await, Put::Stored);
            let found = client.fetch(&key).await.unwrap().expect("a hit");
            assert!(bed::whole(found).await.unwrap() == value);
            let block = client.get(&[1]).await.unwrap().expect("a hit");
            assert_eq!(block.len(), 3 * MIB);
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    drop(client);
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_on_in_the_next_session_if_it_is_the_same() {
    let bed = Bed::with(8 * MIB, 256 * MIB);
    let client = bed
        .client_with(|options| options.patience = bed::PATIENCE)
        .await;
    let value = bed::value(1, 9 * MIB + 5);
    put(&client, b"same", &value).await;
    put(&client, b"other", &value).await;
    let mut same = client.fetch(b"same").await.unwrap().unwrap();
    let mut other = client.fetch(b"other").await.unwrap().unwrap();
    let mut bytes = same.next().await.unwrap().unwrap().to_vec();
    assert!(other.next().await.unwrap().is_some());
    let mut upload = (client.upload(b"half", 6 << 20).await.unwrap()).unwrap();
    assert!(matches!(upload.next().await, Next::Fill(_)));

    let Bed {
        node,
        door,
        directory,
    } = bed;
    let session = client.connection();
    drop(door);
    let bed = Bed::at(directory, node);
    let next = tokio::time::timeout(bed::PATIENCE, async {
        loop {
            match client.connection() {
                up @ Connection::Up { .. } if up != session => return,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    next.await.expect("no next session");
    let replaced = put(&client, b"other", &bed::value(2, 9 * MIB + 5)).await;
    assert_eq!(replaced, Put::Stored);
    while let Some(part) = same.next().await.unwrap() {
        bytes.extend_from_slice(&part);
    }
    assert!(bytes == value);
    // Parts that were read ahead may still be given; then it is known to be another one.
    let lost = loop {
        match other.next().await {
            Ok(part) => assert!(part.is_some(), "half of one value, half of another"),
            Err(lost) => break lost,
        }
    };
    assert!(lost.to_string().contains("replaced"), "{lost}");
    while matches!(upload.next().await, Next::Fill(_)) {}
    let half = upload.commit(b"half", PutOptions::default()).await;
    assert_eq!(half.unwrap(), Put::Dropped);
    let counters = client.counters();
    assert_eq!((counters.resumed, counters.lost), (1, 1));
    drop((same, other, client));
    bed.at_rest().await;
}

#[tokio::test]
async fn many_keys_are_deleted_in_one_round_trip() {
    let bed = Bed::new();
    let client = bed.client().await;
    let keys: Vec<_> = (0..500u32).map(u32::to_le_bytes).collect();
    for key in &keys[..300] {
        put(&client, key, key).await;
    }
    assert_eq!(client.delete_many(&keys).await.unwrap(), 300);
    assert_eq!(client.delete_many(&keys).await.unwrap(), 0);
    assert_eq!(client.leading_run(&keys).await.unwrap(), 0);
}
