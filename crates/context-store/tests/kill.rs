//! `kill -9` of a real process that writes, again and again: what it said was committed is there, what it said was
//! deleted is not, and no byte is wrong.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strand_context_store::{
    Identity, Medium, Namespace, OpenError, Options, Put, PutOptions, Recovery, Store,
};

const LEN: u64 = 1 << 30;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const NS: Namespace = Namespace(3);
const KEYS: u64 = 300;
const WRITERS: u64 = 8;

fn value(number: u64) -> Vec<u8> {
    let len = match number % 5 {
        0 => 30 + number as usize % 3000,
        1 => 4096,
        2 => 100_000 + number as usize % 5000,
        3 => 16_384,
        _ => (1 << 20) + 77,
    };
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

async fn open(path: &Path) -> (Store, Recovery) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let identity = Identity {
        pool: "p".to_owned(),
        drive: "d".to_owned(),
    };
    let options = Options {
        patience: PATIENCE,
        ..Options::default()
    };
    // Transfers of a process that was killed keep the partition until they end.
    let begun = Instant::now();
    loop {
        let medium = Medium {
            file: file.try_clone().unwrap(),
            offset: 0,
            len: LEN,
        };
        match Store::open(medium, &identity, options.clone()).await {
            Ok(opened) => return opened,
            Err(OpenError::Busy) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The child: says "begin KEY NUMBER" before a put and "done KEY NUMBER" after it; number 0 is a deletion.
#[test]
fn writer_process() {
    let Some(path) = std::env::var_os("STRAND_STORE_KILL") else {
        return;
    };
    let start: u64 = std::env::var("STRAND_STORE_START")
        .unwrap()
        .parse()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (store, _) = open(Path::new(&path)).await;
        let next = Arc::new(AtomicU64::new(start));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (store, next) = (store.clone(), Arc::clone(&next));
            writers.push(tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    // Each writer has keys of its own, so that the order of its lines is the order of its writes.
                    let key = number % (KEYS / WRITERS) * WRITERS + writer;
                    let name = format!("key-{key}");
                    if number.is_multiple_of(7) {
                        say(&format!("begin {key} 0"));
                        store.delete(NS, name.as_bytes()).await.unwrap();
                        say(&format!("done {key} 0"));
                    } else {
                        say(&format!("begin {key} {number}"));
                        let put = store
                            .put_bytes(NS, name.as_bytes(), &value(number), PutOptions::default())
                            .await
                            .unwrap();
                        assert!(matches!(put, Put::Stored(_)), "{put:?}");
                        say(&format!("done {key} {number}"));
                    }
                }
            }));
        }
        // They end when they are killed, or fail.
        let failed = writers.pop().unwrap().await;
        panic!("a writer ended: {failed:?}");
    });
}

fn say(line: &str) {
    let mut out = std::io::stderr().lock();
    writeln!(out, "{line}").unwrap();
}

#[derive(Default)]
struct Known {
    done: u64,
    begun: Option<u64>,
}

#[test]
fn nothing_committed_is_lost_and_nothing_deleted_comes_back() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(LEN).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let mut next = 1;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_process", "--exact", "--nocapture"])
            .env("STRAND_STORE_KILL", file.path())
            .env("STRAND_STORE_START", next.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // Killed after some number of lines, so at a point that differs from round to round.
        let limit = 40 + round * 61 % 300;
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let mut words = line.split(' ');
            let (Some(what), Some(key), Some(number)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Ok(key), Ok(number)) = (key.parse::<u64>(), number.parse::<u64>()) else {
                panic!("the writer said: {line}");
            };
            next = next.max(number + 1);
            let entry = known.entry(key).or_default();
            if what == "begin" {
                entry.begun = Some(number);
            } else {
                entry.done = number;
                entry.begun = None;
            }
            seen += 1;
            if seen == limit {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(
            seen >= limit,
            "the writer ended by itself after {seen} lines"
        );
        runtime.block_on(async {
            let (store, _) = open(file.path()).await;
            for (key, known) in &mut known {
                let got = store
                    .get_bytes(NS, format!("key-{key}").as_bytes())
                    .await
                    .unwrap();
                let matches = |number: u64| match (&got, number) {
                    (None, 0) => true,
                    (Some(bytes), number) if number > 0 => *bytes == value(number),
                    _ => false,
                };
                let found = [Some(known.done), known.begun]
                    .into_iter()
                    .flatten()
                    .find(|number| matches(*number));
                let len = got.as_ref().map(Vec::len);
                assert!(
                    found.is_some(),
                    "round {round}, key {key}: {len:?} bytes, done {}, begun {:?}",
                    known.done,
                    known.begun
                );
                known.done = found.unwrap();
                known.begun = None;
            }
            store.close().await;
        });
    }
}
