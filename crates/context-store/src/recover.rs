//! Reads a partition back: superblock, headers, footers, and the records of units that have no footer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tokio::sync::{Notify, oneshot};

use crate::PAGE;
use crate::admit::Governor;
use crate::core::{Core, Stream, Watermarks};
use crate::engine::disk::Disk;
use crate::engine::memory::Buffer;
use crate::engine::pool::Pool;
use crate::engine::queue::{Class, Depth, Flow};
use crate::engine::{Engine, Verb, claim};
use crate::error::OpenError;
use crate::expiry::Now;
use crate::hash::{FingerprintFn, Secret};
use crate::layout::Layout;
use crate::options::{Medium, Options};
use crate::rebuild::rebuild;
use crate::recency::{self, Recency};
use crate::record::Kind;
use crate::segment::Item;
use crate::small::{SmallWrite, write_pack};
use crate::space::Space;
use crate::stats::Recovery;
use crate::store::{SCRATCH, Shared};
use crate::superblock::{COPIES, Identity, Superblock, Verdict, judge};
use crate::units::{failed, read, read_units, written_since};

/// How long to wait for transfers of a dead process to end.
const CLAIM: Duration = Duration::from_secs(5);

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
