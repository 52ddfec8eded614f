//! A request, checked and answered.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use strand_kv_client::MAX_KEY;
use strand_kv_client::arena::PutBytes;
use strand_kv_client::frame::{self, Code, FOREVER, Reply, Request};
use strand_kv_client::slots::SLOT;

use crate::blocks::{Blocks, Landed, Life, Opened, PART, Put, PutOptions};
use crate::session::Session;
use crate::streams::{Gathering, OpenBlock};
use crate::{Refused, Room};

/// Keys in a scan's page at most: a page fits a frame whatever their lengths.
const PAGE: u32 = 200;

/// Deletions of one request that are under way at once: their records are written together.
const DELETIONS: usize = 64;

/// An answer.
pub(crate) enum Done<B: Blocks> {
    /// A value in GET, to be leased.
    Hit(Landed<B::Arena>),
    /// A block to be kept open.
    Opened(OpenBlock<B::Opened>),
    /// A put to be gathered.
    Begun(Gathering),
    Reply(Reply),
}

pub(crate) async fn answer<B: Blocks>(session: &Session<B>, request: Request) -> Done<B> {
    match try_answer(session, request).await {
        Ok(done) => done,
        Err(refused) => Done::Reply(refused.reply()),
    }
}

async fn try_answer<B: Blocks>(session: &Session<B>, request: Request) -> Result<Done<B>, Refused> {
    let blocks = &session.pod.node.blocks;
    let namespace = session.pod.namespace;
    let reply = match request {
        Request::Get { key, room } => {
            check(&key)?;
            let room = Room::new(&session.arenas, room);
            match blocks.get(namespace, &key, room).await {
                Ok(Some(landed)) => return Ok(Done::Hit(landed)),
                Ok(None) => Reply::Miss,
                Err(refused) if refused.code == Code::Length => Reply::Larger,
                Err(refused) => return Err(refused),
            }
        }
        Request::Open { key } => {
            check(&key)?;
            let open = async {
                let block = blocks.open(namespace, &key).await?;
                Ok(block.map(|block| {
                    let length = block.length();
                    (block, length)
                }))
            };
            match session.pod.streams.open(open).await? {
                Some(open) => return Ok(Done::Opened(open)),
                None => Reply::Miss,
            }
        }
        Request::Read { block, part } => {
            let open = session.opened(block)?;
            if part >= open.block.length().div_ceil(PART as u64) {
                let words = format!("part {part} of a block of {} bytes", open.block.length());
                return Err(Refused::new(Code::Range, words));
            }
            let slot = Room::new(&session.arenas, u64::MAX).take(1).await?;
            match open.block.read(part, slot).await? {
                Some(landed) => return Ok(Done::Hit(landed)),
                None => Reply::Miss,
            }
        }
        Request::Put {
            key,
            offset,
            length,
            ttl_ms,
            only_if_absent,
        } => {
            check(&key)?;
            if length == 0 {
                let words = "an empty value cannot be stored; values have at least one byte";
                return Err(Refused::new(Code::Length, words));
            }
            let value = put_bytes(session, offset, length)?;
            let options = options(ttl_ms, only_if_absent);
            let put = blocks.put(namespace, &key, value, options).await?;
            outcome(session, put, length)
        }
        Request::Begin { key, length } => {
            check(&key)?;
            let budget = &session.pod.node.budget;
            return Ok(Done::Begun(
                session.pod.streams.begin(budget, key, length).await?,
            ));
        }
        Request::Part { put, part, offset } => {
            let gathering = session.begun(put)?;
            let length = gathering.part_length(part).ok_or_else(|| {
                Refused::new(Code::Range, format!("there is no part {part} of this put"))
            })?;
            let bytes = put_bytes(session, offset, length as u64)?;
            gathering.take(part, &bytes)?;
            Reply::Done
        }
        Request::Commit {
            put,
            ttl_ms,
            only_if_absent,
        } => {
            let gathering = session.committed(put)?;
            let value = gathering
                .whole()
                .ok_or_else(|| Refused::new(Code::Range, "parts of this put are missing"))?;
            let options = options(ttl_ms, only_if_absent);
            let put = blocks.put_gathered(namespace, &gathering.key, value, options);
            outcome(session, put.await?, gathering.length() as u64)
        }
        Request::Exists { keys } => {
            keys.iter().try_for_each(|key| check(key))?;
            let present = blocks.exists(namespace, &keys).await?;
            let mut bits = vec![0; keys.len().div_ceil(8)];
            for (at, _) in present.iter().enumerate().filter(|(_, present)| **present) {
                bits[at / 8] |= 1 << (at % 8);
            }
            Reply::Presence { bits }
        }
        Request::LeadingRun { keys } => {
            keys.iter().try_for_each(|key| check(key))?;
            count(blocks.leading_run(namespace, &keys).await?)
        }
        Request::Describe { key } => {
            check(&key)?;
            match blocks.describe(namespace, &key).await? {
                None => Reply::Miss,
                Some(described) => Reply::Described {
                    length: described.length,
                    ttl_ms: described.left.map_or(FOREVER, |left| {
                        u64::try_from(left.as_millis()).unwrap_or(FOREVER - 1)
                    }),
                },
            }
        }
        Request::Expire { key, ttl_ms } => {
            check(&key)?;
            let left = (ttl_ms != FOREVER).then(|| Duration::from_millis(ttl_ms));
            count(blocks.expire(namespace, &key, left).await?.into())
        }
        Request::Delete { keys } => {
            keys.iter().try_for_each(|key| check(key))?;
            let delete = |key: Vec<u8>| async move { blocks.delete(namespace, &key).await };
            let deletions = keys.into_iter().map(delete);
            let mut deletions = stream::iter(deletions).buffer_unordered(DELETIONS);
            let mut deleted = 0;
            while let Some(there) = deletions.next().await {
                deleted += usize::from(there?);
            }
            count(deleted)
        }
        Request::Flush => {
            blocks.flush(namespace).await?;
            Reply::Done
        }
        Request::Scan { cursor, limit } => {
            let limit = limit.clamp(1, PAGE) as usize;
            let page = blocks.scan(namespace, cursor, limit).await?;
            Reply::Page {
                cursor: page.cursor,
                keys: page.keys,
            }
        }
        Request::Stats => {
            let totals = blocks.totals(namespace).await?;
            Reply::Stats {
                blocks: totals.blocks,
                bytes: totals.bytes,
            }
        }
        // Has no reply, and never comes here: the session takes it.
        Request::Release => Reply::Done,
    };
    Ok(Done::Reply(reply))
}

