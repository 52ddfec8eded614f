//! What a segment says about itself: a header page at its start, and a footer at its end once it is sealed.

use crate::codec::Fields;
use crate::hash::{Fingerprint, Secret};
use crate::record::Kind;
use crate::{Namespace, PAGE};

const HEADER_MAGIC: [u8; 8] = *b"STRNDSEG";
const FOOTER_MAGIC: [u8; 8] = *b"STRNDFTR";
const LEDGER_MAGIC: [u8; 8] = *b"STRNDLDG";

/// Bytes of one footer item.
pub(crate) const ITEM: usize = 52;

/// Bytes of the footer's last part, which ends the segment.
pub(crate) const FOOTER_TAIL: usize = 56;

/// A segment's header page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store: u128,
    pub(crate) segment: u32,
    /// Sequence at which it was opened: every record in it that is not a survivor is newer.
    pub(crate) generation: u64,
    /// Random, so that a record or footer of another use of the segment never passes for one of this.
    pub(crate) nonce: u64,
    /// Segments that it spans.
    pub(crate) span: u32,
    /// Its blocks are gone; nothing in it counts.
    pub(crate) retired: bool,
    /// How the endurance budget stood when this was written. Behind the rest, with a check of its own: releases that know
    /// nothing of it read the header all the same.
    pub(crate) ledger: Option<Ledger>,
}

/// How an endurance budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The highest sequence given by then.
    pub(crate) sequence: u64,
    /// Bytes that may still be written.
    pub(crate) left: u64,
    /// Milliseconds since the partition was formatted.
    pub(crate) millis: u64,
}

impl Ledger {
    fn encode(self, into: &mut Vec<u8>, secret: &Secret, nonce: u64) {
        let start = into.len();
        into.extend_from_slice(&LEDGER_MAGIC);
        into.extend_from_slice(&self.sequence.to_le_bytes());
        into.extend_from_slice(&self.left.to_le_bytes());
        into.extend_from_slice(&self.millis.to_le_bytes());
        let check = secret.ledger(&into[start..], nonce);
        into.extend_from_slice(&check.to_le_bytes());
    }

    fn decode(bytes: &[u8], secret: &Secret, nonce: u64) -> Option<Ledger> {
        let mut fields = Fields(bytes);
        let ours = fields.array() == Some(LEDGER_MAGIC);
        let ledger = Ledger {
            sequence: fields.u64()?,
            left: fields.u64()?,
            millis: fields.u64()?,
        };
        let covered = bytes.len() - fields.0.len();
        let check = fields.u128()?;
        (ours && check == secret.ledger(&bytes[..covered], nonce)).then_some(ledger)
    }
}

/// What a header page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundHeader {
    /// Nothing of this store.
    Nothing,
    /// A header of this store that does not pass its check.
    Corrupt,
    /// A header.
    Whole(Header),
}

impl Header {
    pub(crate) fn encode(&self, secret: &Secret) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE);
        page.extend_from_slice(&HEADER_MAGIC);
        page.extend_from_slice(&self.store.to_le_bytes());
        page.extend_from_slice(&self.segment.to_le_bytes());
        page.extend_from_slice(&self.span.to_le_bytes());
        page.extend_from_slice(&self.generation.to_le_bytes());
        page.extend_from_slice(&self.nonce.to_le_bytes());
        page.push(u8::from(self.retired));
        let check = secret.segment(&page);
        page.extend_from_slice(&check.to_le_bytes());
        if let Some(ledger) = self.ledger {
            ledger.encode(&mut page, secret, self.nonce);
        }
        page.resize(PAGE, 0);
        page
    }

    pub(crate) fn decode(page: &[u8], secret: &Secret, store: u128, segment: u32) -> FoundHeader {
        let mut fields = Fields(page);
        if fields.array() != Some(HEADER_MAGIC) || fields.u128() != Some(store) {
            return FoundHeader::Nothing;
        }
        let mut whole = || {
            let mut header = Header {
                store,
                segment: fields.u32()?,
                span: fields.u32()?,
                generation: fields.u64()?,
                nonce: fields.u64()?,
                retired: fields.u8()? != 0,
                ledger: None,
            };
            let covered = page.len() - fields.0.len();
            let check = fields.u128()?;
            header.ledger = Ledger::decode(fields.0, secret, header.nonce);
            (header.segment == segment
                && header.span > 0
                && check == secret.segment(&page[..covered]))
            .then_some(header)
        };
        whole().map_or(FoundHeader::Corrupt, FoundHeader::Whole)
    }
}

