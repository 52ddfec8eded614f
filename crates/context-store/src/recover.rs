//! Reads a partition back: superblock, headers, footers, and the records of units that have no footer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tokio::sync::{Notify, oneshot};

use crate::admit::Governor;
use crate::core::{Core, Stream, Watermarks, entry_of};
use crate::engine::disk::Disk;
use crate::engine::memory::Buffer;
use crate::engine::pool::Pool;
use crate::engine::queue::{Class, Depth, Flow};
use crate::engine::{Engine, Verb, claim};
use crate::error::OpenError;
use crate::expiry::Now;
use crate::hash::{Fingerprint, FingerprintFn, Secret};
use crate::health::DriveFault;
use crate::layout::Layout;
use crate::options::{Medium, Options};
use crate::recency::{self, Recency};
use crate::record::{HEAD, Kind, MAX_META, Meta, Shape, UNIT};
use crate::segment::{FoundHeader, Header, Item, Ledger, decode_footer, footer_items, footer_len};
use crate::small::{SmallWrite, write_pack};
use crate::space::{Space, State, Use};
use crate::stats::Recovery;
use crate::store::{SCRATCH, Shared};
use crate::superblock::{COPIES, Identity, Superblock, Verdict, judge};
use crate::{MAX_KEY, PAGE};

/// How long to wait for transfers of a dead process to end.
const CLAIM: Duration = Duration::from_secs(5);

/// Reads in flight while headers and footers are read.
const PARALLEL: usize = 64;

/// Bytes that a scan reads at once.
const WINDOW: usize = 256 << 10;

fn failed(doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io { doing, error }
}

