//! Media that lie, fail and fill up; keys that collide.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bed::{Hands, NS, faults, identity, on_faulty, value};
use crate::engine::faulty::Faulty;
use crate::hash::Fingerprint;
use crate::layout::Layout;
use crate::record::Shape;
use crate::{
    CHUNK, DriveFault, Get, Identity, Namespace, OpenError, PAGE, Put, PutOptions, Region, Store,
    StoreError,
};

const LEN: u64 = 40 << 20;

async fn put(store: &Store, namespace: Namespace, key: &str, bytes: &[u8]) -> Put {
    store
        .put_bytes(namespace, key.as_bytes(), bytes, PutOptions::default())
        .await
        .unwrap()
}

/// Byte of the partition at which a block's record starts.
fn place(store: &Store, key: &str) -> u64 {
    let print = store.shared.fingerprint(NS, key.as_bytes());
    let entry = store.shared.core().index.get(print).unwrap();
    store
        .shared
        .address(u32::from(entry.segment), u64::from(entry.place) * 64)
}

#[tokio::test]
async fn a_flipped_bit_is_a_miss_and_only_the_stores_own_bytes_count_against_the_drive() {
    let shape = Shape {
        len: 2 * CHUNK + 100,
        key: 1,
    };
    let front = (shape.meta_pages() * PAGE) as u64;
    // Offset in the record, and whether the drive is to blame.
    let flips = [
        (5, true),
        (40, true),
        (72, true),
        (80, true),
        (72 + 1 + 3 * 8 + 50, false),
        (front + 5, false),
        (front + CHUNK as u64, false),
        (front + 2 * CHUNK as u64 - 1, false),
    ];
    for (offset, blamed) in flips {
        let medium = Faulty::default();
        let mut options = Hands::new().options();
        let seen = faults(&mut options);
        let (store, _) = on_faulty(&medium, LEN, options.clone()).await.unwrap();
        put(&store, NS, "k", &value(1, shape.len)).await;
        put(&store, NS, "other", &value(2, shape.len)).await;
        medium.flip(place(&store, "k") + offset, 0x10);
        assert_eq!(
            store.get_bytes(NS, b"k").await.unwrap(),
            None,
            "at {offset}"
        );
        assert_eq!(!seen.lock().unwrap().is_empty(), blamed, "at {offset}");
        assert!(store.get_bytes(NS, b"other").await.unwrap().is_some());
        // It stays gone.
        assert_eq!(store.len_of(NS, b"k"), None);
        let copy = store.clone();
        copy.close().await;
        let (store, _) = on_faulty(&medium, LEN, options).await.unwrap();
        assert_eq!(store.get_bytes(NS, b"k").await.unwrap(), None);
        store.close().await;
    }
}

#[tokio::test]
async fn a_corrupt_last_chunk_of_a_streamed_value_is_noticed_there() {
    let medium = Faulty::default();
    let (store, _) = on_faulty(&medium, LEN, Hands::new().options())
        .await
        .unwrap();
    put(&store, NS, "k", &value(1, 3 * CHUNK)).await;
    medium.flip(place(&store, "k") + (PAGE + 3 * CHUNK - 1) as u64, 1);
    let open = store.open_value(NS, b"k").await.unwrap().unwrap();
    let dst = Region::anonymous(CHUNK).unwrap().span(0, CHUNK).unwrap();
    assert_eq!(open.read(0, &dst).await.unwrap(), Some(CHUNK));
    assert_eq!(open.read(1, &dst).await.unwrap(), Some(CHUNK));
    assert_eq!(open.read(2, &dst).await.unwrap(), None);
    drop(open);
    assert_eq!(store.stats().payload_mismatches, 1);
    store.close().await;
}

