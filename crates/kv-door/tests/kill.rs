//! Two processes, one of them killed with SIGKILL at each step of the protocol: nothing stays pinned, mapped or open,
//! and the other one goes on without an error.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bed::Bed;
use bed::raw::{Raw, hello};
use strand_kv_client::frame::{FOREVER, Request};
use strand_kv_client::wire::{receive_hello, send_hello};
use strand_kv_client::{Client, Connection, Options, Put, PutOptions};
use strand_kv_door::{ArenaBudget, DoorOptions, MemoryBlocks, Namespace, Node};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const SOCKET: &str = "STRAND_TEST_SOCKET";
const STEP: &str = "STRAND_TEST_STEP";

/// Both tests count this process's descriptors and mappings.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Where a client stands still to be killed.
const STEPS: &[&str] = &[
    "connected",
    "half-hello",
    "hello",
    "welcomed",
    "mapped",
    "half-frame",
    "reserved",
    "put",
    "stored",
    "get",
    "leased",
    "waiting",
    "half-release",
    "released",
    "open",
    "reading",
    "part",
    "begun",
    "gathering",
    "gathered",
    "commit",
    "load",
];

/// This program again, running one of the tests below that are ignored otherwise. Dies with this one's `Drop`.
struct Process(Child);

impl Process {
    fn start(test: &str, socket: &Path, step: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--ignored", "--nocapture"]);
        command.env(SOCKET, socket).env(STEP, step);
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Waits until it says that it stands where it should.
    async fn there(&mut self) {
        let stdout = tokio::process::ChildStdout::from_std(self.0.stdout.take().unwrap()).unwrap();
        let mut lines = BufReader::new(stdout).lines();
        let waited = tokio::time::timeout(bed::PATIENCE, async {
            loop {
                match lines.next_line().await.unwrap() {
                    Some(line) if line.contains("HERE") => return,
                    Some(_) => {}
                    None => panic!("the process ended early"),
                }
            }
        });
        waited.await.expect("the process stands");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn stand() -> ! {
    println!("HERE");
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test]
#[ignore = "a process of the tests below"]
async fn process_client() {
    let (socket, step) = (std::env::var(SOCKET).unwrap(), std::env::var(STEP).unwrap());
    let path = Path::new(&socket);
    let get = Request::Get {
        key: b"there".to_vec(),
        room: FOREVER,
    };
    let put = Request::Put {
        key: b"k".to_vec(),
        offset: 0,
        length: 3 << 20,
        ttl_ms: 0,
        only_if_absent: false,
    };
    let open = Request::Open {
        key: b"large".to_vec(),
    };
    let begin = Request::Begin {
        key: b"new".to_vec(),
        length: 12 << 20,
    };
    match step.as_str() {
        "connected" | "half-hello" | "hello" => {
            let mut socket = UnixStream::connect(path).await.unwrap();
            match step.as_str() {
                "half-hello" => socket.write_all(&hello().encode()[..15]).await.unwrap(),
                "hello" => send_hello(&socket, &hello().encode(), &[]).await.unwrap(),
                _ => {}
            }
            stand().await
        }
        "welcomed" => {
            let socket = UnixStream::connect(path).await.unwrap();
            send_hello(&socket, &hello().encode(), &[]).await.unwrap();
            let _welcome = receive_hello(&socket).await.unwrap();
            stand().await
        }
        "load" => {
            let client = bed::connect(Options::new(path)).await;
            println!("HERE");
            let mut number = 0u64;
            loop {
                number += 1;
                let value = bed::value(number, 100_000);
                client
                    .put(b"load", &value, PutOptions::default())
                    .await
                    .unwrap();
                let gets = [
                    client.get(b"there"),
                    client.get(b"load"),
                    client.get(b"absent"),
                ];
                futures::future::join_all(gets).await;
                let large = client.fetch(b"large").await.unwrap().expect("a hit");
                let large = bed::whole(large).await.unwrap();
                client
                    .put(b"new", &large, PutOptions::default())
                    .await
                    .unwrap();
            }
        }
        _ => {}
    }
    let mut raw = Raw::open(path).await;
    let arenas = raw.map();
    let _room = arenas.write(3 << 20).await.unwrap();
    match step.as_str() {
        "mapped" | "reserved" => {}
        "half-frame" => raw.wire.send(|out| {
            put.encode(out, raw.welcome.epoch, 1);
            out.truncate(30);
        }),
        "put" => raw.send(1, &put),
        "stored" => drop(raw.ask(1, &put).await),
        "get" => raw.send(1, &get),
        "leased" => drop(raw.ask(1, &get).await),
        "waiting" => (1..200).for_each(|id| raw.send(id, &get)),
        "half-release" => {
            raw.ask(1, &get).await;
            raw.wire.send(|out| {
                Request::Release.encode(out, raw.welcome.epoch, 1);
                out.truncate(out.len() - 3);
            });
        }
        "released" => {
            raw.ask(1, &get).await;
            raw.send(1, &Request::Release);
        }
        "open" => drop(raw.ask(1, &open).await),
        "reading" | "part" => {
            raw.ask(1, &open).await;
            (2..12).for_each(|id| raw.send(id, &Request::Read { block: 1, part: id }));
            if step == "part" {
                raw.reply().await.unwrap();
            }
        }
        "begun" | "gathering" | "gathered" | "commit" => {
            raw.ask(1, &begin).await;
            let parts = if step == "begun" { 0 } else { 12 };
            for part in 0..parts {
                let part = Request::Part {
                    put: 1,
                    part,
                    offset: 0,
                };
                raw.send(2, &part);
                if step != "gathering" {
                    raw.reply().await.unwrap();
                }
            }
            if step == "commit" {
                raw.send(
                    3,
                    &Request::Commit {
                        put: 1,
                        ttl_ms: 0,
                        only_if_absent: false,
                    },
                );
            }
        }
        other => panic!("no step {other}"),
    }
    stand().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the tests below"]
async fn process_agent() {
    let node = Node::new(MemoryBlocks::default(), ArenaBudget::new(64 << 20));
    let _door = node
        .open(DoorOptions {
            socket: std::env::var(SOCKET).unwrap().into(),
            namespace: Namespace(1),
            arena_bytes: 32 << 20,
        })
        .unwrap();
    stand().await
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mapped_arenas() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.matches("memfd:strand-get").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_killed_at_any_step_leaves_nothing() {
    let _alone = ALONE.lock().await;
    let bed = Bed::with(16 << 20, 64 << 20);
    let other = bed.door("other.sock", 1, 16 << 20);
    let honest = bed.client_of(&other).await;
    let value = bed::value(1, 2 << 20);
    honest
        .put(b"there", &value, PutOptions::default())
        .await
        .unwrap();
    let large = bed::value(2, 12 << 20);
    honest
        .put(b"large", &large, PutOptions::default())
        .await
        .unwrap();
    let rest = (descriptors(), bed.node.usage());
    let mut after = 0;
    // A thousand kills and more.
    for round in 0..rounds(46) {
        for step in STEPS {
            let mut process = Process::start("process_client", bed.door.path(), step);
            process.there().await;
            if *step == "load" {
                tokio::time::sleep(Duration::from_micros(700 * round)).await;
            }
            drop(process);
            bed.until(|usage| {
                let used = (usage.sessions, usage.requests, usage.leases, usage.arenas);
                used == (1, 0, 0, 1) && (usage.streams, usage.gathered_bytes) == (0, 0)
            })
            .await;
            let block = honest.get(b"there").await.unwrap().expect("a hit");
            assert!(block[..] == value[..], "after {step}");
            drop(block);
            bed.until(|usage| usage.leases == 0).await;
        }
        match round {
            0 => after = descriptors(),
            // Another test's runtime may begin or end meanwhile.
            _ => assert!(descriptors() <= after + 8, "descriptors leak"),
        }
        assert_eq!(bed.node.usage().granted_bytes, 32 << 20);
    }
    // The pod's own memfds (two descriptors) stay for its next session.
    assert!(after <= rest.0 + 2 + 8, "{after}, before {}", rest.0);
    assert_eq!(rest.1.granted_bytes, 16 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_under_load_is_misses_and_then_hits() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kv.sock");
    let mut agent = Process::start("process_agent", &socket, "");
    agent.there().await;
    let client = bed::connect(Options {
        resend_within: Duration::from_secs(2),
        ..Options::new(&socket)
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let hits = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..8u64)
        .map(|task| {
            tokio::spawn(work(
                task,
                client.clone(),
                Arc::clone(&stop),
                Arc::clone(&hits),
            ))
        })
        .collect();
    let until_hits = async |more: u64| {
        let goal = hits.load(Ordering::Relaxed) + more;
        let waited = tokio::time::timeout(bed::PATIENCE, async {
            while hits.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.expect("hits come back");
    };
    until_hits(20).await;
    let mut before = 0;
    for round in 0..rounds(40) {
        tokio::time::sleep(Duration::from_micros(1300 * (round % 17))).await;
        drop(agent);
        if round % 2 == 0 {
            let down = tokio::time::timeout(bed::PATIENCE, async {
                while matches!(client.connection(), Connection::Up { .. }) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            down.await.expect("the client notices");
        }
        agent = Process::start("process_agent", &socket, "");
        agent.there().await;
        until_hits(20).await;
        let maps = mapped_arenas();
        assert!(maps <= 2, "{maps} GET arenas are mapped");
        match round {
            0 => before = descriptors(),
            _ => assert!(descriptors() <= before + 8, "descriptors leak"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no error and no wrong byte");
    }
    let counters = client.counters();
    assert_eq!(counters.sessions, 1 + rounds(40));
    assert!(
        counters.misses > 0 && counters.gets_resent > 0,
        "{counters:?}"
    );
    println!("{counters:?}");
    drop(client);
    let unmapped = tokio::time::timeout(bed::PATIENCE, async {
        while mapped_arenas() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    unmapped.await.expect("nothing stays mapped");
}

#[tokio::test]
async fn an_agent_that_stands_still_is_soon_no_longer_waited_for() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kv.sock");
    let mut agent = Process::start("process_agent", &socket, "");
    agent.there().await;
    let client = bed::connect(Options {
        patience: Duration::from_secs(2),
        ..Options::new(&socket)
    })
    .await;
    let put = client.put(b"k", b"v", PutOptions::default()).await;
    assert_eq!(put.unwrap(), Put::Stored);
    let pid = rustix::process::Pid::from_child(&agent.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let status = format!("/proc/{}/status", agent.0.id());
    let stopped = tokio::time::timeout(bed::PATIENCE, async {
        while !std::fs::read_to_string(&status)
            .unwrap()
            .contains("T (stopped)")
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    stopped.await.expect("it stands still");
    assert!(client.get(b"k").await.unwrap().is_none());
    assert_eq!(client.counters().misses_busy, 1);
    let down = tokio::time::timeout(bed::PATIENCE, async {
        while client.counters().misses_down == 0 {
            assert!(client.get(b"k").await.unwrap().is_none());
        }
    });
    down.await.expect("later gets do not wait");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let back = tokio::time::timeout(bed::PATIENCE, async {
        while client.get(b"k").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    back.await.expect("the hits come back");
}

/// Puts and gets blocks whose bytes tell which put they are from.
async fn work(task: u64, client: Client, stop: Arc<AtomicBool>, hits: Arc<AtomicU64>) {
    let mut number = 0;
    let key = task.to_le_bytes();
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let length = length_of(number);
        let mut value = vec![task as u8; length];
        value[..8].copy_from_slice(&u64::to_le_bytes(number));
        client
            .put(&key, &value, PutOptions::default())
            .await
            .unwrap();
        // What is lost in the middle is a miss that the client knows of; what comes whole is right.
        let block = match client.fetch(&key).await.unwrap() {
            Some(value) => bed::whole(value).await.ok(),
            None => None,
        };
        if let Some(block) = block {
            let stored = u64::from_le_bytes(block[..8].try_into().unwrap());
            assert!(stored <= number && stored > 0, "task {task}");
            assert_eq!(block.len(), length_of(stored));
            assert!(block[8..].iter().all(|byte| *byte == task as u8));
            hits.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

/// Every ninth does not fit the arena.
fn length_of(number: u64) -> usize {
    match number % 9 {
        8 => 17 << 20,
        n => 10_000 + n as usize * 400_000,
    }
}

/// More for a long run: STRAND_TEST_ROUNDS multiplies.
fn rounds(usual: u64) -> u64 {
    let factor = std::env::var("STRAND_TEST_ROUNDS").ok();
    usual * factor.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