/// What lies in PUT at a slot's start.
fn put_bytes<B: Blocks>(
    session: &Session<B>,
    offset: u64,
    length: u64,
) -> Result<PutBytes<B::Arena>, Refused> {
    let whole = offset.is_multiple_of(SLOT as u64);
    (whole.then(|| session.arenas.put_bytes(offset, length)))
        .flatten()
        .ok_or_else(|| {
            let words = format!(
                "{length} bytes at {offset} are no slots of the {} bytes of PUT",
                session.arenas.memory().put_bytes()
            );
            Refused::new(Code::Range, words)
        })
}

fn options(ttl_ms: u64, only_if_absent: bool) -> PutOptions {
    PutOptions {
        life: match ttl_ms {
            0 => Life::Policy,
            FOREVER => Life::Endless,
            ms => Life::For(Duration::from_millis(ms)),
        },
        only_if_absent,
    }
}

fn outcome<B: Blocks>(session: &Session<B>, put: Put, length: u64) -> Reply {
    if put == Put::Stored {
        session.pod.meter.stored(length);
    }
    Reply::Put(match put {
        Put::Stored => frame::Put::Stored,
        Put::Present => frame::Put::Present,
        Put::Dropped => frame::Put::Dropped,
    })
}

fn count(keys: usize) -> Reply {
    Reply::Count { count: keys as u64 }
}

fn check(key: &[u8]) -> Result<(), Refused> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        length => Err(Refused::new(
            Code::Key,
            format!("a key of {length} bytes; keys have 1 to {MAX_KEY}"),
        )),
    }
}
