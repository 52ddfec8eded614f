//! Reads units back: headers, footers, and the records of those that have no footer.

use std::io;
use std::sync::Arc;

use crate::core::Core;
use crate::engine::Verb;
use crate::engine::disk::Disk;
use crate::engine::memory::Buffer;
use crate::engine::queue::{Class, Flow};
use crate::error::OpenError;
use crate::hash::{Fingerprint, FingerprintFn, Secret};
use crate::health::DriveFault;
use crate::layout::Layout;
use crate::record::{HEAD, MAX_META, Meta, Shape, UNIT};
use crate::segment::{FoundHeader, Header, Item, Ledger, decode_footer, footer_items, footer_len};
use crate::space::{State, Use};
use crate::stats::Recovery;
use crate::superblock::Superblock;
use crate::{MAX_KEY, PAGE};

/// Reads in flight while headers and footers are read.
const PARALLEL: usize = 64;

/// Bytes that a scan reads at once.
const WINDOW: usize = 256 << 10;

const _: () = assert!(HEAD + MAX_KEY + 8 * 129 + PAGE <= MAX_META);

pub(crate) fn failed(doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io { doing, error }
}

pub(crate) async fn read(disk: &Disk, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let span = Buffer::zeroed(len)?.into_span();
    disk.transfer(Class::Read, Flow::OWN, Verb::Read, at, vec![span.clone()])
        .await?;
    let mut bytes = vec![0; len];
    span.copy_to(&mut bytes);
    Ok(bytes)
}

/// A unit that was found, and its records.
pub(crate) struct Unit {
    pub(crate) header: Header,
    pub(crate) items: Vec<Item>,
}

/// What the log holds.
pub(crate) struct Read {
    pub(crate) units: Vec<Unit>,
    /// The youngest note of how the endurance budget stood.
    pub(crate) ledger: Option<Ledger>,
}

/// Bytes of the records that were written after a note, about: keys are not counted.
pub(crate) fn written_since(units: &[Unit], note: Option<Ledger>) -> u64 {
    let Some(note) = note else { return 0 };
    let items = units.iter().flat_map(|unit| &unit.items);
    let newer = items.filter(|item| item.sequence > note.sequence);
    newer
        .map(|item| {
            let len = item.len as usize;
            Shape { len, key: 0 }.footprint() as u64
        })
        .sum()
}

/// Runs a read a segment, some at a time.
async fn each<T: Send + 'static, F>(jobs: impl Iterator<Item = F>) -> io::Result<Vec<T>>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    let mut results = Vec::new();
    for job in jobs {
        if running.len() >= PARALLEL
            && let Some(one) = running.join_next().await
        {
            results.push(one.map_err(io::Error::other)??);
        }
        running.spawn(job);
    }
    while let Some(one) = running.join_next().await {
        results.push(one.map_err(io::Error::other)??);
    }
    Ok(results)
}

/// Finds all units and reads what they hold.
pub(crate) async fn read_units(
    disk: &Arc<Disk>,
    superblock: &Superblock,
    layout: Layout,
    core: &mut Core,
    report: &mut Recovery,
) -> Result<Read, OpenError> {
    let (secret, store) = (superblock.secret, superblock.store);
    let headers = each((0..layout.segments).map(|segment| {
        let disk = Arc::clone(disk);
        async move {
            let page = read(&disk, layout.start(segment), PAGE).await?;
            Ok((segment, Header::decode(&page, &secret, store, segment)))
        }
    }))
    .await
    .map_err(failed("read"))?;
    let mut found = Vec::new();
    for (segment, header) in headers {
        match header {
            FoundHeader::Nothing => {}
            FoundHeader::Corrupt => {
                report.corrupt += 1;
                disk.blame(DriveFault::Corrupt {
                    offset: layout.start(segment),
                    what: "a segment's header",
                });
            }
            FoundHeader::Whole(header) => found.push(header),
        }
    }
    let notes = found.iter().filter_map(|header| header.ledger);
    let ledger = notes.max_by_key(|note| note.sequence);
    let headers = standing(found, layout.segments);
    for header in headers.iter().filter(|header| !header.retired) {
        let once = Use {
            generation: header.generation,
            nonce: header.nonce,
        };
        core.space
            .claim(header.segment, header.span, once, State::Sealed);
    }
    for header in &headers {
        core.resume(header.generation, 0);
        if header.retired {
            core.space.mark_stale(header.segment, header.span);
        }
    }
    let fingerprint = core.fingerprint;
    let live = headers.into_iter().filter(|header| !header.retired);
    let units = each(live.map(|header| {
        let disk = Arc::clone(disk);
        async move { unit(&disk, header, layout, &secret, fingerprint).await }
    }))
    .await
    .map_err(failed("read"))?;
    let mut whole = Vec::new();
    for (unit, scanned) in units {
        if scanned {
            report.scanned += 1;
        } else {
            report.sealed += 1;
        }
        whole.push(unit);
    }
    Ok(Read {
        units: whole,
        ledger,
    })
}