#[tokio::test]
async fn a_drive_that_fails_is_an_error_and_is_counted_and_the_rest_goes_on() {
    let medium = Faulty::default();
    let mut options = Hands::new().options();
    let seen = faults(&mut options);
    options.patience = Duration::from_millis(50);
    let (store, _) = on_faulty(&medium, LEN, options).await.unwrap();
    let bytes = value(1, 300_000);
    put(&store, NS, "k", &bytes).await;
    medium.state().fail_reads = true;
    let failed = store.get_bytes(NS, b"k").await;
    assert!(matches!(failed, Err(StoreError::Drive(_))), "{failed:?}");
    medium.state().fail_reads = false;
    assert_eq!(
        store.get_bytes(NS, b"k").await.unwrap(),
        Some(bytes.clone())
    );
    medium.state().fail_writes = true;
    for (key, len) in [("large", 300_000), ("small", 10)] {
        let failed = store
            .put_bytes(NS, key.as_bytes(), &value(2, len), PutOptions::default())
            .await;
        assert!(matches!(failed, Err(StoreError::Drive(_))), "{failed:?}");
    }
    assert!(store.delete(NS, b"k").await.is_err());
    assert_eq!(store.get_bytes(NS, b"k").await.unwrap(), Some(bytes));
    medium.state().fail_writes = false;
    assert!(store.delete(NS, b"k").await.unwrap());
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|fault| matches!(fault, DriveFault::Io { .. }))
    );
    assert!(seen.lock().unwrap().len() >= 4);
    store.close().await;
}

#[tokio::test]
async fn a_partition_is_opened_as_what_it_is_alone() {
    let medium = Faulty::default();
    let (store, _) = on_faulty(&medium, LEN, Hands::new().options())
        .await
        .unwrap();
    store.close().await;
    let layout = Layout::new(0, LEN).unwrap();
    let other = Identity {
        pool: "pool-b".to_owned(),
        ..identity()
    };
    let open = |medium: &Faulty, identity: Identity, len: u64| {
        let engine = Arc::new(medium.clone());
        async move {
            Store::with_engine(
                engine,
                0,
                len,
                layout,
                &identity,
                Hands::new().options(),
                |secret, namespace, key| secret.fingerprint(namespace, key),
            )
            .await
            .map(|_| ())
        }
    };
    assert!(matches!(
        open(&medium, other, LEN).await,
        Err(OpenError::OthersDrive { .. })
    ));
    assert!(matches!(
        open(&medium, identity(), LEN + 4096).await,
        Err(OpenError::OtherSize { .. })
    ));
    // A version of the future.
    let newer = medium.killed();
    newer.flip(16, 2);
    let refused = open(&newer, identity(), LEN).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Newer { found: 3, .. }),
        "{refused}"
    );
    // One bad copy is repaired, two are refused.
    let torn = medium.killed();
    torn.flip(40, 1);
    open(&torn, identity(), LEN).await.unwrap();
    torn.flip((64 << 10) + 40, 1);
    open(&torn, identity(), LEN).await.unwrap();
    torn.flip(40, 1);
    torn.flip((64 << 10) + 40, 1);
    assert!(matches!(
        open(&torn, identity(), LEN).await,
        Err(OpenError::NotOurs)
    ));
}

#[tokio::test]
async fn colliding_fingerprints_never_show_anothers_bytes() {
    let medium = Faulty::default();
    let layout = Layout::new(0, LEN).unwrap();
    let (store, _) = Store::with_engine(
        Arc::new(medium.clone()),
        0,
        LEN,
        layout,
        &identity(),
        Hands::new().options(),
        |_, _, _| Fingerprint([9; 12]),
    )
    .await
    .unwrap();
    let arena = Region::anonymous(CHUNK).unwrap();
    let dst = arena.span(0, CHUNK).unwrap();
    for len in [100, 5000, 300_000] {
        put(&store, Namespace(1), "secret", &vec![0xAA; len]).await;
        dst.copy_from(&vec![0; CHUNK]);
        let got = store
            .get(Namespace(2), b"secret", std::slice::from_ref(&dst))
            .await
            .unwrap();
        assert_eq!(got, Get::Miss);
        let mut seen = vec![1; CHUNK];
        dst.copy_to(&mut seen);
        assert!(
            seen.iter().all(|byte| *byte == 0),
            "foreign bytes reached an arena"
        );
        // Another key of the same namespace, of the same and of another length, is a miss as well.
        for key in [b"sEcret".as_slice(), b"s", &[7; 1000]] {
            let got = store
                .get(Namespace(1), key, std::slice::from_ref(&dst))
                .await
                .unwrap();
            assert_eq!(got, Get::Miss);
        }
    }
    store.close().await;
}

