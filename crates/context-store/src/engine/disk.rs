//! One partition's medium: transfers by class and namespace, within a depth, with an eye on the drive's health.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::memory::{Region, Span};
use super::queue::{Class, Depth, Flow, Queue};
use super::{Done, Engine, Io, Verb};
use crate::health::{DriveFault, HealthCallback};
use crate::latency::{Histogram, LatencyStats};

/// Largest single transfer; larger ones are split, so that reads of others find gaps between the pieces.
pub(crate) const MAX_TRANSFER: usize = (1 << 20) + 2 * crate::PAGE;

/// A medium. Offsets count from the partition's start.
pub(crate) struct Disk {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    /// First byte of the partition.
    base: u64,
    state: Mutex<State>,
    health: HealthCallback,
    counters: Counters,
}

struct State {
    queue: Queue<Job>,
    /// When each transfer that the drive has was handed to it.
    since: BTreeMap<u64, Instant>,
    number: u64,
}

struct Job {
    verb: Verb,
    offset: u64,
    pieces: Vec<Span>,
    done: oneshot::Sender<io::Result<()>>,
    queued: Instant,
}

/// What has gone over the medium.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// From being queued to being handed to the drive.
    waits: Histogram,
    /// From there until the drive was done.
    reads: Histogram,
    writes: Histogram,
    flushes: Histogram,
}

impl Counters {
    fn of(&self, verb: Verb) -> &Histogram {
        match verb {
            Verb::Read => &self.reads,
            Verb::Write => &self.writes,
            Verb::Flush => &self.flushes,
        }
    }

    /// How long transfers waited, and how long the drive had them.
    pub(crate) fn latencies(&self) -> Vec<LatencyStats> {
        vec![
            self.waits.stats("wait"),
            self.reads.stats("read"),
            self.writes.stats("write"),
            self.flushes.stats("flush"),
        ]
    }
}

/// What waits and what the drive has, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) waiting: usize,
    pub(crate) flying: usize,
    pub(crate) flying_bytes: usize,
    /// By class.
    pub(crate) waiting_bytes: [usize; 3],
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts whatever the budget allows.
    fn pump(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((job, flight)) = state.queue.next() else {
                return;
            };
            let bytes = flight.bytes;
            state.number += 1;
            let number = state.number;
            let handed = Instant::now();
            state.since.insert(number, handed);
            drop(state);
            self.counters.waits.took(handed - job.queued);
            let inner = Arc::clone(self);
            let (verb, offset, answer) = (job.verb, job.offset, job.done);
            let done: Done = Box::new(move |result| {
                let mut state = inner.state();
                state.queue.landed(flight);
                state.since.remove(&number);
                drop(state);
                inner.counters.of(verb).took(handed.elapsed());
                inner.account(verb, offset, bytes, &result);
                // Whoever waited may be gone: the bytes are where they belong all the same.
                let _gone = answer.send(result);
                inner.pump();
            });
            self.engine.start(Io {
                verb,
                offset: self.base + offset,
                pieces: job.pieces,
                done,
            });
        }
    }

    fn account(&self, verb: Verb, offset: u64, bytes: usize, result: &io::Result<()>) {
        match (result, verb) {
            (Ok(()), Verb::Read) => {
                let _before = self
                    .counters
                    .read_bytes
                    .fetch_add(bytes as u64, Ordering::Relaxed);
            }
            (Ok(()), Verb::Write) => {
                let _before = self
                    .counters
                    .written_bytes
                    .fetch_add(bytes as u64, Ordering::Relaxed);
            }
            (Ok(()), Verb::Flush) => {}
            (Err(error), _) => {
                let _before = self.counters.errors.fetch_add(1, Ordering::Relaxed);
                (self.health)(DriveFault::Io {
                    offset,
                    reason: format!("{verb:?} of {bytes} bytes: {error}"),
                });
            }
        }
    }
}

