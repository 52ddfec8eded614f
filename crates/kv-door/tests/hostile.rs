//! Pods that do what they should not.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]
#![allow(unsafe_code, reason = "a hostile pod maps and unprotects what it got")]

mod bed;

use std::os::fd::AsFd;
use std::time::Duration;

use bed::Bed;
use bed::raw::{Raw, hello};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
use strand_kv_client::frame::{Code, FOREVER, Reply, Request, Versions, Welcome};
use strand_kv_client::wire::{receive_hello, send_hello};
use strand_kv_client::{Put, PutOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

fn map(memory: impl AsFd, bytes: usize, protection: ProtFlags) -> Result<(), Errno> {
    // SAFETY: a fresh mapping, unmapped at once.
    unsafe {
        let at = mmap(
            std::ptr::null_mut(),
            bytes,
            protection,
            MapFlags::SHARED,
            memory,
            0,
        )?;
        munmap(at, bytes)
    }
}

#[tokio::test]
async fn seals_hold() {
    let bed = Bed::new();
    let raw = Raw::open(bed.door.path()).await;
    let [get, put, _] = &raw.descriptors;
    let bytes = raw.welcome.limits.get_bytes as usize;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let read_write = ProtFlags::READ | ProtFlags::WRITE;

    assert_eq!(map(get, bytes, read_write), Err(Errno::PERM));
    assert_eq!(map(get, bytes, ProtFlags::READ), Ok(()));
    assert_eq!(rustix::io::pwrite(get, b"x", 0), Err(Errno::PERM));
    assert_eq!(fallocate(get, punch, 0, 4096), Err(Errno::PERM));
    // SAFETY: a fresh mapping of this test's own, never touched, unmapped at the end.
    unsafe {
        let at = mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ,
            MapFlags::SHARED,
            get,
            0,
        )
        .unwrap();
        let unprotected = mprotect(at, bytes, MprotectFlags::READ | MprotectFlags::WRITE);
        assert_eq!(unprotected, Err(Errno::ACCESS));
        munmap(at, bytes).unwrap();
    }
    use std::os::fd::AsRawFd;
    let again = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", get.as_raw_fd()))
        .unwrap();
    assert_eq!(map(&again, bytes, read_write), Err(Errno::PERM));
    assert_eq!(rustix::io::pwrite(&again, b"x", 0), Err(Errno::PERM));

    for memory in [get, put] {
        assert_eq!(ftruncate(memory, 0), Err(Errno::PERM));
        assert_eq!(ftruncate(memory, 1 << 40), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(memory, SealFlags::WRITE), Err(Errno::PERM));
    }
    // Possible, and harmless: the holes read as zeroes.
    fallocate(put, punch, 0, raw.welcome.limits.put_bytes).unwrap();

    let second = bed.door("second.sock", 1, 64 << 20);
    let client = bed.client_of(&second).await;
    assert_eq!(
        client.put(b"k", b"v", PutOptions::default()).await.unwrap(),
        Put::Stored
    );
    assert_eq!(&client.get(b"k").await.unwrap().unwrap()[..], b"v");
}

#[tokio::test]
async fn frames_that_lie_are_refused() {
    let bed = Bed::new();
    let mut raw = Raw::open(bed.door.path()).await;
    let put = |offset, length| Request::Put {
        key: b"k".to_vec(),
        offset,
        length,
        ttl_ms: 0,
        only_if_absent: false,
    };
    let refused = |reply: &Reply| match reply {
        Reply::Refused { code, .. } => *code,
        other => panic!("{other:?}"),
    };
    let size = raw.welcome.limits.put_bytes;
    for (offset, length) in [
        (0, size + 1),
        (size, 1),
        (u64::MAX, 1),
        (1 << 20, u64::MAX),
        (1, 1),
    ] {
        let reply = raw.ask(1, &put(offset, length)).await;
        assert_eq!(refused(&reply), Code::Range.number(), "{offset} {length}");
    }
    // An empty value.
    assert_eq!(
        refused(&raw.ask(1, &put(0, 0)).await),
        Code::Length.number()
    );
    let long = Request::Delete {
        keys: vec![vec![0; 2000]],
    };
    assert_eq!(refused(&raw.ask(2, &long).await), Code::Key.number());

    // Another session's epoch.
    raw.wire
        .send(|out| Request::Stats.encode(out, raw.welcome.epoch + 1, 3));
    assert_eq!(refused(&raw.reply().await.unwrap().1), Code::Epoch.number());

    // An id that still holds a lease; a release of ids that hold none.
    let get = Request::Get {
        key: b"k".to_vec(),
        room: FOREVER,
    };
    assert_eq!(
        raw.ask(4, &put(0, 10)).await,
        Reply::Put(strand_kv_client::frame::Put::Stored)
    );
    assert!(matches!(
        raw.ask(5, &get).await,
        Reply::Hit { length: 10, .. }
    ));
    assert_eq!(refused(&raw.ask(5, &get).await), Code::Id.number());
    raw.send(5, &Request::Release);
    raw.send(5, &Request::Release);
    raw.send(99, &Request::Release);
    assert!(matches!(raw.ask(5, &get).await, Reply::Hit { .. }));
    assert_eq!(bed.node.usage().leases, 1);

    // An operation of the future.
    raw.wire.send(|out| {
        let at = out.len();
        Request::Stats.encode(out, raw.welcome.epoch, 6);
        out[at + 4] = 77;
    });
    assert_eq!(
        refused(&raw.reply().await.unwrap().1),
        Code::Unknown.number()
    );

    // Nonsense ends the session.
    raw.wire.send(|out| out.extend_from_slice(&[0xff; 64]));
    assert_eq!(
        refused(&raw.reply().await.unwrap().1),
        Code::Malformed.number()
    );
    assert!(raw.reply().await.is_err());
    drop(raw);
    bed.at_rest().await;
}

