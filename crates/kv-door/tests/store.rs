//! The door in front of a real store on a file: blocks go through its drive, and a pod that rewrites what it puts
//! harms itself alone.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bed::raw::Raw;
use futures::StreamExt;
use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;
use strand_context_store::{Identity, Medium, Options as StoreOptions, Store};
use strand_kv_client::frame::{FOREVER, Put as Outcome, Reply, Request};
use strand_kv_client::{Client, Options, Put, PutOptions};
use strand_kv_door::{ArenaBudget, Door, DoorOptions, Namespace, Node, StoreBlocks};

const LEN: u64 = 1 << 30;

async fn node(directory: &Path) -> Arc<Node<StoreBlocks>> {
    let path = directory.join("partition");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.set_len(LEN).unwrap();
    let medium = Medium {
        file,
        offset: 0,
        len: LEN,
    };
    let identity = Identity {
        pool: "pool".into(),
        drive: "drive".into(),
    };
    let options = StoreOptions {
        patience: Duration::from_secs(20),
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(medium, &identity, options).await.unwrap();
    Node::new(
        StoreBlocks::new(Arc::new(store)),
        ArenaBudget::new(256 << 20),
    )
}

fn door(node: &Arc<Node<StoreBlocks>>, directory: &Path, pod: u8, namespace: u128) -> Door {
    node.open(DoorOptions {
        socket: directory.join(format!("{pod}.sock")),
        namespace: Namespace(namespace),
        arena_bytes: DoorOptions::ARENA_BYTES,
    })
    .unwrap()
}

async fn at_rest(node: &Node<StoreBlocks>) {
    let waited = tokio::time::timeout(bed::PATIENCE, async {
        loop {
            let usage = node.usage();
            if (usage.sessions, usage.requests, usage.leases, usage.arenas) == (0, 0, 0, 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{:?}", node.usage()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_all_sizes_through_a_drive() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let door = door(&node, directory.path(), 1, 1);
    let client = bed::connect(Options::new(door.path())).await;
    let sizes = [
        1,
        28,
        4095,
        4096,
        4097,
        131_072,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        5 << 20,
        32 << 20,
        (32 << 20) + 4097,
        128 << 20,
    ];
    let keys: Vec<_> = sizes.iter().map(|size| format!("size {size}")).collect();
    for (size, key) in sizes.iter().zip(&keys) {
        let value = bed::value(*size as u64, *size);
        let put = client
            .put(key.as_bytes(), &value, PutOptions::default())
            .await;
        assert_eq!(put.unwrap(), Put::Stored, "{key}");
    }
    assert_eq!(client.leading_run(&keys).await.unwrap(), keys.len());
    for (size, key) in sizes.iter().zip(&keys) {
        let found = client.fetch(key.as_bytes()).await.unwrap().expect("a hit");
        let value = bed::whole(found).await.unwrap();
        assert!(value == bed::value(*size as u64, *size), "{key}");
    }
    let (mut found, whole) = (0, keys.len() - 2);
    let mut blocks = client.get_many(&keys[..whole]);
    while let Some((index, block)) = blocks.next().await {
        let block = block.unwrap().expect("a hit");
        assert!(
            block[..] == bed::value(sizes[index] as u64, sizes[index])[..],
            "{}",
            keys[index]
        );
        found += 1;
    }
    drop(blocks);
    assert_eq!(found, whole);
    assert_eq!(client.scan(0, 100).await.unwrap().keys.len(), keys.len());
    client.flush().await.unwrap();
    assert_eq!(client.leading_run(&keys).await.unwrap(), 0);
    assert!(client.get(keys[3].as_bytes()).await.unwrap().is_none());
    drop(client);
    at_rest(&node).await;
}

/// Where in the partition these bytes lie.
fn find(directory: &Path, bytes: &[u8]) -> u64 {
    let all = std::fs::read(directory.join("partition")).unwrap();
    let at = all
        .windows(bytes.len())
        .step_by(4096)
        .position(|window| window == bytes);
    at.expect("the value lies on the medium") as u64 * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_flips_in_the_last_chunk_is_noticed_when_it_is_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let door = door(&node, directory.path(), 1, 1);
    let client = bed::connect(Options::new(door.path())).await;
    let length = 36 << 20;
    let value = bed::value(9, length);
    client
        .put(b"k", &value, PutOptions::default())
        .await
        .unwrap();
    let last = length - (1 << 20);
    let at = find(directory.path(), &value[last..last + 64]);
    let file = File::options()
        .write(true)
        .open(directory.path().join("partition"))
        .unwrap();
    file.write_all_at(&[!value[last + 99]], at + 99).unwrap();
    file.sync_all().unwrap();

    let mut found = client.fetch(b"k").await.unwrap().expect("a hit");
    let mut bytes = Vec::new();
    let lost = loop {
        match found.next().await {
            Ok(Some(part)) => bytes.extend_from_slice(&part),
            Ok(None) => panic!("a flipped bit was passed on"),
            Err(lost) => break lost,
        }
    };
    assert_eq!((lost.length, lost.given), (length as u64, last as u64));
    assert!(bytes == value[..last], "what was passed on is right");
    drop(found);
    // From here on it is a miss; the drive is not to blame, the block is.
    assert!(client.fetch(b"k").await.unwrap().is_none());
    assert_eq!(client.counters().lost, 1);
    drop(client);
    at_rest(&node).await;
}

/// Puts blocks while a thread rewrites all of PUT without a pause, punches holes into it, and tries to take it away.
async fn rewriting_pod(path: &Path, rounds: u64) -> (u64, u64) {
    let mut raw = Raw::open(path).await;
    let arenas = raw.map();
    let length = 3 << 20;
    let mut room = arenas.write(length).await.unwrap();
    let offset = room.offset() as u64;
    let stop = Arc::new(AtomicBool::new(false));
    let [get, put, _] = &raw.descriptors;
    let memories = [get, put].map(|memory| memory.try_clone().unwrap());
    let rewriter = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut byte = 0u8;
            while !stop.load(Ordering::Relaxed) {
                byte = byte.wrapping_add(1);
                room.fill(byte);
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let hole = (u64::from(byte) << 12, 1 << 20);
                let [get, put] = &memories;
                assert_eq!(fallocate(get, punch, hole.0, hole.1), Err(Errno::PERM));
                fallocate(put, punch, offset + hole.0, hole.1).unwrap();
                for memory in &memories {
                    assert_eq!(ftruncate(memory, 4096), Err(Errno::PERM));
                }
            }
        }
    });
    let (mut hits, mut misses) = (0, 0);
    for id in 0..rounds {
        let key = vec![(id % 5) as u8 + 1];
        let put = Request::Put {
            key: key.clone(),
            offset,
            length: length as u64,
            ttl_ms: 0,
            only_if_absent: false,
        };
        let reply = raw.ask(id * 3, &put).await;
        assert!(
            matches!(reply, Reply::Put(Outcome::Stored | Outcome::Dropped)),
            "{reply:?}"
        );
        match raw
            .ask(id * 3 + 1, &Request::Get { key, room: FOREVER })
            .await
        {
            Reply::Hit { .. } => hits += 1,
            Reply::Miss => misses += 1,
            other => panic!("{other:?}"),
        }
        raw.send(id * 3 + 1, &Request::Release);
    }
    stop.store(true, Ordering::Relaxed);
    rewriter.join().unwrap();
    (hits, misses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_rewrites_what_it_puts_harms_itself_alone() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let (bad, good) = (
        door(&node, directory.path(), 1, 1),
        door(&node, directory.path(), 2, 2),
    );
    let client = bed::connect(Options::new(good.path())).await;
    let stop = Arc::new(AtomicBool::new(false));
    let honest = tokio::spawn(honest_pod(client.clone(), Arc::clone(&stop)));
    let same = door(&node, directory.path(), 3, 1);
    let reader = bed::connect(Options::new(same.path())).await;
    let reading = tokio::spawn(reading_pod(reader.clone(), Arc::clone(&stop)));
    let (hits, misses) = rewriting_pod(bad.path(), 60).await;
    stop.store(true, Ordering::Relaxed);
    let rounds = honest.await.unwrap();
    let read = reading.await.unwrap();
    println!(
        "rewritten blocks: {hits} hits, {misses} misses; honest rounds: {rounds}; read meanwhile: {read}"
    );
    assert!(misses > 0, "nothing was torn: the test shows nothing");
    assert!(rounds > 0 && read > 0);
    assert_eq!(node.blocks().store().stats().device_errors, 0);
    drop((client, reader));
    at_rest(&node).await;
}

/// Another pod of the rewriting one's namespace: whatever it finds is as long as what was put, and nothing is an error.
async fn reading_pod(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        reads += 1;
        let key = [(reads % 5) as u8 + 1];
        if let Some(block) = client.get(&key).await.unwrap() {
            assert_eq!(block.len(), 3 << 20);
        }
    }
    reads
}

/// Every one of its blocks is there and right.
async fn honest_pod(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let key = [(round % 7) as u8 + 1];
        let value = bed::value(round, 200_000 + round as usize * 1000 % 1_500_000);
        let put = client
            .put(&key, &value, PutOptions::default())
            .await
            .unwrap();
        assert_eq!(put, Put::Stored);
        let block = client.get(&key).await.unwrap().expect("a hit");
        assert!(block[..] == value[..], "round {round}");
    }
    round
}
