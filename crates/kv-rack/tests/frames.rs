//! Frames: what is encoded comes back, and no bytes make the decoder panic or take memory that was not sent.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use strand_kv_client::frame::Code;
use strand_kv_door::{Described, Life, Namespace, Page, PutOptions, Refused, Totals};
use strand_kv_rack::frame::{
    Deletion, HEADER, Header, Hello, Key, Lane, MAX_BODY, PIECE, Reply, Request, Spot, Welcome,
};

fn key() -> impl Strategy<Value = Key> {
    (any::<u32>(), vec(any::<u8>(), 0..1024)).prop_map(|(drive, key)| Key { drive, key })
}

fn namespace() -> impl Strategy<Value = Namespace> {
    any::<u128>().prop_map(Namespace)
}

fn spot() -> impl Strategy<Value = Spot> {
    (namespace(), key()).prop_map(|(namespace, at)| Spot { namespace, at })
}

/// Milliseconds that a duration on the wire has.
fn time() -> impl Strategy<Value = Duration> {
    (0..u64::MAX - 1).prop_map(Duration::from_millis)
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        Just(Life::Policy),
        Just(Life::Endless),
        time().prop_map(Life::For)
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (spot(), any::<u32>()).prop_map(|(spot, room)| Request::Get { spot, room }),
        (spot(), any::<u32>(), life(), any::<bool>()).prop_map(
            |(spot, length, life, only_if_absent)| Request::Put {
                spot,
                length,
                options: PutOptions {
                    life,
                    only_if_absent,
                },
            }
        ),
        (namespace(), vec(key(), 0..20))
            .prop_map(|(namespace, keys)| Request::Exists { namespace, keys }),
        (namespace(), vec(key(), 0..20))
            .prop_map(|(namespace, keys)| Request::LeadingRun { namespace, keys }),
        spot().prop_map(Request::Describe),
        (spot(), proptest::option::of(time())).prop_map(|(spot, left)| Request::Expire(spot, left)),
        vec(spot(), 0..20).prop_map(Request::Delete),
        (namespace(), vec(any::<u32>(), 0..9))
            .prop_map(|(namespace, drives)| Request::Flush { namespace, drives }),
        (namespace(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(
            |(namespace, drive, cursor, limit)| Request::Scan {
                namespace,
                drive,
                cursor,
                limit,
            }
        ),
        namespace().prop_map(Request::Totals),
        Just(Request::Cancel),
        spot().prop_map(Request::Open),
        (spot(), any::<u32>(), any::<u64>()).prop_map(|(spot, number, digest)| Request::Part {
            spot,
            number,
            digest,
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let deletion = prop_oneof![
        Just(Deletion::Absent),
        Just(Deletion::Deleted),
        Just(Deletion::Away),
        Just(Deletion::Failed),
    ];
    let plain = prop::sample::select(vec![
        Reply::Ready,
        Reply::Working,
        Reply::Miss,
        Reply::Go,
        Reply::Stored,
        Reply::Present,
        Reply::Dropped,
        Reply::Torn,
        Reply::Away,
        Reply::Done,
        Reply::Refused(Refused::new(Code::Length, "too long")),
        Reply::Refused(Refused::new(Code::Store, "the drive failed")),
    ]);
    prop_oneof![
        plain,
        any::<u32>().prop_map(Reply::Longer),
        any::<u64>().prop_map(Reply::Count),
        vec(any::<bool>(), 0..99).prop_map(Reply::Bits),
        vec(deletion, 0..99).prop_map(Reply::Deleted),
        (any::<u64>(), proptest::option::of(time()))
            .prop_map(|(length, left)| Reply::Described(Described { length, left })),
        (any::<u64>(), vec(vec(any::<u8>(), 0..1024), 0..20))
            .prop_map(|(cursor, keys)| Reply::Page(Page { cursor, keys })),
        (any::<u64>(), any::<u64>())
            .prop_map(|(blocks, bytes)| Reply::Totals(Totals { blocks, bytes })),
        (any::<u64>(), any::<u64>()).prop_map(|(length, digest)| Reply::Opened(length, digest)),
    ]
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        let mut body = Vec::new();
        let operation = request.encode(&mut body);
        prop_assert!(body.len() <= MAX_BODY);
        prop_assert_eq!(Request::decode(operation, &body), Ok(Some(request)));
        prop_assert_eq!(Reply::decode(operation, &body), Ok(None), "no request is a reply");
        for cut in [0, body.len() / 2, body.len().saturating_sub(1)] {
            prop_assert!(cut == body.len() || Request::decode(operation, &body[..cut]).is_err());
        }
    }

    #[test]
    fn replies_come_back(reply in reply()) {
        let mut body = Vec::new();
        let operation = reply.encode(&mut body);
        prop_assert_eq!(Reply::decode(operation, &body), Ok(Some(reply)));
        prop_assert_eq!(Request::decode(operation, &body), Ok(None), "no reply is a request");
        body.push(0);
        prop_assert!(Reply::decode(operation, &body).is_err());
    }

    #[test]
    fn headers_come_back(
        operation in any::<u16>(), id in any::<u64>(), body in 0..=MAX_BODY as u32,
        payload in 1..=PIECE as u32, offset in 0..1u32 << 30, more in 0..1u32 << 30, tag in any::<[u8; 16]>(),
    ) {
        let data = operation == Header::DATA || operation % 2 == 0;
        let operation = if data { Header::DATA } else { operation };
        let payload = if data { payload } else { 0 };
        let total = offset + payload + more;
        let header = Header { operation, id, body, payload, offset, total, tag };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        let outside = Header { total: offset + payload - 1, ..header };
        prop_assert!(offset + payload == 0 || Header::decode(&outside.encode()).is_err());
        let long = Header { body: MAX_BODY as u32 + 1, ..header };
        prop_assert!(Header::decode(&long.encode()).is_err());
    }

    #[test]
    fn any_bytes_can_be_decoded(operation in 0..0x120u16, bytes in vec(any::<u8>(), 0..4096), head in any::<[u8; HEADER]>()) {
        let _ = Request::decode(operation, &bytes);
        let _ = Reply::decode(operation, &bytes);
        let _ = Hello::decode(&bytes);
        let _ = Welcome::decode(&bytes);
        let _ = Header::decode(&head);
        let mut head = head;
        head[..8].copy_from_slice(&[b'S', b'K', b'V', b'R', 0, 1, 0, 0]);
        if let Ok(header) = Header::decode(&head) {
            prop_assert!(header.payload as usize <= PIECE && header.body as usize <= MAX_BODY);
        }
    }

    #[test]
    fn hellos_come_back(
        link in any::<u128>(), nonce in any::<[u8; 32]>(), mac in any::<[u8; 32]>(), bulk in any::<bool>(),
        oldest in 0..4u16, newest in 0..4u16, pool in "[a-z0-9-]{0,36}", node in "[a-z0-9.-]{0,253}",
    ) {
        let lane = if bulk { Lane::Bulk } else { Lane::Small };
        let hello = Hello { oldest, newest, lane, link, nonce, pool, node };
        let said = hello.encode();
        prop_assert_eq!(Hello::decode(&said[10..]), Ok(hello.clone()));
        prop_assert_eq!(hello.version(), (oldest <= 1 && 1 <= newest).then_some(1));
        let welcome = Welcome { version: 1, nonce, mac };
        prop_assert_eq!(Welcome::decode(&welcome.encode()[10..]), Ok(Ok(welcome)));
    }
}