/// Opens the medium for the store alone, past the page cache where it can be.
pub(crate) fn engine(
    medium: &Medium,
    options: &Options,
) -> Result<(Arc<dyn Engine>, Option<String>), OpenError> {
    let path = format!("/proc/self/fd/{}", medium.file.as_raw_fd());
    let open = |flags: OFlags| {
        File::options()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
    };
    let file = open(OFlags::DIRECT).or_else(|error| {
        tracing::info!(%error, "this medium knows no O_DIRECT: context memory goes through the page cache");
        open(OFlags::empty())
    });
    let file = file.map_err(failed("opened"))?;
    let patience = Instant::now() + CLAIM;
    while let Err(error) = claim::claim(&file, medium.offset, medium.len) {
        if error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(libc::EACCES) {
            return Err(failed("locked")(error));
        }
        if Instant::now() > patience {
            return Err(OpenError::Busy);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if options.force_threads {
        let threads =
            crate::engine::threads::Threads::new(Arc::new(file)).map_err(failed("served"))?;
        return Ok((Arc::new(threads), Some("asked for".to_owned())));
    }
    let (engine, fallback) = crate::engine::best(file).map_err(failed("served"))?;
    if let Some(why) = &fallback {
        tracing::warn!("{why}");
    }
    Ok((engine, fallback))
}

/// What opening found, and tombstones that have to be written before anything is served.
pub(crate) struct Opened {
    pub(crate) report: Recovery,
    pub(crate) forgotten: Vec<Item>,
}

/// Reads a partition and builds what serves it.
pub(crate) async fn open(
    engine: Arc<dyn Engine>,
    base: u64,
    len: u64,
    layout: Layout,
    identity: &Identity,
    options: Options,
    fingerprint: FingerprintFn,
) -> Result<(Shared, Opened), OpenError> {
    let began = Instant::now();
    let depth = Depth {
        bytes: options.depth_bytes,
        transfers: options.depth_transfers.clamp(1, 1000),
    };
    let disk = Disk::new(engine, base, depth, Arc::clone(&options.health));
    let mut report = Recovery::default();
    let superblock = superblock(&disk, len, layout, identity, &options, &mut report).await?;
    let layout = Layout {
        segment_len: superblock.segment_len,
        segments: superblock.segments,
    };
    let now = Now::new((options.clock)(), superblock.created);
    let budget = options.daily_write_budget;
    let governor = Governor::new(budget, now.millis);
    let high = options.high_watermark.clamp(1, 99);
    let watermarks = Watermarks {
        high,
        low: options.low_watermark.min(high - 1),
    };
    let mut core = Core::new(fingerprint, Space::new(layout), governor, watermarks);
    let disk = Arc::new(disk);
    let mut forgotten = Vec::new();
    if !report.formatted {
        let read = read_units(&disk, &superblock, layout, &mut core, &mut report).await?;
        let since = written_since(&read.units, read.ledger);
        core.governor = Governor::resume(budget, read.ledger, since, now.millis);
        let recency = recency(&disk, &superblock).await;
        forgotten = rebuild(&mut core, read.units, recency.as_ref(), now);
        core.picture = recency.map_or(0, |recency| recency.number);
    }
    report.blocks = core.index.len() as u64;
    report.took = began.elapsed();
    let disk = Arc::into_inner(disk)
        .ok_or_else(|| failed("read")(io::Error::other("a read has not ended")))?;
    let shared = Shared {
        core: Mutex::new(core),
        scratch: Pool::new(SCRATCH, disk.engine()),
        disk,
        superblock,
        options,
        opened: Notify::new(),
        upkeep: Notify::new(),
        room: Notify::new(),
        trim: Notify::new(),
        quota: Notify::new(),
        tasks: tokio::sync::watch::Sender::new(0),
    };
    Ok((shared, Opened { report, forgotten }))
}

async fn read(disk: &Disk, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let span = Buffer::zeroed(len)?.into_span();
    disk.transfer(Class::Read, Flow::OWN, Verb::Read, at, vec![span.clone()])
        .await?;
    let mut bytes = vec![0; len];
    span.copy_to(&mut bytes);
    Ok(bytes)
}

async fn write(disk: &Disk, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut buffer = Buffer::zeroed(bytes.len())?;
    buffer.copy_from_slice(bytes);
    disk.transfer(
        Class::Write,
        Flow::OWN,
        Verb::Write,
        at,
        vec![buffer.into_span()],
    )
    .await
}

/// The superblock that is there, or a new one on a blank partition.
async fn superblock(
    disk: &Disk,
    len: u64,
    layout: Layout,
    identity: &Identity,
    options: &Options,
    report: &mut Recovery,
) -> Result<Superblock, OpenError> {
    let first = read(disk, COPIES[0], PAGE).await.map_err(failed("read"))?;
    let second = read(disk, COPIES[1], PAGE).await.map_err(failed("read"))?;
    let verdict = judge(
        Superblock::decode(&first),
        Superblock::decode(&second),
        identity,
        len,
    )?;
    let (superblock, write_copies) = match verdict {
        Verdict::Open { superblock, repair } => (*superblock, repair),
        Verdict::Format => {
            report.formatted = true;
            let mut random = [0; 32];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
                .map_err(|error| failed("given a secret")(error.into()))?;
            let (store, secret) = random.split_at(16);
            let superblock = Superblock {
                identity: identity.clone(),
                store: u128::from_le_bytes(store.try_into().unwrap_or_default()),
                secret: Secret(secret.try_into().unwrap_or_default()),
                created: (options.clock)(),
                partition_len: len,
                segment_len: layout.segment_len,
                segments: layout.segments,
            };
            (superblock, true)
        }
    };
    if write_copies {
        let page = superblock.encode();
        for copy in COPIES.iter().rev() {
            write(disk, *copy, &page)
                .await
                .map_err(failed("formatted"))?;
            disk.flush().await.map_err(failed("formatted"))?;
        }
    }
    Ok(superblock)
}

/// A unit that was found, and its records.
struct Unit {
    header: Header,
    items: Vec<Item>,
}

/// What the log holds.
struct Read {
    units: Vec<Unit>,
    /// The youngest note of how the endurance budget stood.
    ledger: Option<Ledger>,
}

/// Bytes of the records that were written after a note, about: keys are not counted.
fn written_since(units: &[Unit], note: Option<Ledger>) -> u64 {
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

/// The younger of two pictures of what was used lately, if there is one.
async fn recency(disk: &Disk, superblock: &Superblock) -> Option<Recency> {
    let mut found: Option<Recency> = None;
    for copy in recency::COPIES {
        // Without it the store still opens: blocks are then as old as their records.
        let Ok(pages) = read(disk, copy, recency::COPY).await else {
            continue;
        };
        let one = Recency::decode(&pages, &superblock.secret, superblock.store);
        if one.as_ref().map(|one| one.number) > found.as_ref().map(|found| found.number) {
            found = one;
        }
    }
    found
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
async fn read_units(
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

/// A record, and the unit that it was found in.
#[derive(Clone, Copy)]
struct Sighting {
    item: Item,
    segment: u32,
    generation: u64,
}

/// What all records of one key come to.
struct Resolved {
    /// The value that the key has, with the expiry that it has by now.
    value: Option<Sighting>,
    /// The newest value that another one supersedes without knowing of it: it needs a tombstone of this sequence.
    forgotten: Option<Item>,
}

/// Resolves the records of one key: the newest sequence counts, and of two copies of one record the younger unit's, which
/// is the survivor. Pure.
fn resolve(records: &[Sighting]) -> Resolved {
    let values = || records.iter().filter(|one| one.item.kind == Kind::Value);
    let newest = values().max_by_key(|one| (one.item.sequence, one.generation));
    let Some(mut value) = newest.copied() else {
        return Resolved {
            value: None,
            forgotten: None,
        };
    };
    let sequence = value.item.sequence;
    let forgotten = values()
        .filter(|one| one.item.sequence < sequence && !value.item.replaces)
        .max_by_key(|one| one.item.sequence)
        .map(|one| one.item);
    let facts = |kind| {
        records
            .iter()
            .filter(move |one| one.item.kind == kind && one.item.sequence >= sequence)
            .max_by_key(|one| one.item.sequence)
    };
    if let Some(last) = facts(Kind::Expire) {
        value.item.expiry = last.item.expiry;
    }
    let deleted = facts(Kind::Tombstone).is_some();
    Resolved {
        value: (!deleted).then_some(value),
        forgotten,
    }
}

/// Fills the index from all units' records. What it gives back are tombstones for older records whose newer ones do not
/// know of them.
fn rebuild(core: &mut Core, units: Vec<Unit>, recency: Option<&Recency>, now: Now) -> Vec<Item> {
    let many = units.iter().map(|unit| unit.items.len()).sum();
    let mut all: Vec<Sighting> = Vec::with_capacity(many);
    for unit in units {
        let (segment, generation) = (unit.header.segment, unit.header.generation);
        all.extend(unit.items.into_iter().map(|item| Sighting {
            item,
            segment,
            generation,
        }));
    }
    let mut highest = core.sequence();
    for one in &all {
        highest = highest.max(one.item.sequence);
        if one.item.kind == Kind::Flush {
            core.namespaces.flush(one.item.namespace, one.item.sequence);
        }
    }
    // Accesses are not in the log: without a picture of them blocks are as old as their records.
    let access =
        |print, sequence| recency.map_or(sequence, |recency| recency.access(print, sequence));
    let latest = recency.map_or(highest, |recency| {
        u64::from(recency.tick) + highest.saturating_sub(recency.sequence)
    });
    let shift = (64 - latest.leading_zeros()).saturating_sub(31);
    // In the order of the index, so that every insertion is at a shard's end.
    all.sort_unstable_by_key(|one| one.item.fingerprint);
    let mut forgotten = Vec::new();
    for records in all.chunk_by(|one, other| one.item.fingerprint == other.item.fingerprint) {
        let resolved = resolve(records);
        forgotten.extend(resolved.forgotten);
        let Some(Sighting { item, segment, .. }) = resolved.value else {
            continue;
        };
        let flushed = core.namespaces.was_flushed(item.namespace, item.sequence);
        if flushed || now.is_past(item.expiry) || item.len == 0 {
            continue;
        }
        let Some(owner) = core.namespaces.slot(item.namespace) else {
            continue;
        };
        let access = (access(item.fingerprint, item.sequence) >> shift) as u32;
        core.insert(item.fingerprint, &entry_of(&item, segment, owner, access));
    }
    core.resume(highest + 1, (latest >> shift) as u32 + 1);
    forgotten
}

/// Writes the tombstones that opening found to be missing.
pub(crate) async fn write_down(
    shared: &Arc<Shared>,
    forgotten: Vec<Item>,
) -> Result<(), OpenError> {
    for items in forgotten.chunks(512) {
        let mut answers = Vec::new();
        let batch = items
            .iter()
            .map(|item| {
                let mut meta =
                    crate::delete::fact(Kind::Tombstone, item.namespace, &item.fingerprint.0, 0);
                meta.hashed = true;
                meta.sequence = item.sequence;
                let (done, answer) = oneshot::channel();
                answers.push(answer);
                SmallWrite {
                    meta,
                    tail: Vec::new(),
                    fingerprint: item.fingerprint,
                    carried: true,
                    done,
                }
            })
            .collect();
        write_pack(shared, batch, Stream::Fresh).await;
        for answer in answers {
            if !matches!(answer.await, Ok(Ok(Some(_)))) {
                // Only a block that is replaced, then evicted before what it replaced, could come back from this.
                tracing::warn!(
                    "a tombstone could not be written while opening; old values may come back"
                );
            }
        }
    }
    Ok(())
}

const _: () = assert!(HEAD + MAX_KEY + 8 * 129 + PAGE <= MAX_META);
