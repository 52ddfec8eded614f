//! Client and door in one process: what each operation promises.

mod bed;

use std::time::Duration;

use bed::Bed;
use strand_kv_client::{Error, Put, PutOptions, Ttl};

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
    let bed = Bed::new();
    let large = bed.client().await;
    let small = bed.client_with(|options| {
        options.get_bytes = 1 << 20;
        options.put_bytes = 2 << 20;
    });
    drop(large);
    bed.at_rest().await;
    let small = small.await;
    let _ = small;
    let bed = Bed::with(4 << 20, 64 << 20);
    let client = bed.client().await;
    let error = client.reserve(3 << 20).await.unwrap_err();
    assert!(
        matches!(error, Error::ValueLength { max: 0x20_0000, .. }),
        "{error}"
    );
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
