//! A request, checked and answered.

use std::time::Duration;

use strand_kv_client::MAX_KEY;
use strand_kv_client::frame::{self, Code, FOREVER, Reply, Request};
use strand_kv_client::slots::SLOT;

use crate::blocks::{Blocks, Landed, Life, Put, PutOptions};
use crate::session::Session;
use crate::{Refused, Room};

/// Keys in a scan's page at most: a page fits a frame whatever their lengths.
const PAGE: u32 = 200;

/// An answer.
pub(crate) enum Done<A> {
    /// A value in GET, to be leased.
    Hit(Landed<A>),
    Reply(Reply),
}

pub(crate) async fn answer<B: Blocks>(session: &Session<B>, request: Request) -> Done<B::Arena> {
    match try_answer(session, request).await {
        Ok(done) => done,
        Err(refused) => Done::Reply(refused.reply()),
    }
}

async fn try_answer<B: Blocks>(
    session: &Session<B>,
    request: Request,
) -> Result<Done<B::Arena>, Refused> {
    let blocks = &session.pod.node.blocks;
    let namespace = session.pod.namespace;
    let reply = match request {
        Request::Get { key, room } => {
            check(&key)?;
            let room = Room::new(&session.arenas, room);
            match blocks.get(namespace, &key, room).await? {
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
            let whole = offset.is_multiple_of(SLOT as u64);
            let value = (whole.then(|| session.arenas.put_bytes(offset, length)))
                .flatten()
                .ok_or_else(|| {
                    let words = format!(
                        "{length} bytes at {offset} are no slots of the {} bytes of PUT",
                        session.arenas.memory().put_bytes()
                    );
                    Refused::new(Code::Range, words)
                })?;
            let options = PutOptions {
                life: match ttl_ms {
                    0 => Life::Policy,
                    FOREVER => Life::Endless,
                    ms => Life::For(Duration::from_millis(ms)),
                },
                only_if_absent,
            };
            Reply::Put(match blocks.put(namespace, &key, value, options).await? {
                Put::Stored => frame::Put::Stored,
                Put::Present => frame::Put::Present,
                Put::Dropped => frame::Put::Dropped,
            })
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
        Request::Delete { key } => {
            check(&key)?;
            count(blocks.delete(namespace, &key).await?.into())
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
