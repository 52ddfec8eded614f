//! Puts a partition under pressure and says what it saw: `pressure FILE BYTES BLOCK MB_A_SECOND`.
//!
//! Gets at depth 4 beside puts of so many megabytes a second, when the partition is half full and when eviction has to
//! make room for every put; then puts as fast as they go over three times the partition.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people, which stops where something is amiss"
)]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use strand_context_store::{
    Get, Identity, Medium, Namespace, Options, Put, PutOptions, Region, Store,
};

const NS: Namespace = Namespace(1);
const READERS: usize = 4;
const WRITERS: usize = 8;

struct Load {
    store: Store,
    arena: Arc<Region>,
    block: usize,
    next: AtomicU64,
    lowest_free: AtomicU32,
    stop: AtomicBool,
}

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    match took.len() {
        0 => "nothing".to_owned(),
        count => format!(
            "p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs, {count} of them",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        ),
    }
}

impl Load {
    async fn put(&self, slot: usize) -> Option<Duration> {
        let number = self.next.fetch_add(1, Relaxed);
        let span = self.arena.span(slot * self.block, self.block).unwrap();
        span.copy_from(&key(number));
        let began = Instant::now();
        let put = self
            .store
            .put(NS, &key(number), vec![span], PutOptions::default())
            .await
            .unwrap();
        let free = self.store.stats().free_segments;
        self.lowest_free.fetch_min(free, Relaxed);
        matches!(put, Put::Stored(_)).then(|| began.elapsed())
    }

    /// Reads blocks among the newest half of what fits, until told to stop.
    async fn read(self: Arc<Self>, reader: usize) -> (Vec<Duration>, u64) {
        let span = self
            .arena
            .span((WRITERS + reader) * self.block, self.block)
            .unwrap();
        let (mut took, mut misses, mut state) = (Vec::new(), 0, reader as u64 + 1);
        let fits = self.store.stats().capacity / self.block as u64;
        while !self.stop.load(Relaxed) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let newest = self.next.load(Relaxed).saturating_sub(64);
            let number = newest - (state >> 33) % (fits * 2 / 5).min(newest);
            let began = Instant::now();
            let got = self
                .store
                .get(NS, &key(number), std::slice::from_ref(&span))
                .await;
            match got.unwrap() {
                Get::Hit { .. } => took.push(began.elapsed()),
                Get::Miss => misses += 1,
            }
        }
        (took, misses)
    }

    /// Puts by all writers until `bytes` are written, at most `rate` bytes a second.
    async fn write(self: &Arc<Self>, bytes: u64, rate: Option<u64>) -> (Vec<Duration>, u64) {
        let began = Instant::now();
        let done = Arc::new(AtomicU64::new(0));
        let writers = (0..WRITERS).map(|slot| {
            let (load, done) = (Arc::clone(self), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut took, mut dropped) = (Vec::new(), 0);
                loop {
                    let mine = done.fetch_add(load.block as u64, Relaxed);
                    if mine >= bytes {
                        return (took, dropped);
                    }
                    if let Some(rate) = rate {
                        let due = began + Duration::from_secs_f64(mine as f64 / rate as f64);
                        tokio::time::sleep_until(due.into()).await;
                    }
                    match load.put(slot).await {
                        Some(time) => took.push(time),
                        None => dropped += 1,
                    }
                }
            })
        });
        let (mut all, mut dropped) = (Vec::new(), 0);
        for writer in writers.collect::<Vec<_>>() {
            let (took, lost) = writer.await.unwrap();
            all.extend(took);
            dropped += lost;
        }
        (all, dropped)
    }

    async fn mixed(self: &Arc<Self>, what: &str, bytes: u64, rate: u64) {
        self.stop.store(false, Relaxed);
        self.lowest_free.store(u32::MAX, Relaxed);
        let readers: Vec<_> = (0..READERS)
            .map(|reader| tokio::spawn(Arc::clone(self).read(reader)))
            .collect();
        let (puts, dropped) = self.write(bytes, Some(rate)).await;
        self.stop.store(true, Relaxed);
        let (mut gets, mut misses) = (Vec::new(), 0);
        for reader in readers {
            let (took, lost) = reader.await.unwrap();
            gets.extend(took);
            misses += lost;
        }
        println!("{what}: get {}, {misses} misses", percentiles(gets));
        let lowest = self.lowest_free.load(Relaxed);
        println!(
            "{what}: put {}, {dropped} dropped, lowest free {lowest}",
            percentiles(puts)
        );
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize| args[at].parse::<u64>().unwrap();
    let (len, block, rate) = (number(2), number(3) as usize, number(4) << 20);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&args[1])
        .unwrap();
    let medium = Medium {
        file,
        offset: 0,
        len,
    };
    let identity = Identity {
        pool: "measured".to_owned(),
        drive: "one".to_owned(),
    };
    let (store, _) = Store::open(medium, &identity, Options::default())
        .await
        .unwrap();
    let arena = Region::anonymous((READERS + WRITERS) * block).unwrap();
    store.register(&arena).unwrap();
    let capacity = store.stats().capacity;
    let load = Arc::new(Load {
        store,
        arena,
        block,
        next: AtomicU64::new(0),
        lowest_free: AtomicU32::new(u32::MAX),
        stop: AtomicBool::new(false),
    });
    println!(
        "{capacity} bytes in {} segments by {}",
        load.store.stats().segments,
        load.store.stats().engine
    );
    load.write(capacity * 45 / 100, None).await;
    load.mixed("half full", capacity / 10, rate).await;
    load.write(capacity * 6 / 10, None).await;
    load.mixed("full", capacity / 5, rate).await;
    let before = load.store.stats();
    load.lowest_free.store(u32::MAX, Relaxed);
    let began = Instant::now();
    let (puts, dropped) = load.write(3 * capacity, None).await;
    let seconds = began.elapsed().as_secs_f64();
    let after = load.store.stats();
    println!(
        "sustained: {:.0} MB/s, put {}, {dropped} dropped, lowest free {}, {:.3} written for each byte",
        (after.bytes_in - before.bytes_in) as f64 / 1e6 / seconds,
        percentiles(puts),
        load.lowest_free.load(Relaxed),
        (after.device_written - before.device_written) as f64
            / (after.bytes_in - before.bytes_in) as f64
    );
    match Arc::into_inner(load) {
        Some(load) => load.store.close().await,
        None => println!("something still holds the store"),
    }
}