#[tokio::test]
async fn streams_that_lie_are_refused() {
    let bed = Bed::with(8 << 20, 64 << 20);
    let mut raw = Raw::open(bed.door.path()).await;
    let refused = |reply: &Reply| match reply {
        Reply::Refused { code, .. } => *code,
        other => panic!("{other:?}"),
    };
    let begin = |length| Request::Begin {
        key: b"k".to_vec(),
        length,
    };
    let part = |put, part, offset| Request::Part { put, part, offset };
    let commit = |put| Request::Commit {
        put,
        ttl_ms: 0,
        only_if_absent: false,
    };
    for length in [0, (128 << 20) + 1, u64::MAX] {
        let reply = raw.ask(1, &begin(length)).await;
        assert_eq!(refused(&reply), Code::Length.number(), "{length}");
    }
    for lie in [
        part(77, 0, 0),
        commit(77),
        Request::Read { block: 77, part: 0 },
    ] {
        assert_eq!(refused(&raw.ask(1, &lie).await), Code::Gone.number());
    }
    let length = (5 << 20) + 10;
    assert_eq!(raw.ask(10, &begin(length)).await, Reply::Begun);
    assert_eq!(
        refused(&raw.ask(10, &begin(length)).await),
        Code::Id.number()
    );
    assert_eq!(bed.node.usage().gathered_bytes, 6 << 20);
    let size = raw.welcome.limits.put_bytes;
    for lie in [
        part(10, 6, 0),
        part(10, u64::MAX, 0),
        part(10, 0, 1),
        part(10, 0, size),
        part(10, 0, u64::MAX),
    ] {
        assert_eq!(refused(&raw.ask(1, &lie).await), Code::Range.number());
    }
    for number in [5, 0, 3, 1] {
        assert_eq!(raw.ask(1, &part(10, number, 0)).await, Reply::Done);
    }
    // Twice.
    let again = raw.ask(1, &part(10, 3, 0)).await;
    assert_eq!(refused(&again), Code::Range.number());
    // Not all are there; and with that it is over.
    assert_eq!(
        refused(&raw.ask(1, &commit(10)).await),
        Code::Range.number()
    );
    assert_eq!(refused(&raw.ask(1, &commit(10)).await), Code::Gone.number());
    bed.until(|usage| (usage.streams, usage.gathered_bytes) == (0, 0))
        .await;

    assert_eq!(raw.ask(11, &begin(length)).await, Reply::Begun);
    for number in 0..6 {
        assert_eq!(raw.ask(1, &part(11, number, 1 << 20)).await, Reply::Done);
    }
    let stored = Reply::Put(strand_kv_client::frame::Put::Stored);
    assert_eq!(raw.ask(1, &commit(11)).await, stored);
    let get = Request::Get {
        key: b"k".to_vec(),
        room: FOREVER,
    };
    assert_eq!(raw.ask(12, &get).await, Reply::Larger);
    let open = Request::Open { key: b"k".to_vec() };
    let opened = raw.ask(12, &open).await;
    assert!(matches!(opened, Reply::Opened { length: l, .. } if l == length));
    for part in [6, u64::MAX] {
        let reply = raw.ask(1, &Request::Read { block: 12, part }).await;
        assert_eq!(refused(&reply), Code::Range.number());
    }
    // What is open is no begun put, and the other way round.
    let reply = raw.ask(1, &part(12, 0, 0)).await;
    assert_eq!(refused(&reply), Code::Gone.number());
    let last = raw.ask(13, &Request::Read { block: 12, part: 5 }).await;
    assert!(matches!(last, Reply::Hit { length: 10, .. }));
    assert_eq!((bed.node.usage().streams, bed.node.usage().leases), (1, 1));
    raw.send(12, &Request::Release);
    let read = Request::Read { block: 12, part: 0 };
    assert_eq!(refused(&raw.ask(1, &read).await), Code::Gone.number());
    drop(raw);
    bed.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_waits_for_slots_but_not_for_ever() {
    let bed = Bed::with(4 << 20, 64 << 20);
    let mut raw = Raw::open(bed.door.path()).await;
    let get = Request::Get {
        key: b"k".to_vec(),
        room: FOREVER,
    };
    let put = Request::Put {
        key: b"k".to_vec(),
        offset: 0,
        length: 1,
        ttl_ms: 0,
        only_if_absent: false,
    };
    raw.ask(1, &put).await;
    // Two slots, three gets: the third waits, gets a released slot, and a fourth is told to come back.
    for id in 2..5 {
        raw.send(id, &get);
    }
    for _ in 0..2 {
        assert!(matches!(raw.reply().await.unwrap().1, Reply::Hit { .. }));
    }
    for id in 2..5 {
        raw.send(id, &Request::Release);
    }
    assert!(matches!(raw.reply().await.unwrap().1, Reply::Hit { .. }));
    raw.send(6, &get);
    raw.send(7, &get);
    let replies = [raw.reply().await.unwrap().1, raw.reply().await.unwrap().1];
    let busy = |reply: &Reply| matches!(reply, Reply::Refused { code, .. } if *code == Code::Busy.number());
    assert!(
        replies.iter().filter(|reply| busy(reply)).count() <= 1,
        "{replies:?}"
    );
    drop(raw);
    bed.at_rest().await;
}

#[tokio::test]
async fn one_who_never_reads_is_cut_off() {
    let bed = Bed::new();
    let raw = Raw::open(bed.door.path()).await;
    let flood = tokio::time::timeout(bed::PATIENCE, async {
        let mut id = 0;
        while bed.node.usage().sessions > 0 {
            for _ in 0..100 {
                id += 1;
                let key = vec![0; 2000];
                raw.send(id, &Request::Delete { keys: vec![key] });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::select! {
        done = flood => done.unwrap(),
        _ = raw.wire.flush() => {}
    }
    drop(raw);
    bed.at_rest().await;
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let bed = Bed::new();
    let other = bed.door("other.sock", 2, 64 << 20);
    let honest = bed.client_of(&other).await;
    for seed in 0..300u64 {
        let garbage = bed::value(seed, (seed as usize * 37) % 3000 + 1);
        if seed % 3 == 0 {
            let mut socket = UnixStream::connect(bed.door.path()).await.unwrap();
            let _ = socket.write_all(&garbage).await;
        } else {
            let raw = Raw::open(bed.door.path()).await;
            raw.wire.send(|out| {
                Request::Get {
                    key: vec![1],
                    room: 1,
                }
                .encode(out, raw.welcome.epoch, 1);
                out.extend_from_slice(&garbage);
            });
            drop(raw);
        }
        if seed % 50 == 0 {
            let key = seed.to_le_bytes();
            honest.put(&key, &key, PutOptions::default()).await.unwrap();
            assert_eq!(&honest.get(&key).await.unwrap().unwrap()[..], &key);
        }
        bed.until(|usage| usage.sessions <= 1 && usage.arenas <= 1)
            .await;
    }
    drop(honest);
    bed.at_rest().await;
}

#[tokio::test]
async fn versions_that_do_not_meet_are_told_so() {
    let bed = Bed::new();
    let socket = UnixStream::connect(bed.door.path()).await.unwrap();
    let mut hello = hello();
    hello.versions = Versions {
        oldest: 40,
        newest: 50,
    };
    send_hello(&socket, &hello.encode(), &[]).await.unwrap();
    let (body, _) = receive_hello(&socket).await.unwrap();
    let refusal = Welcome::decode(&body).unwrap().unwrap_err();
    assert_eq!(
        (refusal.code, refusal.versions),
        (Code::Version.number(), Versions::ours())
    );
    assert!(refusal.words.contains("40 to 50"), "{}", refusal.words);
    bed.at_rest().await;
}
