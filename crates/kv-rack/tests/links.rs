//! What goes over a link: late replies, tampering, keys, slow readers.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bed::proxy::Mode;
use bed::{Bed, NS, value, wait};
use strand_kv_client::{Options, Put, PutOptions};
use strand_kv_rack::{PeerKey, PeerState};

const MIB: usize = 1 << 20;

/// A get whose caller has gone leaves a peer that answers late with nowhere to answer to: the slot, given to somebody
/// else, keeps its bytes, and the link goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reply_lands_nowhere() {
    let bed = Bed::new(2).await;
    let keys = bed.keys_of(1, 2, "late").await;
    let mine = bed.keys_of(0, 1, "mine").await;
    let (slow, fast) = (value(1, MIB), value(2, MIB));
    for key in &keys {
        bed.client(1)
            .put(key, &slow, PutOptions::default())
            .await
            .unwrap();
    }
    bed.client(0)
        .put(&mine[0], &fast, PutOptions::default())
        .await
        .unwrap();
    let before = bed.members[0].sees("node-1").late_pieces;
    for round in 0..20 {
        bed.members[1].proxy.set(Mode::Frozen);
        // A session with one slot of GET, whose client goes away while its get waits for the frozen peer.
        let options = Options {
            get_bytes: MIB as u64,
            put_bytes: MIB as u64,
            ..Options::new(bed.members[0].door.path())
        };
        let client = bed::connect(options).await;
        let waiting = tokio::spawn({
            let (client, key) = (client.clone(), keys[round % 2].clone());
            async move { client.get(&key).await.map(|block| block.is_some()) }
        });
        wait(|| bed.members[0].sees("node-1").waiting > 0).await;
        waiting.abort();
        let _ = waiting.await;
        drop(client);
        wait(|| bed.members[0].node.usage().sessions == 1).await;
        // The reply comes while others use slots.
        bed.members[1].proxy.set(Mode::Open);
        let block = bed.client(0).get(&mine[0]).await.unwrap().unwrap();
        for _ in 0..20 {
            assert!(block[..] == fast[..], "round {round}");
            tokio::task::yield_now().await;
        }
        drop(block);
        bed.at_rest().await;
    }
    println!(
        "late pieces: {}",
        bed.members[0].sees("node-1").late_pieces - before
    );
    assert_eq!(bed.members[0].sees("node-1").deaths, 0);
    let block = bed.client(0).get(&keys[0]).await.unwrap().unwrap();
    assert!(block[..] == slow[..]);
}

/// A bit that is flipped in a value costs that request; one in a header costs the link, which comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_on_its_way_is_never_taken() {
    let bed = Bed::new(2).await;
    let keys = bed.keys_of(1, 1, "tamper").await;
    let block = value(9, 4 * MIB);
    bed.client(1)
        .put(&keys[0], &block, PutOptions::default())
        .await
        .unwrap();
    let shared = &bed.members[1].proxy.shared;
    assert!(bed.client(0).get(&keys[0]).await.unwrap().unwrap()[..] == block[..]);

    // In the middle of a payload.
    shared.flip_back.store(2 * MIB as u64, Ordering::Relaxed);
    assert!(bed.client(0).get(&keys[0]).await.unwrap().is_none());
    let seen = bed.members[0].sees("node-1");
    assert_eq!((seen.torn_pieces, seen.deaths), (1, 0), "the link goes on");
    assert!(bed.client(0).get(&keys[0]).await.unwrap().unwrap()[..] == block[..]);

    shared.flip_there.store(2 * MIB as u64, Ordering::Relaxed);
    let put = bed
        .client(0)
        .put(&keys[0], &value(10, 4 * MIB), PutOptions::default())
        .await;
    assert_eq!(put.unwrap(), Put::Dropped);
    assert_eq!(bed.members[1].rack.stats().torn_pieces, 1);
    assert_eq!(bed.members[0].sees("node-1").deaths, 0, "the link goes on");
    assert!(bed.client(0).get(&keys[0]).await.unwrap().unwrap()[..] == block[..]);

    // In a header, at the very next byte.
    for flip in [&shared.flip_back, &shared.flip_there] {
        let deaths = bed.members[0].sees("node-1").deaths;
        flip.store(9, Ordering::Relaxed);
        assert!(bed.client(0).get(&keys[0]).await.unwrap().is_none());
        wait(|| bed.members[0].sees("node-1").deaths > deaths).await;
        bed.until(0, 1, PeerState::Up).await;
        assert!(bed.client(0).get(&keys[0]).await.unwrap().unwrap()[..] == block[..]);
    }
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_another_key_or_another_pool_is_refused() {
    for (number, change) in [0, 1].into_iter().enumerate() {
        let mut bed = Bed::new(2).await;
        let stranger = bed
            .join(|options| match change {
                0 => options.key = PeerKey::new([8; 32]),
                _ => options.pool_id = "another pool".into(),
            })
            .await;
        bed.map(vec![0, 1, stranger]);
        let keys = bed.keys_of(1, 1, "stranger").await;
        assert!(
            bed.client(stranger).get(&keys[0]).await.unwrap().is_none(),
            "{number}"
        );
        bed.until(stranger, 1, PeerState::Dead).await;
        assert!(bed.client(stranger).delete(&keys[0]).await.is_err());
        assert!(bed.members[1].store.len_of(NS, &keys[0]).is_some());
        assert!(bed.client(0).get(&keys[0]).await.unwrap().is_some());
    }
}

