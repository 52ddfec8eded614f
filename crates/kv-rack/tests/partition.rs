//! A real partition: two agents, each in a network namespace of its own, and a link between them that goes down.
//!
//! Needs root and `ip`; without them the test says so and passes.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bed::{NS, POOL};
use strand_api::{MapDrive, MapNode, PoolMapSpec};
use strand_kv_client::{Client, Options, PutOptions};
use strand_kv_door::{ArenaBudget, Node};
use strand_kv_rack::{PeerKey, PeerState, Peers, Rack, RackOptions};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_millis(500);
/// What a busy machine of two cores adds; to wait for each block would take longer.
const SLACK: Duration = Duration::from_secs(4);

fn ip(arguments: &str) -> bool {
    let mut run = Command::new("ip");
    run.args(arguments.split(' ')).stderr(Stdio::null());
    run.status().is_ok_and(|status| status.success())
}

/// Two namespaces and a cable. Gone with this value.
struct Cable {
    names: [String; 2],
}

impl Cable {
    fn new() -> Option<Self> {
        let names = [0, 1].map(|end| format!("strand-rack-{}-{end}", std::process::id()));
        let cable = Self { names };
        let [a, b] = &cable.names;
        let made = ip(&format!("netns add {a}"))
            && ip(&format!("netns add {b}"))
            && ip(&format!(
                "-n {a} link add cable type veth peer name cable netns {b}"
            ))
            && ip(&format!("-n {a} addr add 10.77.0.1/24 dev cable"))
            && ip(&format!("-n {b} addr add 10.77.0.2/24 dev cable"))
            && cable.names.iter().all(|name| {
                ip(&format!("-n {name} link set cable up"))
                    && ip(&format!("-n {name} link set lo up"))
            });
        made.then_some(cable)
    }

    fn plug(&self, in_: bool) {
        let state = if in_ { "up" } else { "down" };
        assert!(ip(&format!("-n {} link set cable {state}", self.names[1])));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns delete {name}"));
        }
    }
}

/// This test program again, as an agent inside a namespace.
struct Agent(Child);

impl Agent {
    fn start(cable: &Cable, number: usize, directory: &Path) -> Self {
        let child = Command::new("ip")
            .args(["netns", "exec", &cable.names[number]])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "an_agent"])
            .env("AGENT", number.to_string())
            .env("DIRECTORY", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("agent is ready")));
        let agent = Self(child);
        assert!(ready, "agent {number} did not start");
        std::thread::spawn(move || lines.for_each(drop));
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Closing its input ends it in order; `ip` has become the agent itself.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn map() -> PoolMapSpec {
    let node = |number: u32| MapNode {
        node: format!("node-{number}"),
        at: format!("10.77.0.{}:9466", number + 1),
        domain: None,
        drives: vec![MapDrive {
            weight: 100,
            since: 1,
            key: number,
        }],
    };
    PoolMapSpec {
        epoch: 1,
        pool_id: POOL.into(),
        nodes: vec![node(0), node(1)],
    }
}

#[ignore = "started by the test below"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent() {
    let Ok(number) = std::env::var("AGENT") else {
        return;
    };
    let number: u32 = number.parse().unwrap();
    let directory = std::env::var("DIRECTORY").unwrap();
    let directory = Path::new(&directory);
    let options = RackOptions {
        patience: PATIENCE,
        ..RackOptions::new(format!("node-{number}"), POOL, PeerKey::new([9; 32]))
    };
    let rack = Rack::new(options).unwrap();
    let address = format!("10.77.0.{}:9466", number + 1);
    let peers = Peers::listen(TcpListener::bind(address).await.unwrap()).unwrap();
    peers.add(&rack);
    let store = bed::store(directory, &format!("store-{number}")).await;
    rack.add_drive(number, store).await;
    rack.set_map(&map());
    let node = Node::new(rack.clone(), ArenaBudget::new(256 << 20));
    let _door = bed::door(&node, directory, &format!("{number}.sock"), NS);
    println!("agent is ready");
    std::io::stdout().flush().unwrap();
    // Writes down what it sees of the other until its input is closed.
    let ended = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        told.notify_one();
    });
    loop {
        let up = rack.stats().peers[0].state == PeerState::Up;
        std::fs::write(directory.join(format!("{number}.up")), [u8::from(up)]).unwrap();
        tokio::select! {
            () = ended.notified() => return,
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
}

async fn client(directory: &Path, number: usize) -> Client {
    bed::connect(Options::new(directory.join(format!("{number}.sock")))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_cable_is_a_miss_in_time_and_at_once_afterwards_until_it_is_plugged_in() {
    let Some(cable) = Cable::new() else {
        println!("no network namespaces here (needs root and ip): nothing was tested");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let agents = [0, 1].map(|number| Agent::start(&cable, number, directory.path()));
    let clients = [
        client(directory.path(), 0).await,
        client(directory.path(), 1).await,
    ];
    // Blocks that node 1 has: those that node 0 has to fetch over the cable.
    let keys: Vec<_> = (0..64)
        .map(|number| format!("cable {number}").into_bytes())
        .collect();
    // A peer that the machine kept waiting for longer than its patience is taken for dead for a while.
    let both = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            for key in &keys {
                let put = clients[1].put(key, key, PutOptions::default());
                put.await.unwrap();
            }
            if clients[0].leading_run(&keys).await.unwrap() == keys.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    both.await.expect("node 0 does not find what node 1 put");

    cable.plug(false);
    let mut there = Vec::new();
    let start = Instant::now();
    let mut first = None;
    for key in &keys {
        if clients[0].get(key).await.unwrap().is_some() {
            there.push(key);
        } else if first.is_none() {
            first = Some(start.elapsed());
        }
    }
    let (first, all) = (first.expect("some are behind the cable"), start.elapsed());
    println!(
        "first miss after {first:?}, {} of 64 behind the cable, all asked after {all:?}",
        64 - there.len()
    );
    assert!(
        first >= PATIENCE / 2 && first < PATIENCE + SLACK,
        "{first:?}"
    );
    assert!(all < first + SLACK, "{all:?}: not at once afterwards");
    assert!((8..56).contains(&there.len()), "{} here", there.len());
    // And so the other way round.
    let other = clients[1].get(there[0]).await.unwrap();
    assert!(other.is_none());

    cable.plug(true);
    let back = tokio::time::timeout(Duration::from_secs(60), async {
        while clients[0].leading_run(&keys).await.unwrap() < keys.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    back.await.expect("the peer did not come back");
    for key in &keys {
        let found = clients[0].get(key).await.unwrap().expect("a hit");
        assert!(found[..] == key[..]);
    }
    drop(agents);
}