/// The headers that count: of units that overlap, the youngest. What an older unit's members still say inside a younger
/// unit's segments is payload by now, or stale.
fn standing(mut headers: Vec<Header>, segments: u32) -> Vec<Header> {
    headers.retain(|header| {
        header
            .segment
            .checked_add(header.span)
            .is_some_and(|end| end <= segments)
    });
    headers.sort_by_key(|header| std::cmp::Reverse(header.generation));
    let mut taken = vec![false; segments as usize];
    headers.retain(|header| {
        let range = header.segment as usize..(header.segment + header.span) as usize;
        let free = taken[range.clone()].iter().all(|taken| !taken);
        if free {
            taken[range].fill(true);
        }
        free
    });
    headers
}

/// A unit's records, and whether it had to be scanned for them.
async fn unit(
    disk: &Disk,
    header: Header,
    layout: Layout,
    secret: &Secret,
    fingerprint: FingerprintFn,
) -> io::Result<(Unit, bool)> {
    let start = layout.start(header.segment);
    let len = u64::from(header.span) * layout.segment_len;
    let last = read(disk, start + len - PAGE as u64, PAGE).await?;
    if let Some(count) = footer_items(&last, header.segment, header.nonce) {
        let footer = footer_len(count) as u64;
        if footer <= len {
            let pages = if footer == PAGE as u64 {
                last
            } else {
                read(disk, start + len - footer, footer as usize).await?
            };
            if let Some(items) = decode_footer(&pages, secret, header.segment, header.nonce) {
                return Ok((Unit { header, items }, false));
            }
        }
    }
    let items = scan(disk, secret, fingerprint, header.nonce, start, len).await?;
    Ok((Unit { header, items }, true))
}

/// Reads a unit's records one after another. Where none stands on a page, a write was never finished there: the search
/// goes on at the next page, since later records may be whole.
pub(crate) async fn scan(
    disk: &Disk,
    secret: &Secret,
    fingerprint: FingerprintFn,
    nonce: u64,
    start: u64,
    len: u64,
) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut window = Vec::new();
    let mut window_at = 0;
    let mut at = PAGE as u64;
    while at + UNIT as u64 <= len {
        let end = window_at + window.len() as u64;
        let needed = (MAX_META as u64).min(len - at);
        if at < window_at || at + needed > end {
            window_at = at - at % PAGE as u64;
            let bytes = (WINDOW as u64).min(len - window_at) as usize;
            window = read(disk, start + window_at, bytes).await?;
        }
        let bytes = &window[(at - window_at) as usize..];
        let place = (at / UNIT as u64) as u32;
        match Meta::decode(bytes, secret, nonce, place) {
            Some((meta, _)) => {
                let print = if meta.hashed {
                    meta.key.as_slice().try_into().ok().map(Fingerprint)
                } else {
                    Some(fingerprint(secret, meta.namespace, &meta.key))
                };
                if let Some(print) = print {
                    items.push(crate::put::item_of(&meta, print));
                }
                at += meta.footprint() as u64;
                // After a record with a body, or the last one of a pack, the next one stands on a page.
                if meta.shape().body() > 0 {
                    at = at.next_multiple_of(PAGE as u64);
                }
            }
            None => at = (at + 1).next_multiple_of(PAGE as u64),
        }
    }
    Ok(items)
}
