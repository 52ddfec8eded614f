//! Arena bytes: a pod's share, the node's total, and memory that is used again.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use bed::Bed;
use bed::raw::Raw;
use strand_kv_client::{Client, Connection, Options, PutOptions};

const MIB: u64 = 1 << 20;

fn size(connection: Connection) -> u64 {
    match connection {
        Connection::Up {
            get_bytes,
            put_bytes,
            ..
        } => get_bytes + put_bytes,
        Connection::Down { reason } => panic!("{reason}"),
    }
}

async fn refusal(options: Options) -> String {
    let client = Client::new(options);
    let waited = tokio::time::timeout(bed::PATIENCE, async {
        loop {
            match client.connection() {
                Connection::Down { reason } if reason.contains("refused") => return reason,
                _ => tokio::task::yield_now().await,
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("a refusal")
}

#[tokio::test]
async fn a_pod_stays_inside_its_share_and_the_node_inside_its_total() {
    let bed = Bed::with(64 << 20, 100 << 20);
    let first = bed
        .client_with(|options| options.get_bytes = 20 * MIB)
        .await;
    assert_eq!(size(first.connection()), 52 * MIB);
    let second = bed.client().await;
    assert_eq!(size(second.connection()), 12 * MIB);
    let words = refusal(Options::new(bed.door.path())).await;
    assert!(
        words.contains("67108864 arena bytes of this pod"),
        "{words}"
    );

    let other = bed.door("other.sock", 2, 64 << 20);
    let third = bed.client_of(&other).await;
    assert_eq!(size(third.connection()), 36 * MIB);
    let last = bed.door("last.sock", 3, 64 << 20);
    let words = refusal(Options::new(last.path())).await;
    assert!(words.contains("104857600 arena bytes"), "{words}");

    drop((third, other));
    bed.until(|usage| usage.granted_bytes == 64 << 20).await;
    let fourth = bed.client_of(&last).await;
    assert_eq!(size(fourth.connection()), 36 * MIB);
}

#[tokio::test]
async fn a_pod_that_comes_back_gets_the_same_memory() {
    let bed = Bed::with(16 << 20, 64 << 20);
    for round in 0..200u64 {
        let client = bed.client().await;
        let key = round.to_le_bytes();
        client.put(&key, &key, PutOptions::default()).await.unwrap();
        assert_eq!(&client.get(&key).await.unwrap().unwrap()[..], &key);
        drop(client);
        bed.at_rest().await;
        assert_eq!(bed.node.usage().granted_bytes, 16 << 20);
    }
}

#[tokio::test]
async fn memory_that_is_still_mapped_is_not_given_again() {
    let bed = Bed::with(16 << 20, 64 << 20);
    let client = bed.client().await;
    client
        .put(b"k", b"old", PutOptions::default())
        .await
        .unwrap();
    let block = client.get(b"k").await.unwrap().unwrap();
    drop(client);
    bed.until(|usage| usage.sessions == 0).await;
    // The block is readable, so its memory is nobody else's.
    assert_eq!(bed.node.usage().arenas, 1);
    let words = refusal(Options::new(bed.door.path())).await;
    assert!(words.contains("still mapped"), "{words}");
    assert_eq!(&block[..], b"old");
    drop(block);
    bed.at_rest().await;
    drop(bed.client().await);
}

#[tokio::test]
async fn a_client_may_leave_during_its_hello() {
    let bed = Bed::new();
    for _ in 0..100 {
        drop(Raw::open(bed.door.path()).await);
        let socket = tokio::net::UnixStream::connect(bed.door.path())
            .await
            .unwrap();
        let hello = bed::raw::hello().encode();
        strand_kv_client::wire::send_hello(&socket, &hello[..20], &[])
            .await
            .unwrap();
        drop(socket);
        let socket = tokio::net::UnixStream::connect(bed.door.path())
            .await
            .unwrap();
        strand_kv_client::wire::send_hello(&socket, &hello, &[])
            .await
            .unwrap();
        drop(socket);
        bed.at_rest().await;
    }
}