/// A peer that asks for much and reads nothing keeps its share of the buffers, not those of others, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_costs_the_others_nothing() {
    let bed = Bed::with(3, |options| options.buffer_bytes = 16 << 20).await;
    let keys = bed.keys_of(1, 24, "slow").await;
    let block = value(4, MIB);
    for key in &keys {
        bed.client(1)
            .put(key, &block, PutOptions::default())
            .await
            .unwrap();
    }
    let link = bed.client(0).get(&keys[0]).await.unwrap();
    drop(link.unwrap());
    // Only member 0 goes through this proxy; member 2 has been told the address itself.
    bed.map_direct(2, 1);
    bed.members[1].proxy.set(Mode::Deaf);
    let asked: Vec<_> = (keys.iter().cloned())
        .map(|key| {
            let client = bed.client(0).clone();
            tokio::spawn(async move { client.get(&key).await.map(|block| block.is_some()) })
        })
        .collect();
    wait(|| bed.members[1].rack.stats().buffered_bytes > 0).await;
    for key in &keys {
        let got = bed.client(2).get(key).await.unwrap().expect("a hit");
        assert!(got[..] == block[..]);
    }
    // The owner lets the one go that does not read.
    wait(|| bed.members[1].rack.stats().buffered_bytes == 0).await;
    bed.members[1].proxy.set(Mode::Open);
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    tokio::time::timeout(Duration::from_secs(20), bed.at_rest())
        .await
        .unwrap();
}

/// Values for which the credit is too small all pass, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_asks_for_no_more_than_its_credit() {
    let credit = 4 * MIB;
    let bed = Bed::with(2, |options| options.in_flight_bytes = credit).await;
    let keys = bed.keys_of(1, 12, "credit").await;
    for (number, key) in keys.iter().enumerate() {
        let length = 1000 + number * MIB / 2;
        bed.client(1)
            .put(key, &value(number as u64, length), PutOptions::default())
            .await
            .unwrap();
    }
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let rack = bed.members[0].rack.clone();
    let watch = tokio::spawn(async move {
        let mut most = 0;
        while stopped.try_recv().is_err() {
            most = most.max(rack.stats().in_flight_bytes);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        most
    });
    let asked: Vec<_> = (keys.iter().cloned().enumerate())
        .map(|(number, key)| {
            let client = bed.client(0).clone();
            tokio::spawn(async move {
                let block = client.get(&key).await.unwrap().expect("a hit");
                assert!(block[..] == value(number as u64, 1000 + number * MIB / 2)[..]);
            })
        })
        .collect();
    for asked in asked {
        asked.await.unwrap();
    }
    stop.send(()).unwrap();
    let most = watch.await.unwrap();
    assert!(most > 0 && most <= credit, "{most}");
    bed.at_rest().await;
}

/// A pod whose slots are all leased waits for them alone: others' gets have the credit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_frees_no_slots_takes_no_credit_from_others() {
    let bed = Bed::with(2, |options| options.in_flight_bytes = 4 * MIB).await;
    let keys = bed.keys_of(1, 2, "hoard").await;
    for key in &keys {
        let put = bed
            .client(1)
            .put(key, &value(1, 3 * MIB), PutOptions::default())
            .await;
        assert_eq!(put.unwrap(), Put::Stored);
    }
    let options = Options {
        get_bytes: 4 * MIB as u64,
        put_bytes: MIB as u64,
        ..Options::new(bed.members[0].door.path())
    };
    let hoarder = bed::connect(options).await;
    let held = hoarder.get(&keys[0]).await.unwrap().expect("a hit");
    let waiting = tokio::spawn({
        let (client, key) = (hoarder.clone(), keys[1].clone());
        async move { client.get(&key).await.map(|block| block.is_some()) }
    });
    // It waits for room in its own arena, and has given back what it held of the link.
    let waits = || {
        let (usage, stats) = (bed.members[0].node.usage(), bed.members[0].rack.stats());
        usage.requests == 1 && stats.in_flight_bytes == 0
    };
    wait(waits).await;
    let start = std::time::Instant::now();
    for _ in 0..5 {
        assert!(bed.client(0).get(&keys[1]).await.unwrap().is_some());
    }
    assert!(
        start.elapsed() < Duration::from_millis(4500),
        "{:?}",
        start.elapsed()
    );
    assert!(!waiting.is_finished());
    drop(held);
    assert!(waiting.await.unwrap().unwrap());
    bed.at_rest().await;
}