#[tokio::test]
async fn with_everything_held_puts_drop_in_bounded_time_and_recover_after() {
    let medium = Faulty::default();
    let hands = Hands::new();
    let mut options = hands.options();
    options.patience = Duration::from_millis(100);
    let (store, _) = on_faulty(&medium, LEN, options).await.unwrap();
    let mut pins = Vec::new();
    let mut pinned = Vec::new();
    let mut number = 0u64;
    let dropped = loop {
        let key = format!("k{number}");
        let began = Instant::now();
        let outcome = put(&store, NS, &key, &value(number, 200_000)).await;
        if let Put::Dropped(reason) = outcome {
            assert!(began.elapsed() < Duration::from_secs(5));
            break reason;
        }
        // It may have been evicted already: then there is nothing to pin.
        if let Some(pin) = store.pin(NS, key.as_bytes()) {
            pins.push(pin);
            pinned.push(number);
        }
        number += 1;
        assert!(number < 1000, "puts never drop");
    };
    assert_eq!(dropped, crate::DropReason::NoSpace);
    for number in pinned {
        let key = format!("k{number}");
        let bytes = store.get_bytes(NS, key.as_bytes()).await.unwrap();
        assert!(
            bytes.as_deref() == Some(&value(number, 200_000)),
            "pinned {number} is gone"
        );
    }
    drop(pins);
    let give_up = Instant::now() + Duration::from_secs(10);
    while !matches!(
        put(&store, NS, "after", &value(1, 200_000)).await,
        Put::Stored(_)
    ) {
        assert!(Instant::now() < give_up, "no room after the pins are gone");
    }
    store.close().await;
}

#[tokio::test]
async fn leased_blocks_stay_while_a_flood_of_puts_goes_through() {
    let medium = Faulty::default();
    let hands = Hands::new();
    let (store, _) = on_faulty(&medium, LEN, hands.options()).await.unwrap();
    let lost = |store: &Store, number: u64| {
        store
            .len_of(NS, format!("leased{number}").as_bytes())
            .is_none()
    };
    for number in 0..10 {
        put(
            &store,
            NS,
            &format!("leased{number}"),
            &value(number, 100_000),
        )
        .await;
    }
    for number in 0..10 {
        assert!(store.exists(NS, format!("leased{number}").as_bytes()));
    }
    for number in 0..800 {
        put(
            &store,
            NS,
            &format!("flood{number}"),
            &value(number, 100_000),
        )
        .await;
    }
    assert!(store.stats().evicted_blocks > 100);
    assert!((0..10).all(|number| !lost(&store, number)));
    hands.advance(Duration::from_secs(11));
    for number in 0..1500 {
        put(
            &store,
            NS,
            &format!("second{number}"),
            &value(number, 100_000),
        )
        .await;
    }
    assert!((0..10).all(|number| lost(&store, number)));
    store.close().await;
}

