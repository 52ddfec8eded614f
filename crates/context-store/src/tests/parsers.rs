//! What is read from a medium may be anything.

use proptest::prelude::*;

use crate::hash::{Fingerprint, Secret};
use crate::record::{Kind, Meta, Shape};
use crate::segment::{FoundHeader, Header, Item, Ledger, decode_footer, encode_footer, footer_len};
use crate::superblock::{Found, Identity, Superblock};
use crate::{MAX_KEY, Namespace, PAGE};

const SECRET: Secret = Secret([5; 16]);

fn meta(len: u32, key: Vec<u8>, sequence: u64, place: u32) -> Meta {
    let shape = Shape {
        len: len as usize,
        key: key.len(),
    };
    let count = shape.chunks() + usize::from(shape.tail() > 0);
    Meta {
        kind: Kind::Value,
        replaces: sequence.is_multiple_of(2),
        hashed: false,
        namespace: Namespace(u128::from(sequence) << 70),
        key,
        len,
        expiry: place,
        sequence,
        nonce: 77,
        place,
        checksums: (0..count as u64).collect(),
    }
}

fn item(number: u32) -> Item {
    Item {
        kind: Kind::Value,
        replaces: number.is_multiple_of(2),
        wide: number.is_multiple_of(3),
        fingerprint: Fingerprint([number as u8; 12]),
        namespace: Namespace(u128::from(number)),
        sequence: u64::from(number) << 20,
        place: number,
        len: number + 1,
        expiry: number,
    }
}

proptest! {
    #[test]
    fn anything_can_be_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let _ = Meta::decode(&bytes, &SECRET, 1, 2);
        let _ = Header::decode(&bytes, &SECRET, 1, 2);
        let _ = decode_footer(&bytes, &SECRET, 1, 2);
        let _ = Superblock::decode(&bytes);
    }

    #[test]
    fn records_come_back_and_any_changed_byte_is_noticed(
        len in 1u32..3_000_000, key in prop::collection::vec(any::<u8>(), 1..=MAX_KEY), sequence: u64, place: u32,
        at: prop::sample::Index, mask in 1u8..,
    ) {
        let meta = meta(len, key, sequence, place);
        let mut bytes = meta.encode(&SECRET);
        let fixed = bytes.len();
        bytes.resize(fixed + meta.shape().tail(), 3);
        prop_assert_eq!(bytes.len(), meta.shape().meta());
        let (back, tail) = Meta::decode(&bytes, &SECRET, 77, place).unwrap();
        prop_assert_eq!(&back, &meta);
        prop_assert_eq!(tail.len(), meta.shape().tail());
        prop_assert!(Meta::decode(&bytes, &SECRET, 78, place).is_none());
        prop_assert!(Meta::decode(&bytes, &SECRET, 77, place.wrapping_add(1)).is_none());
        prop_assert!(Meta::decode(&bytes, &Secret([6; 16]), 77, place).is_none());
        bytes[at.index(fixed)] ^= mask;
        prop_assert!(Meta::decode(&bytes, &SECRET, 77, place).is_none());
    }

    #[test]
    fn footers_come_back_and_any_changed_byte_is_noticed(
        count in 0u32..400, at: prop::sample::Index, mask in 1u8..,
    ) {
        let items: Vec<Item> = (0..count).map(item).collect();
        let mut pages = encode_footer(&SECRET, 9, 10, &items);
        prop_assert_eq!(pages.len(), footer_len(items.len()));
        prop_assert_eq!(decode_footer(&pages, &SECRET, 9, 10).unwrap(), items.clone());
        prop_assert!(decode_footer(&pages, &SECRET, 8, 10).is_none());
        prop_assert!(decode_footer(&pages, &SECRET, 9, 11).is_none());
        let padding = pages.len() - items.len() * 52 - 56;
        let at = padding + at.index(pages.len() - padding);
        pages[at] ^= mask;
        prop_assert!(decode_footer(&pages, &SECRET, 9, 10).is_none());
    }

    #[test]
    fn headers_come_back_and_any_changed_byte_is_noticed(
        generation: u64, nonce: u64, span in 1u32.., retired: bool, left: Option<u64>, at in 0usize..65, mask in 1u8..,
    ) {
        let ledger = left.map(|left| Ledger { sequence: generation, left, millis: nonce });
        let header = Header { store: 4, segment: 3, generation, nonce, span, retired, ledger };
        let mut page = header.encode(&SECRET);
        prop_assert_eq!(page.len(), PAGE);
        prop_assert_eq!(Header::decode(&page, &SECRET, 4, 3), FoundHeader::Whole(header));
        prop_assert_eq!(Header::decode(&page, &SECRET, 5, 3), FoundHeader::Nothing);
        prop_assert_eq!(Header::decode(&page, &SECRET, 4, 2), FoundHeader::Corrupt);
        // A note that does not pass its own check is none.
        let mut other = page.clone();
        other[65 + at % 48] ^= mask;
        let without = Header { ledger: None, ..header };
        prop_assert_eq!(Header::decode(&other, &SECRET, 4, 3), FoundHeader::Whole(without));
        page[at] ^= mask;
        let changed = Header::decode(&page, &SECRET, 4, 3);
        // The flag has one bit that counts; its byte is authenticated all the same.
        prop_assert!(!matches!(changed, FoundHeader::Whole(_)));
    }

    #[test]
    fn superblocks_come_back_and_any_changed_byte_is_noticed(at in 0usize..218, mask in 1u8..) {
        let superblock = Superblock {
            identity: Identity { pool: "p".repeat(64), drive: "d".to_owned() },
            store: 1,
            secret: SECRET,
            created: 2,
            partition_len: 3,
            segment_len: 4,
            segments: 5,
        };
        let mut page = superblock.encode();
        prop_assert_eq!(Superblock::decode(&page), Found::Whole(Box::new(superblock)));
        page[at] ^= mask;
        prop_assert!(!matches!(Superblock::decode(&page), Found::Whole(_)));
    }
}