impl Disk {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        base: u64,
        depth: Depth,
        health: HealthCallback,
    ) -> Disk {
        Disk {
            inner: Arc::new(Inner {
                engine,
                base,
                state: Mutex::new(State {
                    queue: Queue::new(depth),
                    since: BTreeMap::new(),
                    number: 0,
                }),
                health,
                counters: Counters::default(),
            }),
        }
    }

    /// Begins one transfer of at most [`MAX_TRANSFER`].
    pub(crate) fn begin(
        &self,
        class: Class,
        flow: Flow,
        verb: Verb,
        offset: u64,
        pieces: Vec<Span>,
    ) -> oneshot::Receiver<io::Result<()>> {
        let (done, answer) = oneshot::channel();
        let bytes = pieces.iter().map(Span::len).sum();
        let job = Job {
            verb,
            offset,
            pieces,
            done,
            queued: Instant::now(),
        };
        self.inner.state().queue.push(class, flow, verb, bytes, job);
        self.inner.pump();
        answer
    }

    /// Carries out transfers of adjacent bytes starting at `offset`, split where they are large.
    ///
    /// The pieces' memory is the drive's until this returns, and also afterwards where the future is dropped: guards of
    /// the spans are let go when the drive is done.
    pub(crate) async fn transfer(
        &self,
        class: Class,
        flow: Flow,
        verb: Verb,
        offset: u64,
        pieces: Vec<Span>,
    ) -> io::Result<()> {
        let mut answers = Vec::with_capacity(1);
        let mut at = offset;
        for group in split(pieces) {
            let bytes: usize = group.iter().map(Span::len).sum();
            answers.push(self.begin(class, flow, verb, at, group));
            at += bytes as u64;
        }
        let mut result = Ok(());
        for answer in answers {
            let one = answer
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the I/O engine ended")));
            result = result.and(one);
        }
        result
    }

    /// All writes that were completed when this began are on stable media.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        self.begin(Class::Write, Flow::OWN, Verb::Flush, 0, Vec::new())
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the I/O engine ended")))
    }

    /// Deallocates a range.
    pub(crate) async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let (engine, at) = (Arc::clone(&self.inner.engine), self.inner.base + offset);
        tokio::task::spawn_blocking(move || engine.discard(at, len))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Pins a region's pages. Blocks.
    pub(crate) fn register(&self, region: &Arc<Region>) -> io::Result<()> {
        self.inner.engine.register(region)
    }

    /// Lets a region's pages go.
    pub(crate) fn unregister(&self, region: &Arc<Region>) -> io::Result<()> {
        self.inner.engine.unregister(region)
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.inner.engine)
    }

    pub(crate) fn engine_name(&self) -> &'static str {
        self.inner.engine.name()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.inner.counters.written_bytes.load(Ordering::Relaxed)
    }

    /// Whether a flow may have `bytes` more wait to be written, of `bound` for all: no more than what is left then, so that
    /// one alone gets half, and a newcomer always finds some (dynamic thresholds: Choudhury, Hahne 1998).
    pub(crate) fn may_wait(&self, flow: Flow, bytes: usize, bound: usize) -> bool {
        let state = self.inner.state();
        let left = bound.saturating_sub(state.queue.waiting_bytes(Class::Write));
        state.queue.waiting_of(Class::Write, flow) + bytes <= left
    }

    /// The same for reads, which are charged for their number as well; one may always wait.
    pub(crate) fn may_wait_to_read(&self, flow: Flow, bytes: usize, bound: usize) -> bool {
        let (all, own) = self.inner.state().queue.waiting_cost(Class::Read, flow);
        own == 0 || own + bytes as u64 <= (bound as u64).saturating_sub(all)
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.inner.state();
        let (flying, flying_bytes) = state.queue.flying();
        Load {
            waiting: state.queue.waiting(),
            flying,
            flying_bytes,
            waiting_bytes: [Class::Read, Class::Write, Class::Background]
                .map(|class| state.queue.waiting_bytes(class)),
        }
    }

    /// How long the drive has had its oldest transfer.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let state = self.inner.state();
        state.since.values().next().map(Instant::elapsed)
    }

    /// Counts something against the drive.
    pub(crate) fn blame(&self, fault: DriveFault) {
        (self.inner.health)(fault);
    }
}

/// Groups adjacent pieces into transfers of at most [`MAX_TRANSFER`].
fn split(pieces: Vec<Span>) -> Vec<Vec<Span>> {
    let mut groups = Vec::with_capacity(1);
    let mut group: Vec<Span> = Vec::with_capacity(pieces.len());
    let mut bytes = 0;
    for piece in pieces {
        let mut done = 0;
        while done < piece.len() {
            let room = MAX_TRANSFER - bytes;
            // A large piece is cut at 1 MiB, so that the rest of it goes as single registered pieces.
            let take = (piece.len() - done).min(room).min(1 << 20);
            if let Some(part) = piece.part(done, take) {
                group.push(part);
            }
            done += take;
            bytes += take;
            if bytes >= 1 << 20 {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}
