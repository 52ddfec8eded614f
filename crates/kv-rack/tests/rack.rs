//! Blocks of all sizes through any node, batches, and a map that changes.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use bed::{Bed, value};
use strand_kv_client::{Options, Put, PutOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_one_node_puts_every_node_gets() {
    let bed = Bed::new(3).await;
    let sizes = [
        1,
        28,
        4095,
        4096,
        131_072,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        5_000_000,
        9 << 20,
    ];
    let keys: Vec<_> = (0..3)
        .flat_map(|from| sizes.map(|size| (from, size, format!("{from} {size}"))))
        .collect();
    for (from, size, key) in &keys {
        let value = value(*size as u64, *size);
        let put = bed
            .client(*from)
            .put(key.as_bytes(), &value, PutOptions::default())
            .await;
        assert_eq!(put.unwrap(), Put::Stored, "{key}");
    }
    let mut spread = [0; 3];
    for (_, size, key) in &keys {
        let holders = bed.holders(key.as_bytes());
        assert_eq!(holders.len(), 1, "{key}");
        spread[holders[0]] += 1;
        for member in 0..3 {
            let block = bed.client(member).get(key.as_bytes()).await.unwrap();
            let block = block.unwrap_or_else(|| panic!("{key} at {member}"));
            assert!(
                block[..] == value(*size as u64, *size)[..],
                "{key} at {member}"
            );
        }
    }
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
    let names: Vec<_> = keys.iter().map(|(_, _, key)| key).collect();
    assert_eq!(
        bed.client(1).leading_run(&names).await.unwrap(),
        names.len()
    );
    let all = bed.client(2).exists_many(&names).await.unwrap();
    assert!(all.iter().all(|there| *there));
    bed.client(0).delete(names[17].as_bytes()).await.unwrap();
    assert_eq!(bed.client(1).leading_run(&names).await.unwrap(), 17);
    let all = bed.client(1).exists_many(&names).await.unwrap();
    assert_eq!(all.iter().filter(|there| !**there).count(), 1);
    assert_eq!(
        bed.client(2).stats().await.unwrap().blocks,
        names.len() as u64 - 1
    );
    assert!(bed.client(2).get(b"nothing").await.unwrap().is_none());
    assert_eq!(
        bed.client(1).length(names[9].as_bytes()).await.unwrap(),
        Some(9 << 20)
    );
    bed.client(1).flush().await.unwrap();
    assert_eq!(bed.client(0).leading_run(&names).await.unwrap(), 0);
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_sees_every_key_of_every_drive() {
    let bed = Bed::new(3).await;
    let mut keys: Vec<_> = (0..500).map(|number| format!("key {number}")).collect();
    for key in &keys {
        bed.client(0)
            .put(key.as_bytes(), b"value", PutOptions::default())
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    let mut cursor = 0;
    loop {
        let page = bed.client(1).scan(cursor, 7).await.unwrap();
        seen.extend(
            page.keys
                .into_iter()
                .map(|key| String::from_utf8(key).unwrap()),
        );
        cursor = page.cursor;
        if cursor == 0 {
            break;
        }
    }
    keys.sort_unstable();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, keys);
}

/// Values that do not fit the pod's arenas come and go in parts, also over the wire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_larger_than_the_arena_through_any_node() {
    let bed = Bed::new(2).await;
    let keys = bed.keys_of(1, 2, "parts").await;
    for (number, length) in [(9 << 20) + 7, 40 << 20].into_iter().enumerate() {
        let (key, value) = (&keys[number], value(length as u64, length));
        for member in [0, 1] {
            let options = Options {
                get_bytes: 4 << 20,
                put_bytes: 4 << 20,
                ..Options::new(bed.members[member].door.path())
            };
            let client = bed::connect(options).await;
            let put = client.put(key, &value, PutOptions::default()).await;
            assert_eq!(put.unwrap(), Put::Stored);
            assert_eq!(bed.holders(key), [1]);
            let mut found = client.fetch(key).await.unwrap().expect("a hit");
            assert_eq!(found.length(), length as u64);
            let mut at = 0;
            while let Some(part) = found.next().await.unwrap() {
                assert!(part[..] == value[at..at + part.len()], "at {at}");
                at += part.len();
            }
            assert_eq!(at, length);
        }
    }
    // A value that is replaced while it is read in parts ends, and is not continued with the other one's bytes.
    let options = Options {
        get_bytes: 4 << 20,
        put_bytes: 4 << 20,
        ..Options::new(bed.members[0].door.path())
    };
    let client = bed::connect(options).await;
    let before = value(40 << 20, 40 << 20);
    let mut found = client.fetch(&keys[1]).await.unwrap().expect("a hit");
    let first = found.next().await.unwrap().expect("a part");
    assert!(first[..] == before[..first.len()]);
    let mut at = first.len();
    drop(first);
    let put = bed
        .client(1)
        .put(&keys[1], &value(3, 30 << 20), PutOptions::default())
        .await;
    assert_eq!(put.unwrap(), Put::Stored);
    while let Ok(Some(part)) = found.next().await {
        assert!(part[..] == before[at..at + part.len()], "at {at}");
        at += part.len();
    }
    assert!(
        at < before.len(),
        "the whole value came, though it was replaced"
    );
    drop(found);
    bed.at_rest().await;
}