/// One record, as a footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) replaces: bool,
    /// The meta of a record with a body takes two pages.
    pub(crate) wide: bool,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) namespace: Namespace,
    pub(crate) sequence: u64,
    pub(crate) place: u32,
    pub(crate) len: u32,
    pub(crate) expiry: u32,
}

impl Item {
    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.fingerprint.0);
        into.extend_from_slice(&self.namespace.0.to_le_bytes());
        into.extend_from_slice(&self.sequence.to_le_bytes());
        into.extend_from_slice(&self.place.to_le_bytes());
        into.extend_from_slice(&self.len.to_le_bytes());
        into.extend_from_slice(&self.expiry.to_le_bytes());
        into.push(self.kind as u8);
        into.push(u8::from(self.replaces) | u8::from(self.wide) << 1);
        into.extend_from_slice(&[0; 2]);
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Item> {
        let fingerprint = Fingerprint(fields.array()?);
        let namespace = Namespace(fields.u128()?);
        let sequence = fields.u64()?;
        let place = fields.u32()?;
        let len = fields.u32()?;
        let expiry = fields.u32()?;
        let kind = Kind::from_byte(fields.u8()?)?;
        let flags = fields.u8()?;
        let _zero = fields.u16()?;
        Some(Item {
            kind,
            replaces: flags & 1 != 0,
            wide: flags & 2 != 0,
            fingerprint,
            namespace,
            sequence,
            place,
            len,
            expiry,
        })
    }
}

/// Bytes that a footer of `items` items takes, in whole pages.
pub(crate) fn footer_len(items: usize) -> usize {
    (items * ITEM + FOOTER_TAIL).next_multiple_of(PAGE)
}

/// A footer's pages: they end where the segment ends.
pub(crate) fn encode_footer(secret: &Secret, segment: u32, nonce: u64, items: &[Item]) -> Vec<u8> {
    let len = footer_len(items.len());
    let mut list = Vec::with_capacity(items.len() * ITEM);
    for item in items {
        item.encode(&mut list);
    }
    let mut head = Vec::with_capacity(FOOTER_TAIL);
    head.extend_from_slice(&FOOTER_MAGIC);
    head.extend_from_slice(&segment.to_le_bytes());
    head.extend_from_slice(&(items.len() as u32).to_le_bytes());
    head.extend_from_slice(&nonce.to_le_bytes());
    head.extend_from_slice(&[0; 16]);
    let check = secret.footer(&head, &list);
    head.extend_from_slice(&check.to_le_bytes());
    let mut pages = vec![0; len - list.len() - head.len()];
    pages.extend_from_slice(&list);
    pages.extend_from_slice(&head);
    pages
}

/// How many items the footer has whose last page this is, for a segment of this nonce.
pub(crate) fn footer_items(last_page: &[u8], segment: u32, nonce: u64) -> Option<usize> {
    let tail = last_page.get(last_page.len().checked_sub(FOOTER_TAIL)?..)?;
    let mut fields = Fields(tail);
    let ours = fields.array() == Some(FOOTER_MAGIC) && fields.u32() == Some(segment);
    let count = fields.u32()?;
    (ours && fields.u64() == Some(nonce)).then_some(count as usize)
}

/// The items of a footer from its pages; none where they do not pass the check.
pub(crate) fn decode_footer(
    pages: &[u8],
    secret: &Secret,
    segment: u32,
    nonce: u64,
) -> Option<Vec<Item>> {
    let count = footer_items(pages, segment, nonce)?;
    let tail = pages.len() - FOOTER_TAIL;
    let list = pages.get(tail.checked_sub(count.checked_mul(ITEM)?)?..tail)?;
    let head = &pages[tail..];
    let check = u128::from_le_bytes(head[FOOTER_TAIL - 16..].try_into().ok()?);
    if secret.footer(&head[..FOOTER_TAIL - 16], list) != check {
        return None;
    }
    let mut fields = Fields(list);
    (0..count).map(|_| Item::decode(&mut fields)).collect()
}
