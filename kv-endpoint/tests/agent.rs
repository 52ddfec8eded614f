//! The endpoint's process before a real door: what it keeps in memory, and what its clients see of an agent that is killed.

#![allow(clippy::unwrap_used, reason = "all of this is test")]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use strand_context_store::Options;
use strand_kv_door::{ArenaBudget, Door, DoorOptions, MemoryBlocks, Namespace, Node, StoreBlocks};
use support::agent::{Agent, open_store};
use support::client::{Answer, Client, ok, pattern};
use support::process::start;
use support::programs::{python, run};
use support::{PATIENCE, until};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

const MIB: usize = 1 << 20;
const SOCKET: &str = "STRAND_TEST_SOCKET";
const PARTITION: u64 = 1 << 30;

fn options(socket: &Path) -> DoorOptions {
    DoorOptions {
        socket: socket.into(),
        namespace: Namespace(1),
        arena_bytes: DoorOptions::ARENA_BYTES,
    }
}

/// KiB of private memory that a process has.
fn private_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let words = line.unwrap().split_whitespace().nth(1);
    words.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_fifty_clients_of_32_mib_take_no_memory_but_the_arena() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("door.sock");
    let node = Node::new(MemoryBlocks::default(), ArenaBudget::new(64 * MIB));
    let _door: Door = node.open(options(&socket)).unwrap();
    let door = socket.to_str().unwrap();
    let flags = [
        "--door",
        door,
        "--patience-seconds",
        "300",
        "--stall-seconds",
        "300",
        "--misses",
        "nil",
    ];
    let (child, resp, _listen) = start(&flags).await;
    let pid = child.id().unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let most = Arc::new(AtomicU64::new(0));
    let watch = tokio::spawn({
        let (done, most) = (done.clone(), most.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(private_kib(pid), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    // One stays inside the arena whole, one has to pass in parts.
    let values = Arc::new([pattern(32 * MIB, 1), pattern(40 * MIB, 2)]);
    let written = Arc::new(Barrier::new(150));
    let mut clients = JoinSet::new();
    for n in 0..150 {
        let (values, written) = (values.clone(), written.clone());
        clients.spawn(async move {
            let mut client = Client::connect(resp).await;
            let (key, value) = match n % 10 {
                0 => ("long", &values[1]),
                _ => ("k", &values[0]),
            };
            // Not all write: what arrives is the same, and debug builds are slow.
            if n % 5 == 0 {
                assert_eq!(client.set(key, value).await, ok());
            }
            written.wait().await;
            match client.call(&["GET", key]).await {
                Answer::Value(got) => assert!(got == *value, "other bytes came back"),
                other => panic!("{other:?}"),
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    watch.await.unwrap();
    let most = most.load(Ordering::Relaxed);
    println!("at most {most} KiB of private memory");
    assert!(most <= 16 << 10, "{most} KiB");
    assert_eq!(node.usage().granted_bytes, 64 * MIB);
    until("nothing is held", || {
        let usage = node.usage();
        (
            usage.leases,
            usage.streams,
            usage.requests,
            usage.gathered_bytes,
        ) == (0, 0, 0, 0)
    })
    .await;
}

/// An agent, that is: this program again, running the test below that is ignored otherwise.
async fn agent(socket: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["process_agent", "--exact", "--ignored", "--nocapture"]);
    command.env(SOCKET, socket).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let up = timeout(PATIENCE, async {
        while !(lines.next_line().await.unwrap().expect("it ended")).contains("HERE") {}
    });
    up.await.expect("it does not start");
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the test below"]
async fn process_agent() {
    let socket = std::env::var(SOCKET).unwrap();
    let path = Path::new(&socket).with_file_name("partition");
    let blocks = StoreBlocks::new(open_store(&path, PARTITION, Options::default()).await);
    let node = Node::new(blocks, ArenaBudget::new(64 * MIB));
    let _door = node
        .open(DoorOptions {
            arena_bytes: 16 * MIB,
            ..options(Path::new(&socket))
        })
        .unwrap();
    println!("HERE");
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_costs_redis_py_hits_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("door.sock");
    let mut running = agent(&socket).await;
    let (_endpoint, resp, _listen) = start(&["--door", socket.to_str().unwrap()]).await;

    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut load = Command::new(crate_root.join("../.cache/kv-clients/bin/python"))
        .arg("-B")
        .arg(crate_root.join("tests/clients/restarts.py"))
        .arg(resp.port().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("scripts/install-test-tools brings redis-py");
    let mut lines = BufReader::new(load.stdout.take().unwrap()).lines();
    let mut hits = 0;
    for round in 0..8 {
        let goal = hits + 15;
        let found = timeout(PATIENCE, async {
            while hits < goal {
                let line = lines.next_line().await.unwrap().expect("the load ended");
                hits = line.split(' ').next().unwrap().parse().unwrap();
            }
        });
        found.await.expect("hits come back");
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        running.kill().await.unwrap();
        running = agent(&socket).await;
    }
    drop(load.stdin.take());
    let mut last = String::new();
    let rest = timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            last = line;
        }
    });
    rest.await.expect("the load ends");
    assert!(load.wait().await.unwrap().success(), "see its words above");
    println!("{last}");
    assert!(last.starts_with("whole"), "{last}");

    let mut client = Client::connect(resp).await;
    let Answer::Value(info) = client.call(&["INFO", "stats", "strand"]).await else {
        panic!("INFO is text");
    };
    let info = String::from_utf8(info).unwrap();
    println!("{info}");
    // Six clients and this one: nobody had to come back.
    assert!(info.contains("total_connections_received:7\r\n"), "{info}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unmodified_clients_before_a_store() {
    // They expect to find what they wrote a moment ago: nothing may be dropped because this machine is slow.
    let patient = Options {
        patience: PATIENCE,
        ..Options::default()
    };
    let agent = Agent::with(PARTITION, patient).await;
    let door = agent.door("door.sock", DoorOptions::ARENA_BYTES);
    let flags = ["--door", door.path().to_str().unwrap()];
    let (_endpoint, resp, _listen) = start(&flags).await;
    drop(Client::of_an_agent(resp).await);
    for script in ["redis_py.py", "valkey_glide.py", "lmcache_native.py"] {
        python(script, &[&resp.port().to_string()]).await;
    }
    let mut benchmark = Command::new("redis-benchmark");
    let port = resp.port().to_string();
    benchmark.args(["-p", &port, "-n", "1000", "-t", "set,get,mset"]);
    let table = run(benchmark.args(["-d", "5000", "-P", "4", "--csv"])).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(!table.contains("Error"), "{table}");
    agent.at_rest(1).await;
}