#[tokio::test]
async fn a_namespace_below_its_share_is_not_evicted_by_a_flood_of_anothers() {
    let medium = Faulty::default();
    let (store, _) = on_faulty(&medium, 80 << 20, Hands::new().options())
        .await
        .unwrap();
    let quiet = Namespace(1);
    for number in 0..60 {
        put(
            &store,
            quiet,
            &format!("q{number}"),
            &value(number, 100_000),
        )
        .await;
    }
    for number in 0..3000 {
        put(
            &store,
            Namespace(2),
            &format!("f{number}"),
            &value(number, 100_000),
        )
        .await;
    }
    let left = (0..60)
        .filter(|number| {
            store
                .len_of(quiet, format!("q{number}").as_bytes())
                .is_some()
        })
        .count();
    assert_eq!(left, 60);
    let counts = |space: Namespace| store.namespace_stats(space).unwrap().counts;
    assert_eq!((counts(quiet).puts, counts(quiet).evicted_blocks), (60, 0));
    assert_eq!(counts(Namespace(2)).puts, 3000);
    assert!(counts(Namespace(2)).evicted_blocks > 1000);
    store.close().await;
}

#[tokio::test]
async fn what_was_discarded_stays_away_after_a_kill_and_after_a_power_cut() {
    let medium = Faulty::default();
    let hands = Hands::new();
    let (store, _) = on_faulty(&medium, LEN, hands.options()).await.unwrap();
    for space in 1..40 {
        put(&store, Namespace(space), "k", &value(1, 5000)).await;
        put(&store, Namespace(space), "small", b"bytes").await;
    }
    store.discard_all().await.unwrap();
    put(&store, Namespace(3), "new", &value(2, 5000)).await;
    store.persist().await.unwrap();
    let found_later = [medium.killed(), medium.power_cut(|| false)];
    let mut stores = vec![store];
    for medium in &found_later {
        let opened = on_faulty(medium, LEN, hands.options()).await.unwrap();
        stores.push(opened.0);
    }
    for store in stores {
        for space in 1..40 {
            for key in ["k", "small"] {
                assert_eq!(store.len_of(Namespace(space), key.as_bytes()), None);
            }
        }
        assert_eq!(store.len_of(Namespace(3), b"new"), Some(5000));
        store.close().await;
    }
}

/// A drive that answers nothing for a while: gets that come meanwhile wait up to a bound, and are refused beyond it.
#[tokio::test]
async fn reads_that_wait_are_bounded_by_namespace_and_the_refused_ones_are_counted() {
    const VALUE: usize = 100_000;
    let medium = Faulty::default();
    let mut options = Hands::new().options();
    options.depth_bytes = 1 << 20;
    options.read_queue_bytes = 4 << 20;
    let (store, _) = on_faulty(&medium, LEN, options).await.unwrap();
    let quiet = Namespace(8);
    put(&store, NS, "k", &value(1, VALUE)).await;
    put(&store, quiet, "k", &value(2, VALUE)).await;
    medium.hold_reads();
    let get = |namespace: Namespace| {
        let store = store.clone();
        async move { store.get_bytes(namespace, b"k").await }
    };
    let mut gets = tokio::task::JoinSet::new();
    for _ in 0..200 {
        gets.spawn(get(NS));
    }
    // Those that are let wait do so until the drive answers; the others come back at once.
    let asked = |stats: &crate::Stats| stats.busy + stats.queued + stats.in_flight;
    while asked(&store.stats()) < 200 {
        tokio::task::yield_now().await;
    }
    let refused = usize::try_from(store.stats().busy).unwrap();
    for _ in 0..refused {
        let ended = gets.join_next().await.unwrap().unwrap();
        assert!(matches!(ended, Err(StoreError::Busy)), "{ended:?}");
    }
    let stats = store.stats();
    assert!(
        stats.queued_read_bytes <= 2 << 20 && refused > 100,
        "{refused} refused, {} bytes wait",
        stats.queued_read_bytes
    );
    // A neighbour still gets its turn.
    gets.spawn(get(quiet));
    tokio::task::yield_now().await;
    medium.let_reads_go();
    let mut served = 0;
    while let Some(ended) = gets.join_next().await {
        assert!(ended.unwrap().unwrap().is_some());
        served += 1;
    }
    assert_eq!(served, 200 - refused + 1);
    let counts = store.namespace_stats(NS).unwrap().counts;
    assert_eq!(
        (counts.busy, counts.hits),
        (refused as u64, served as u64 - 1)
    );
    store.close().await;
}
