//! The life of blocks on a file: put, get, restart.

use super::bed::{Hands, NS, file, on_file, value};
use crate::{CHUNK, Get, PAGE, Put, PutOptions, Region};

const LEN: u64 = 256 << 20;

const LENGTHS: [usize; 16] = [
    1,
    28,
    4095,
    PAGE,
    PAGE + 1,
    2 * PAGE - 1,
    16 << 10,
    (128 << 10) - 1,
    128 << 10,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    2 * CHUNK + 4095,
    (5 << 20) + 77,
    32 << 20,
    (33 << 20) + 4097,
];

async fn every_length_comes_back(threads: bool) {
    let file = file(LEN);
    let hands = Hands::new();
    let options = || {
        let mut options = hands.options();
        options.force_threads = threads;
        options
    };
    for restart in 0..3 {
        let (store, recovery) = on_file(&file, LEN, options()).await.unwrap();
        assert_eq!(recovery.formatted, restart == 0);
        assert_eq!(
            store.stats().engine,
            if threads { "threads" } else { "io_uring" }
        );
        if restart > 0 {
            assert_eq!(recovery.blocks, LENGTHS.len() as u64);
        }
        for (number, len) in LENGTHS.iter().enumerate() {
            let (key, bytes) = (format!("key-{number}"), value(number as u64, *len));
            if restart == 0 {
                let put = store
                    .put_bytes(NS, key.as_bytes(), &bytes, PutOptions::default())
                    .await
                    .unwrap();
                assert!(matches!(put, Put::Stored(_)), "{put:?} for {len}");
            }
            assert_eq!(store.len_of(NS, key.as_bytes()), Some(*len));
            let back = store.get_bytes(NS, key.as_bytes()).await.unwrap();
            assert!(back.as_deref() == Some(bytes.as_slice()), "{len} bytes");
            let open = store.open_value(NS, key.as_bytes()).await.unwrap().unwrap();
            let region = Region::anonymous(CHUNK).unwrap();
            let dst = region.span(0, CHUNK).unwrap();
            let mut whole = Vec::new();
            for chunk in 0..open.chunks() {
                let got = open.read(chunk, &dst).await.unwrap().unwrap();
                let mut part = vec![0; got];
                dst.copy_to(&mut part);
                whole.extend(part);
            }
            assert!(whole == bytes, "{len} bytes by chunks");
        }
        assert_eq!(store.get_bytes(NS, b"other").await.unwrap(), None);
        store.close().await;
    }
}

#[tokio::test]
async fn every_length_comes_back_by_io_uring() {
    every_length_comes_back(false).await;
}

#[tokio::test]
async fn every_length_comes_back_by_threads() {
    every_length_comes_back(true).await;
}

#[tokio::test]
async fn registered_arenas_serve_without_a_copy() {
    let file = file(LEN);
    let (store, _) = on_file(&file, LEN, Hands::new().options()).await.unwrap();
    let arena = Region::anonymous(16 << 20).unwrap();
    store.register(&arena).unwrap();
    let bytes = value(1, 5 << 20);
    let src = arena.span(0, 5 << 20).unwrap();
    src.copy_from(&bytes);
    let put = store
        .put(NS, b"k", vec![src], PutOptions::default())
        .await
        .unwrap();
    assert!(matches!(put, Put::Stored(_)));
    let slots: Vec<_> = (0..5)
        .map(|slot| arena.span((15 - 2 * slot) << 20, CHUNK).unwrap())
        .collect();
    let got = store.get(NS, b"k", &slots).await.unwrap();
    assert!(matches!(got, Get::Hit { len, .. } if len == 5 << 20));
    for (slot, chunk) in slots.iter().zip(bytes.chunks(CHUNK)) {
        let mut back = vec![0; CHUNK];
        slot.copy_to(&mut back);
        assert!(back == chunk);
    }
    store.unregister(&arena).unwrap();
    let got = store.get(NS, b"k", &slots).await.unwrap();
    assert!(matches!(got, Get::Hit { .. }));
    store.close().await;
}

/// Also where there is room enough: the drive shall know what it need not keep.
#[tokio::test]
async fn what_holds_nothing_any_more_is_freed_and_trimmed() {
    let file = file(LEN);
    let hands = Hands::new();
    let (store, _) = on_file(&file, LEN, hands.options()).await.unwrap();
    let before = store.stats().free_segments;
    for number in 0..64_u64 {
        let (key, bytes) = (number.to_le_bytes(), value(number, 1 << 20));
        let put = store.put_bytes(NS, &key, &bytes, PutOptions::default());
        assert!(matches!(put.await.unwrap(), Put::Stored(_)));
    }
    assert!(store.stats().free_segments + 32 < before);
    store.flush_namespace(NS).await.unwrap();
    let freed = async {
        loop {
            let stats = store.stats();
            // What is open stays so, and the fact that the namespace was flushed.
            if stats.free_segments + 24 > before && stats.trimmed_bytes > 40 << 20 {
                return;
            }
            // The store's clock stands unless it is moved.
            hands.advance(std::time::Duration::from_secs(1));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let patience = std::time::Duration::from_secs(120);
    let waited = tokio::time::timeout(patience, freed).await;
    assert!(
        waited.is_ok(),
        "{before} free before, now {:?}",
        store.stats()
    );
    store.close().await;
}
