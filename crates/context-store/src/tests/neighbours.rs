//! Namespaces on one drive: what a hostile neighbour does to another's latency. The drive is a model with a bandwidth and
//! a latency, which takes one transfer after the other in the order in which it is given them; time is the runtime's own,
//! and a microsecond of the drive is a millisecond of it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::engine::disk::Disk;
use crate::engine::memory::{Region, Span};
use crate::engine::queue::{Class, Depth, Flow};
use crate::engine::{Engine, Io, Verb};

/// Bytes that the drive moves in a microsecond: 7 GB/s.
const RATE: u64 = 7_000;

/// What each transfer takes besides: many at once take it together.
const LATENCY: u64 = 80;

const DEPTH: Depth = Depth {
    bytes: 32 << 20,
    transfers: 256,
};

fn micros(count: u64) -> Duration {
    Duration::from_millis(count)
}

struct Model {
    busy_until: Mutex<Instant>,
}

impl Engine for Model {
    fn start(&self, io: Io) {
        let mut busy = self
            .busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *busy = Instant::now().max(*busy) + micros(io.len() as u64 / RATE);
        let done = *busy + micros(LATENCY);
        tokio::spawn(async move {
            sleep_until(done).await;
            io.finish(Ok(()));
        });
    }

    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn register(&self, _region: &Arc<Region>) -> io::Result<()> {
        Ok(())
    }

    fn unregister(&self, _region: &Arc<Region>) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "model"
    }
}

/// A drive, and memory that nobody looks into.
#[derive(Clone)]
struct Bed {
    disk: Arc<Disk>,
    memory: Span,
}

impl Bed {
    fn new() -> Bed {
        let model = Model {
            busy_until: Mutex::new(Instant::now()),
        };
        let memory = Region::anonymous(1 << 20).unwrap();
        Bed {
            disk: Arc::new(Disk::new(Arc::new(model), 0, DEPTH, Arc::new(|_| {}))),
            memory: memory.span(0, 1 << 20).unwrap(),
        }
    }

    async fn transfer(&self, class: Class, flow: Flow, len: usize) {
        let verb = match class {
            Class::Read => Verb::Read,
            Class::Write | Class::Background => Verb::Write,
        };
        let piece = self.memory.part(0, len).unwrap();
        let transfer = self.disk.transfer(class, flow, verb, 0, vec![piece]);
        transfer.await.unwrap();
    }

    /// `many` transfers of 1 MiB at once, each followed by another, until the set is dropped.
    fn keep_busy(&self, tasks: &mut JoinSet<()>, class: Class, flow: Flow, many: usize) {
        for _ in 0..many {
            let bed = self.clone();
            tasks.spawn(async move {
                loop {
                    bed.transfer(class, flow, 1 << 20).await;
                }
            });
        }
    }

    fn moved(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let counters = self.disk.counters();
        counters.read_bytes.load(Relaxed) + counters.written_bytes.load(Relaxed)
    }

    /// Microseconds of 99 of 100 reads of 128 KiB, four at once, a round each `pace` microseconds; and the bytes moved
    /// for all in a microsecond.
    async fn victim(&self, flow: Flow, pace: u64) -> (u64, u64) {
        let mut took = Vec::new();
        let (start, before) = (Instant::now(), self.moved());
        for round in 0..1000 {
            sleep_until(start + micros(round * pace)).await;
            let mut reads = JoinSet::new();
            for _ in 0..4 {
                let bed = self.clone();
                reads.spawn(async move {
                    let begun = Instant::now();
                    bed.transfer(Class::Read, flow, 128 << 10).await;
                    begun.elapsed().as_millis() as u64
                });
            }
            took.extend(reads.join_all().await);
        }
        took.sort_unstable();
        let rate = (self.moved() - before) / start.elapsed().as_millis() as u64;
        (took[took.len() * 99 / 100], rate)
    }
}

const VICTIM: Flow = Flow { id: 1, weight: 1 };
const HOSTILE: Flow = Flow { id: 2, weight: 1 };

/// A round of 512 KiB in so many microseconds is 0.4 of the drive, less than its fair half.
const FAIR_PACE: u64 = 187;

async fn p99_beside(hostile: Option<Flow>, pace: u64) -> (u64, u64) {
    let bed = Bed::new();
    let mut tasks = JoinSet::new();
    if let Some(flow) = hostile {
        bed.keep_busy(&mut tasks, Class::Read, flow, 48);
        bed.keep_busy(&mut tasks, Class::Write, flow, 16);
        sleep(micros(20_000)).await;
    }
    bed.victim(VICTIM, pace).await
}

#[tokio::test(start_paused = true)]
async fn a_hostile_neighbour_at_most_doubles_the_latency_of_a_fair_share() {
    let (alone, _) = p99_beside(None, FAIR_PACE).await;
    let (beside, moved) = p99_beside(Some(HOSTILE), FAIR_PACE).await;
    println!("alone {alone} us, beside {beside} us, {moved} MB/s in all");
    assert!(beside <= 2 * alone, "{beside} us beside, {alone} us alone");
    assert!(moved > RATE * 9 / 10, "the drive idles: {moved} MB/s");
}

#[tokio::test(start_paused = true)]
async fn one_that_asks_seldom_waits_no_longer_and_leaves_others_most_of_the_drive() {
    let pace = 10 * FAIR_PACE;
    let (alone, _) = p99_beside(None, pace).await;
    let (beside, moved) = p99_beside(Some(HOSTILE), pace).await;
    println!("alone {alone} us, beside {beside} us, {moved} MB/s in all");
    assert!(beside <= 2 * alone, "{beside} us beside, {alone} us alone");
    assert!(moved > RATE * 6 / 10, "the drive idles: {moved} MB/s");
}

#[tokio::test(start_paused = true)]
async fn alone_a_namespace_fills_the_whole_depth() {
    let bed = Bed::new();
    let mut tasks = JoinSet::new();
    bed.keep_busy(&mut tasks, Class::Read, HOSTILE, 48);
    sleep(micros(1_000)).await;
    assert!(bed.disk.load().flying_bytes > DEPTH.bytes - (1 << 20));
    // Somebody else comes once, and is forgotten.
    bed.transfer(Class::Read, VICTIM, 128 << 10).await;
    sleep(micros(50)).await;
    sleep(micros(300_000)).await;
    assert!(bed.disk.load().flying_bytes > DEPTH.bytes - (1 << 20));
}

#[tokio::test(start_paused = true)]
async fn the_heavier_namespace_gets_more_of_the_drive() {
    let bed = Bed::new();
    let heavy = Flow { id: 3, weight: 3 };
    let (mut light, mut more) = (JoinSet::new(), JoinSet::new());
    let counts = [Arc::new(Mutex::new(0_u64)), Arc::new(Mutex::new(0_u64))];
    for (tasks, flow, count) in [(&mut light, VICTIM, 0), (&mut more, heavy, 1)] {
        for _ in 0..32 {
            let (bed, count) = (bed.clone(), Arc::clone(&counts[count]));
            tasks.spawn(async move {
                loop {
                    bed.transfer(Class::Read, flow, 128 << 10).await;
                    *count.lock().unwrap() += 1;
                }
            });
        }
    }
    sleep(micros(100_000)).await;
    let [light, more] = counts.map(|count| *count.lock().unwrap() as f64);
    assert!((2.5..3.5).contains(&(more / light)), "{more} to {light}");
}
