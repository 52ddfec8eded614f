//! Values that do not fit a session's arena: blocks that are open to be read in parts, puts that come in parts.
//!
//! What a pod opens keeps a segment of a drive, what it begins keeps the agent's memory. So there are few of either for a
//! pod, and each has to be done by a time that goes by its length: a pod that dawdles gets a miss, or a dropped put.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strand_context_store::{Buffer, MAX_VALUE, Span};
use strand_kv_client::arena::PutBytes;
use strand_kv_client::frame::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blocks::PART;
use crate::budget::Gather;
use crate::{ArenaBudget, Refused};

/// Blocks that a pod may have open.
pub(crate) const OPEN: usize = 32;
/// Puts that a pod may have begun.
pub(crate) const BEGUN: usize = 2;

/// How long a request waits for others of its kind to be done. Shorter than a client's patience.
const WAIT: Duration = Duration::from_secs(5);
/// What everyone may take besides the time that the pace gives.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes a second at which an open block has to be read.
const READ_PACE: u64 = 1 << 20;
/// Bytes a second at which a begun put has to come: it keeps others' puts waiting.
const PUT_PACE: u64 = 8 << 20;

/// How many streams a pod's sessions may have together.
#[derive(Debug)]
pub(crate) struct Streams {
    open: Arc<Semaphore>,
    begun: Arc<Semaphore>,
}

/// A block that is open.
#[derive(Debug)]
pub(crate) struct OpenBlock<O> {
    pub(crate) block: O,
    pub(crate) until: Instant,
    _permit: OwnedSemaphorePermit,
}

/// A put that is coming in.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub(crate) key: Vec<u8>,
    pub(crate) until: Instant,
    length: usize,
    parts: Mutex<Vec<Option<Buffer>>>,
    held: Arc<Held>,
}

/// Given back once the drive has everything.
#[derive(Debug)]
struct Held {
    _permit: OwnedSemaphorePermit,
    _room: Gather,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(OPEN)),
            begun: Arc::new(Semaphore::new(BEGUN)),
        }
    }
}

impl Streams {
    /// The right to open a block of `length` bytes.
    pub(crate) async fn open<O>(
        &self,
        open: impl Future<Output = Result<Option<(O, u64)>, Refused>>,
    ) -> Result<Option<OpenBlock<O>>, Refused> {
        let _permit = permit(&self.open, OPEN, "blocks open").await?;
        Ok(open.await?.map(|(block, length)| OpenBlock {
            block,
            until: Instant::now() + GRACE + Duration::from_secs(length / READ_PACE),
            _permit,
        }))
    }

    /// Begins a put of `length` bytes.
    pub(crate) async fn begin(
        &self,
        budget: &ArenaBudget,
        key: Vec<u8>,
        length: u64,
    ) -> Result<Gathering, Refused> {
        let most = budget.gather_bytes().min(MAX_VALUE);
        let too_long = || {
            let words = format!(
                "a value of {length} bytes: this node gathers values of 1 to {most} bytes; use smaller blocks or raise \
                 the agent's room for them"
            );
            Refused::new(Code::Length, words)
        };
        let bytes = usize::try_from(length).map_err(|_| too_long())?;
        if bytes == 0 || bytes > most {
            return Err(too_long());
        }
        let _permit = permit(&self.begun, BEGUN, "puts begun").await?;
        let room = tokio::time::timeout(WAIT, budget.gather(bytes)).await;
        let _room = room.map_err(|_| busy("the node's room for large values is in use"))?;
        let parts = bytes.div_ceil(PART);
        Ok(Gathering {
            key,
            until: Instant::now() + GRACE + Duration::from_secs(length / PUT_PACE),
            length: bytes,
            parts: Mutex::new((0..parts).map(|_| None).collect()),
            held: Arc::new(Held {
                _permit,
                _room: _room.ok_or_else(too_long)?,
            }),
        })
    }
}

async fn permit(
    of: &Arc<Semaphore>,
    most: usize,
    what: &str,
) -> Result<OwnedSemaphorePermit, Refused> {
    let waited = tokio::time::timeout(WAIT, Arc::clone(of).acquire_owned()).await;
    match waited {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy(&format!("this pod has {most} {what} already"))),
    }
}

fn busy(words: &str) -> Refused {
    let words = format!(
        "{words}, and none ended in {} s; wait for one",
        WAIT.as_secs()
    );
    Refused::new(Code::Busy, words)
}

impl Gathering {
    /// Bytes of the whole value.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Bytes that part `number` has. None: there is no such part.
    pub(crate) fn part_length(&self, number: u64) -> Option<usize> {
        let start = usize::try_from(number).ok()?.checked_mul(PART)?;
        let left = self.length.checked_sub(start).filter(|left| *left > 0)?;
        Some(left.min(PART))
    }

    /// Copies a part in. What the pod changes meanwhile is part of its value, or not.
    pub(crate) fn take<A>(&self, number: u64, bytes: &PutBytes<A>) -> Result<(), Refused> {
        let lost = |error: io::Error| {
            let words =
                format!("no memory for a part of a value: {error}; raise the agent's limit");
            Refused::new(Code::Store, words)
        };
        let mut buffer = Buffer::zeroed(bytes.length()).map_err(lost)?;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let copied = bytes.copy_to(0, &mut buffer);
        match self.parts().get_mut(at) {
            Some(part @ None) if copied => {
                *part = Some(buffer);
                Ok(())
            }
            _ => Err(Refused::new(
                Code::Range,
                format!("part {number} was sent before or is none of this put"),
            )),
        }
    }

    /// The whole value. None: a part is missing.
    pub(crate) fn whole(&self) -> Option<Vec<Span>> {
        let parts = std::mem::take(&mut *self.parts());
        if parts.is_empty() {
            return None;
        }
        let guarded = |part: Buffer| part.into_span().guarded(self.held.clone());
        parts.into_iter().map(|part| part.map(guarded)).collect()
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Option<Buffer>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
