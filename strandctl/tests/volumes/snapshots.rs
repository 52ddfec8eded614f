//! Snapshots under a writer: what they hold is what was on the volume at one moment between two writes.

use crate::calls::{Calls, From, Kind};
use crate::rack::Rack;
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

const ROUNDS: u64 = 6;
const BLOCK: usize = 4096;
/// The block of the counter; each number also has one of its own, from the first on.
const COUNTER: u64 = 0;
const MOST: u64 = 12_000;

/// A block that holds a number from its first byte to its last, as direct I/O wants it.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; 2 * BLOCK];
        let at = bytes.as_ptr().align_offset(BLOCK);
        Aligned(bytes, at)
    }

    fn of(&mut self, number: u64) -> &[u8] {
        let block = &mut self.0[self.1..self.1 + BLOCK];
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        block
    }
}

/// Counts on a device until it is dropped, which lets go of the device.
struct Writer {
    written: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    fn on(at: PathBuf) -> Self {
        let written = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (written, ended) = (Arc::clone(&written), Arc::clone(&ended));
            move || count(&at, &written, &ended)
        });
        let thread = Some(thread);
        Writer {
            written,
            ended,
            thread,
        }
    }

    fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended.store(true, SeqCst);
        let thread = self.thread.take();
        thread.map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The test has failed already.
        let _ = self.end();
    }
}

/// Writes 1, 2, 3 … each first into a block of its own, scattered, and then as the counter; what is told in `written` is done.
fn count(at: &Path, written: &AtomicU64, ended: &AtomicBool) -> io::Result<()> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
    let mut options = File::options();
    let file = options
        .write(true)
        .create(!at.exists())
        .custom_flags(flags)
        .open(at)?;
    let mut block = Aligned::new();
    for number in 1..=MOST {
        if ended.load(SeqCst) {
            break;
        }
        file.write_all_at(block.of(number), place(number))?;
        file.write_all_at(block.of(number), COUNTER)?;
        // In a file, bytes past its old end are there once that is.
        if number % 64 == 0 {
            file.sync_data()?;
            // It still writes when the last snapshot is taken.
            std::thread::sleep(Duration::from_millis(50));
        }
        written.store(number, SeqCst);
    }
    Ok(())
}

/// A number's place: no neighbours one after the other.
fn place(number: u64) -> u64 {
    let scattered = (number * 7_919) % (MOST + 1);
    (1 + scattered) * BLOCK as u64
}

/// The counter that a copy has, after every number up to it was found, and none from the next but one on.
fn counted(at: &Path) -> u64 {
    let file = File::open(at).unwrap();
    let number_at = |at: u64| {
        let mut block = vec![0; BLOCK];
        file.read_exact_at(&mut block, at).unwrap();
        let first = u64::from_le_bytes(*block.first_chunk().unwrap());
        let whole = block
            .chunks_exact(8)
            .all(|word| word == first.to_le_bytes());
        assert!(whole, "a block that was written in part, at {at}");
        first
    };
    let counter = number_at(COUNTER);
    for number in 1..=MOST {
        let found = number_at(place(number));
        let wanted: &[u64] = match number {
            _ if number <= counter => &[number],
            _ if number == counter + 1 => &[0, number],
            _ => &[0],
        };
        assert!(
            wanted.contains(&found),
            "{number} is {found}, and the counter {counter}"
        );
    }
    counter
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_under_a_writer_holds_all_that_was_written_up_to_one_moment() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "20Gi"]);
    let calls = Calls::to(&rack);
    let volume = calls.create("v", Kind::Block, 64, &[], From::Nothing).await;
    let at = calls.mount(&volume).await;
    let mut writer = Writer::on(at);
    let mut seen = Vec::new();
    for round in 0..ROUNDS {
        let before = writer.written();
        let snapshot = calls.snapshot(&volume, &format!("s{round}")).await;
        let after = writer.written();
        let name = format!("c{round}");
        // Every other time a clone of the volume itself, which is a moment later.
        let from = match round % 2 {
            0 => From::Snapshot(&snapshot),
            _ => From::Volume(&volume.id),
        };
        let copy = calls.create(&name, Kind::Block, 64, &[], from).await;
        let after = if round % 2 == 0 {
            after
        } else {
            writer.written()
        };
        let counter = counted(&calls.mount(&copy).await);
        assert!(
            (before..=after + 1).contains(&counter),
            "{before} {counter} {after}"
        );
        seen.push(counter);
        calls.unmount(&copy).await;
        calls.delete(&copy).await;
        calls.delete_snapshot(&snapshot).await;
    }
    writer.end().unwrap();
    println!("counters of {ROUNDS} copies: {seen:?}");
    assert!(
        seen[0] < seen[seen.len() - 1],
        "nothing was written meanwhile: {seen:?}"
    );
    calls.unmount(&volume).await;
    calls.delete(&volume).await;
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
