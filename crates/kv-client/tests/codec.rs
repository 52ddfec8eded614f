//! The codec: what is encoded comes back, and no bytes make it panic.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use strand_kv_client::frame::{
    Header, Hello, Limits, Put, Refusal, Reply, Request, Versions, Welcome,
};
use strand_kv_client::wire::{Broken, Inbox};

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(key(), 0..20)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (key(), any::<u64>()).prop_map(|(key, room)| Request::Get { key, room }),
        Just(Request::Release),
        (
            key(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<bool>()
        )
            .prop_map(
                |(key, offset, length, ttl_ms, only_if_absent)| Request::Put {
                    key,
                    offset,
                    length,
                    ttl_ms,
                    only_if_absent
                }
            ),
        keys().prop_map(|keys| Request::Exists { keys }),
        keys().prop_map(|keys| Request::LeadingRun { keys }),
        key().prop_map(|key| Request::Describe { key }),
        (key(), any::<u64>()).prop_map(|(key, ttl_ms)| Request::Expire { key, ttl_ms }),
        keys().prop_map(|keys| Request::Delete { keys }),
        key().prop_map(|key| Request::Open { key }),
        (any::<u64>(), any::<u64>()).prop_map(|(block, part)| Request::Read { block, part }),
        (key(), any::<u64>()).prop_map(|(key, length)| Request::Begin { key, length }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(put, part, offset)| Request::Part {
            put,
            part,
            offset
        }),
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(put, ttl_ms, only_if_absent)| {
            Request::Commit {
                put,
                ttl_ms,
                only_if_absent,
            }
        }),
        Just(Request::Flush),
        (any::<u64>(), any::<u32>()).prop_map(|(cursor, limit)| Request::Scan { cursor, limit }),
        Just(Request::Stats),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(offset, length)| Reply::Hit { offset, length }),
        Just(Reply::Miss),
        Just(Reply::Larger),
        Just(Reply::Begun),
        (any::<u64>(), any::<u64>()).prop_map(|(length, digest)| Reply::Opened { length, digest }),
        prop_oneof![Just(Put::Stored), Just(Put::Present), Just(Put::Dropped)].prop_map(Reply::Put),
        vec(any::<u8>(), 0..200).prop_map(|bits| Reply::Presence { bits }),
        any::<u64>().prop_map(|count| Reply::Count { count }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(length, ttl_ms)| Reply::Described { length, ttl_ms }),
        Just(Reply::Done),
        (any::<u64>(), keys()).prop_map(|(cursor, keys)| Reply::Page { cursor, keys }),
        (any::<u64>(), any::<u64>()).prop_map(|(blocks, bytes)| Reply::Stats { blocks, bytes }),
        (any::<u16>(), "[a-z ]{0,40}").prop_map(|(code, words)| Reply::Refused { code, words }),
    ]
}

/// Feeds bytes in the pieces that a socket might give.
fn frames(bytes: &[u8], pieces: &[usize]) -> Result<Vec<(Header, Vec<u8>)>, Broken> {
    let (mut inbox, mut all, mut left) = (Inbox::default(), Vec::new(), bytes);
    let mut pieces = pieces.iter().cycle();
    while !left.is_empty() {
        let piece = (*pieces.next().unwrap_or(&1)).clamp(1, left.len());
        inbox.extend(&left[..piece]);
        left = &left[piece..];
        inbox.frames(&mut |header, body: &[u8]| {
            all.push((header, body.to_vec()));
            Ok::<(), Broken>(())
        })?;
    }
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests_come_back(
        requests in vec((request(), any::<u64>(), any::<u64>()), 1..8),
        pieces in vec(1usize..100, 1..10),
    ) {
        let mut bytes = Vec::new();
        for (request, epoch, id) in &requests {
            request.encode(&mut bytes, *epoch, *id);
        }
        let frames = frames(&bytes, &pieces).unwrap();
        prop_assert_eq!(frames.len(), requests.len());
        for ((header, body), (request, epoch, id)) in frames.iter().zip(&requests) {
            prop_assert_eq!((header.epoch, header.id), (*epoch, *id));
            let decoded = Request::decode(header.operation, body).unwrap();
            prop_assert_eq!(decoded.as_ref(), Some(request));
        }
    }

    #[test]
    fn replies_come_back(reply in reply(), epoch: u64, id: u64) {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes, epoch, id);
        let frames = frames(&bytes, &[7]).unwrap();
        let (header, body) = &frames[0];
        prop_assert_eq!(Reply::decode(header.operation, body).unwrap(), reply);
    }

    #[test]
    fn no_bytes_make_it_panic(operation: u16, bytes in vec(any::<u8>(), 0..600), pieces in vec(1usize..100, 1..5)) {
        let _ = Request::decode(operation % 20, &bytes);
        let _ = Reply::decode((operation % 20) | 0x8000, &bytes);
        let _ = Hello::decode(&bytes);
        let _ = Welcome::decode(&bytes);
        let _ = frames(&bytes, &pieces);
    }

    #[test]
    fn no_flipped_bytes_make_it_panic(
        request in request(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes, 1, 2);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if let Ok(frames) = frames(&bytes, &[64]) {
            for (header, body) in frames {
                let _ = Request::decode(header.operation, &body);
            }
        }
    }

    #[test]
    fn a_hello_may_grow(extra in vec(any::<u8>(), 0..50), name in "[a-z]{0,64}", get: u64, put: u64) {
        let hello = Hello { versions: Versions { oldest: 1, newest: 9 }, get_bytes: get, put_bytes: put, name };
        let mut bytes = hello.encode()[12..].to_vec();
        bytes.extend(&extra);
        prop_assert_eq!(Hello::decode(&bytes).unwrap(), hello.clone());
        let limits = Limits { get_bytes: get, put_bytes: put, slot_bytes: 1, key_bytes: 2, in_flight: 3, open: 4, begun: 5 };
        let welcome = Welcome { version: 1, epoch: put, limits };
        let mut bytes = welcome.encode()[12..].to_vec();
        bytes.extend(&extra);
        prop_assert_eq!(Welcome::decode(&bytes).unwrap().unwrap(), welcome);
        let refusal = Refusal { code: 1, versions: hello.versions, words: "no".into() };
        let mut bytes = refusal.encode()[12..].to_vec();
        bytes.extend(&extra);
        prop_assert_eq!(Welcome::decode(&bytes).unwrap().unwrap_err(), refusal);
    }
}

#[test]
fn the_newest_common_version_is_taken() {
    let best = |oldest, newest| Versions { oldest, newest }.best().map(|v| v.number());
    assert_eq!(best(1, 1), Some(1));
    assert_eq!(best(0, 700), Some(1), "a client of a later release");
    assert_eq!(best(2, 700), None, "a client that dropped our versions");
    assert_eq!(best(5, 1), None, "an empty range");
}
