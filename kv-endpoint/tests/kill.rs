//! Endpoints killed with SIGKILL at each step of what they do for their clients, before a real store: the agent is left
//! with nothing pinned, mapped or open, and serves the others and the pods' next endpoints.

#![allow(clippy::unwrap_used, reason = "all of this is test")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use strand_context_store::Options;
use strand_kv_client::PutOptions;
use support::PATIENCE;
use support::agent::{Agent, connect};
use support::client::{Client, ok, pattern};
use support::process::start;
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;

const MIB: usize = 1 << 20;
/// A pod's arena: half of it each way.
const ARENA: usize = 16 * MIB;
/// Values that are there. The long one passes in parts.
const THERE: [(&str, usize); 2] = [("there", 3 * MIB), ("long", 12 * MIB)];
/// Pods whose endpoints are killed at a time.
const PODS: usize = 6;

/// What an endpoint is doing when it is killed.
const STEPS: &[&str] = &[
    "started",
    "connected",
    "half a command",
    "a value's header came",
    "half a value came",
    "a value came but for its end",
    "a value came",
    "a value is stored",
    "pairs come in",
    "half of a long value came",
    "a long value came",
    "a value is asked for",
    "a value is being sent",
    "a pipeline waits",
    "a long value is asked for",
    "a long value is being sent",
    "many are asked for",
    "keys are looked for and deleted",
];

/// Brings the endpoint at `resp` to a step; the clients that it has there.
async fn bring_to(step: &str, resp: SocketAddr) -> Vec<Client> {
    if step == "started" {
        return Vec::new();
    }
    let mut client = Client::of_an_agent(resp).await;
    let set = |length: usize| {
        let mut whole = Client::head(&["SET", "new"], Some(length));
        let head = whole.len();
        whole.extend_from_slice(&pattern(length, 7));
        whole.extend_from_slice(b"\r\n");
        (whole, head)
    };
    let (short, head) = set(3 * MIB);
    let (long, _) = set(12 * MIB);
    let get = |key| Client::head(&["GET", key], None);
    let mut some = vec![0; 1000];
    match step {
        "connected" => {}
        "half a command" => client.send(&short[..head - 5]).await,
        "a value's header came" => client.send(&short[..head]).await,
        "half a value came" => client.send(&short[..head + MIB]).await,
        "a value came but for its end" => client.send(&short[..short.len() - 1]).await,
        "a value came" => client.send(&short).await,
        "a value is stored" => {
            client.send(&short).await;
            assert_eq!(client.answer().await, ok());
        }
        "pairs come in" => {
            let mut pairs = b"*21\r\n$4\r\nMSET\r\n".to_vec();
            for number in 0..5u64 {
                pairs.extend_from_slice(format!("$2\r\np{number}\r\n$600000\r\n").as_bytes());
                pairs.extend_from_slice(&pattern(600_000, number));
                pairs.extend_from_slice(b"\r\n");
            }
            client.send(&pairs).await;
        }
        "half of a long value came" => client.send(&long[..5 * MIB]).await,
        "a long value came" => client.send(&long).await,
        "a value is asked for" => client.send(&get("there")).await,
        "a value is being sent" => {
            client.send(&get("there")).await;
            first(&mut client, &mut some).await;
        }
        "a pipeline waits" => client.send(&get("there").repeat(10)).await,
        "a long value is asked for" => client.send(&get("long")).await,
        "a long value is being sent" => {
            client.send(&get("long")).await;
            first(&mut client, &mut some).await;
        }
        "many are asked for" => {
            let mut clients = vec![client];
            for number in 0..12 {
                let mut client = Client::connect(resp).await;
                let key = THERE[number % 2].0;
                client.send(&get(key).repeat(2)).await;
                clients.push(client);
            }
            return clients;
        }
        "keys are looked for and deleted" => {
            let words = ["EXISTS", "there", "long", "nothing"];
            client.send(&Client::head(&words, None)).await;
            client
                .send(&Client::head(&["DEL", "new", "p0"], None))
                .await;
        }
        other => panic!("no step {other}"),
    }
    vec![client]
}

/// Reads the first bytes of a value.
async fn first(client: &mut Client, bytes: &mut [u8]) {
    let read = timeout(PATIENCE, client.stream.read_exact(bytes)).await;
    read.expect("the value does not come").unwrap();
}

/// Starts an endpoint before `door`, brings it to a step, and lets it run a moment longer: what it does then may have
/// begun or not.
async fn endpoint_at(door: &Path, step: &str, moment: Duration) -> (Child, Vec<Client>) {
    let flags = ["--door", door.to_str().unwrap(), "--misses", "nil"];
    let (child, resp, _) = start(&flags).await;
    let clients = bring_to(step, resp).await;
    tokio::time::sleep(moment).await;
    (child, clients)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_killed_at_any_step_leaves_nothing() {
    let options = Options {
        patience: PATIENCE,
        ..Options::default()
    };
    let agent = Agent::with(512 << 20, options).await;
    let honest = agent.door("honest.sock", 32 * MIB);
    let honest = connect(honest.path()).await;
    for (seed, (key, length)) in THERE.iter().enumerate() {
        let value = pattern(*length, seed as u64);
        let put = honest.put(key.as_bytes(), &value, PutOptions::default());
        put.await.unwrap();
    }
    let doors: Vec<_> = (0..PODS)
        .map(|pod| agent.door(&format!("{pod}.sock"), ARENA))
        .collect();
    let kills = 6 * STEPS.len() * factor();
    let mut done = 0;
    let mut streamed = 0;
    while done < kills {
        let mut starting = JoinSet::new();
        for door in &doors {
            let (path, step) = (door.path().to_owned(), STEPS[done % STEPS.len()]);
            let moment = Duration::from_micros(done as u64 * 97 % 4000);
            starting.spawn(async move { endpoint_at(&path, step, moment).await });
            done += 1;
        }
        let mut endpoints = starting.join_all().await;
        streamed += agent.node.usage().streams;
        for (child, _) in &mut endpoints {
            child.start_kill().unwrap();
        }
        for (child, _) in &mut endpoints {
            child.wait().await.unwrap();
        }
        drop(endpoints);
        agent.at_rest(1).await;
        for (seed, (key, length)) in THERE.iter().enumerate() {
            let block = honest.get(key.as_bytes()).await.unwrap().expect("a hit");
            assert!(block[..] == pattern(*length, seed as u64), "{key}");
        }
        agent.at_rest(1).await;
        // What the pods' next endpoints get is what these had.
        let most = (32 * MIB + PODS * ARENA) as u64;
        assert!(agent.node.usage().granted_bytes as u64 <= most);
    }
    println!("{done} endpoints killed, {streamed} values on their way in parts");
    assert!(streamed > 0, "no endpoint was killed within a long value");
}

/// More for a long run: STRAND_TEST_ROUNDS multiplies, as it does for the native client's test of this kind.
fn factor() -> usize {
    let factor = std::env::var("STRAND_TEST_ROUNDS").ok();
    factor.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
