//! Values through the arena: whole, under pressure, from clients that stop or go, and over an agent's absence.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kv_endpoint::Config;
use support::client::{Answer, Client, ok, pattern};
use support::{PATIENCE, Server, until};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_length_come_back_as_they_were() {
    let server = Server::start(Config::default(), 64).await;
    let mut client = Client::connect(server.nil).await;
    for length in [
        1,
        4095,
        4096,
        4097,
        16_383,
        16_384,
        16_385,
        65_536,
        MIB - 1,
        MIB,
        MIB + 1,
        5 * MIB + 3,
        64 * MIB,
        64 * MIB + 1,
        128 * MIB,
    ] {
        let value = pattern(length, length as u64);
        assert_eq!(client.set("k", &value).await, ok());
        let got = client.call(&["GET", "k"]).await;
        assert!(got == Answer::Value(value), "{length} bytes");
        assert_eq!(
            client.call(&["STRLEN", "k"]).await,
            Answer::Line(format!(":{length}"))
        );
    }
    assert_eq!(server.store.in_use(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_fifty_clients_of_32_mib_share_64_mib_each_way() {
    let server = Server::start(Config::default(), 64).await;
    let value = Arc::new(pattern(32 * MIB, 1));
    let mut clients = JoinSet::new();
    for n in 0..150 {
        let (address, value) = (server.nil, value.clone());
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            // Two keys: what is stored shall not fill this machine.
            let key = if n % 2 == 0 { "even" } else { "odd" };
            assert_eq!(client.set(key, &value).await, ok());
            match client.call(&["GET", key]).await {
                Answer::Value(got) => assert!(got == *value, "other bytes came back"),
                other => panic!("{other:?}"),
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert_eq!(server.metrics.stored.get(), 150);
    assert_eq!(server.metrics.dropped.get(), 0);
    // Counted, and given back, just after the answer.
    until("hits are counted", || server.metrics.hits.get() == 150).await;
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mget_of_more_than_the_arena_holds() {
    let server = Server::start(Config::default(), 2).await;
    let mut client = Client::connect(server.nil).await;
    let mut words = vec!["MGET"];
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(client.set(key, &pattern(MIB, n as u64)).await, ok());
        words.push(key);
    }
    assert_eq!(client.call(&words).await, Answer::Line("*40".into()));
    for n in 0..40 {
        assert_eq!(client.answer().await, Answer::Value(pattern(MIB, n)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_gets_in_one_write() {
    let server = Server::start(Config::default(), 4).await;
    let mut client = Client::connect(server.nil).await;
    let value = pattern(64 << 10, 7);
    assert_eq!(client.set("k", &value).await, ok());
    client
        .send(&Client::head(&["GET", "k"], None).repeat(1000))
        .await;
    for _ in 0..1000 {
        assert_eq!(client.answer().await, Answer::Value(value.clone()));
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_the_connection_stays() {
    let server = Server::start(Config::default(), 2).await;
    let mut client = Client::connect(server.nil).await;
    let refused = |answer: Answer, words: &str| match answer {
        Answer::Line(line) => assert!(line.starts_with("-ERR ") && line.contains(words), "{line}"),
        other => panic!("{other:?}"),
    };
    let long = vec![b'x'; 128 * MIB + 1];
    refused(client.set("k", &long).await, "a value of 134217729 bytes");
    refused(client.set("k", b"").await, "an empty value");
    refused(
        client.set(&"k".repeat(1025), b"v").await,
        "a key of 1025 bytes",
    );
    refused(
        client.set(&"k".repeat(100_000), b"v").await,
        "a key of more than 65536 bytes",
    );
    refused(
        client.call(&["GET", &"k".repeat(1025)]).await,
        "a key of 1025 bytes",
    );
    refused(
        client.call(&["GET", &"k".repeat(100_000)]).await,
        "arguments are too long",
    );
    refused(
        client.call(&[&"k".repeat(100_000), "a"]).await,
        "its name is too long",
    );
    let many = vec!["a-key-of-some-length"; 50_000];
    refused(
        client.call(&[&["DEL"], &many[..]].concat()).await,
        "arguments are too long",
    );
    let pairs = ["MSET", "a", "1", &"k".repeat(2000), "2", "c", "3"];
    refused(client.call(&pairs).await, "a key of 2000 bytes");
    assert_eq!(
        client.call(&["GET", "c"]).await,
        Answer::Value(b"3".to_vec())
    );
    let pairs = ["MSET", "d", "4", "e", "", "f", "6"];
    refused(client.call(&pairs).await, "an empty value");
    assert_eq!(
        client.call(&["GET", "f"]).await,
        Answer::Value(b"6".to_vec())
    );
    refused(
        client.call(&["SETEX", "g", "9", ""]).await,
        "an empty value",
    );
    refused(client.call(&["SETNX", "g", ""]).await, "an empty value");
    assert_eq!(
        client.call(&["EXISTS", "e", "g", "k"]).await,
        Answer::Line(":0".into())
    );
    // A key may be as long as this.
    assert_eq!(client.set(&"k".repeat(1024), b"v").await, ok());
    assert_eq!(server.store.in_use(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_to_its_end_closes_the_connection_or_is_a_miss() {
    let server = Server::start(Config::default(), 2).await;
    let mut client = Client::connect(server.nil).await;
    let value = pattern(5 * MIB, 1);
    for key in ["whole", "first", "last"] {
        let value = if key == "whole" {
            &value[..MIB]
        } else {
            &value
        };
        assert_eq!(client.set(key, value).await, ok());
    }
    // Nothing of it was sent.
    server.store.tear(b"whole", 10);
    server.store.tear(b"first", 10);
    assert_eq!(client.call(&["GET", "whole"]).await, Answer::Nil);
    assert_eq!(client.call(&["GET", "first"]).await, Answer::Nil);
    // All but the end of it was.
    server.store.tear(b"last", 5 * MIB - 1);
    client.send(&Client::head(&["GET", "last"], None)).await;
    let mut got = Vec::new();
    client.stream.read_to_end(&mut got).await.unwrap();
    assert!(got.starts_with(b"$5242880\r\n"));
    assert!(got[10..] == value[..4 * MIB], "{} bytes", got.len());
    assert_eq!(server.metrics.late_failures.get(), 1);
    assert_eq!(
        (server.metrics.hits.get(), server.metrics.misses.get()),
        (0, 2)
    );
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_that_want_more_than_the_arena_do_not_hold_each_other_up() {
    let server = Server::start(Config::default(), 4).await;
    let mut client = Client::connect(server.nil).await;
    for n in 0..8 {
        let value = pattern(2 * MIB, n);
        assert_eq!(client.set(&format!("k{n}"), &value).await, ok());
    }
    let mut clients = JoinSet::new();
    for task in 0..6 {
        let address = server.nil;
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let order: Vec<u64> = (0..16).map(|n| (n * 3 + task) % 8).collect();
            let gets: Vec<u8> = (order.iter())
                .flat_map(|n| Client::head(&["GET", &format!("k{n}")], None))
                .collect();
            client.send(&gets).await;
            for n in order {
                let got = client.answer().await;
                assert!(
                    got == Answer::Value(pattern(2 * MIB, n)),
                    "task {task}, k{n}"
                );
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    // Counted, and given back, just after the answer.
    until("hits are counted", || server.metrics.hits.get() == 96).await;
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_at_any_point_leave_nothing_behind() {
    let server = Server::start(Config::default(), 4).await;
    let mut keeper = Client::connect(server.nil).await;
    assert_eq!(keeper.set("there", &pattern(3 * MIB, 3)).await, ok());
    let mut whole = Client::head(&["SET", "new"], Some(3 * MIB));
    let head = whole.len();
    whole.extend_from_slice(&pattern(3 * MIB, 4));
    whole.extend_from_slice(b"\r\n");
    let cuts = (0..head).chain([head, head + 1, head + MIB, whole.len() - 2, whole.len() - 1]);
    for cut in cuts {
        let mut client = Client::connect(server.nil).await;
        client.send(&whole[..cut]).await;
    }
    for read in [0, 1, MIB, 3 * MIB] {
        let mut client = Client::connect(server.nil).await;
        client.send(&Client::head(&["GET", "there"], None)).await;
        let mut some = vec![0; read];
        client.stream.read_exact(&mut some).await.unwrap();
    }
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
    until("one connection is open", || {
        server.metrics.connections.get() == 1
    })
    .await;
    assert_eq!(
        keeper.call(&["EXISTS", "new"]).await,
        Answer::Line(":0".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_rests_holding_the_arena_makes_way() {
    let config = Config {
        stall: Duration::from_secs(2),
        ..Config::default()
    };
    let server = Server::start(config, 4).await;
    let mut other = Client::connect(server.nil).await;
    let value = pattern(4 * MIB, 1);

    let mut writer = Client::connect(server.nil).await;
    writer
        .send(&Client::head(&["SET", "k"], Some(4 * MIB)))
        .await;
    writer.send(&value[..MIB]).await;
    until("the writer holds the arena", || {
        server.store.in_use().1 == 4
    })
    .await;
    assert_eq!(other.set("k", &value).await, ok());
    until("the writer is counted", || {
        server.metrics.stalled.get() == 1
    })
    .await;

    // More than sockets buffer: the reader must read, or hold the arena.
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut reader = Client::connect(server.nil).await;
        reader
            .send(&Client::head(&["GET", "k"], None).repeat(4))
            .await;
        readers.push(reader);
    }
    until("the readers are counted", || {
        server.metrics.stalled.get() == 9
    })
    .await;
    assert_eq!(other.call(&["GET", "k"]).await, Answer::Value(value));
    // Rest between commands is no stall.
    assert_eq!(other.call(&["PING"]).await, Answer::Line("+PONG".into()));
    assert_eq!(server.store.in_use(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_little_at_a_time_does_not_rest() {
    let config = Config {
        stall: Duration::from_secs(3),
        ..Config::default()
    };
    let server = Server::start(config, 4).await;
    let mut client = Client::connect(server.nil).await;
    let value = pattern(2 * MIB, 1);
    client
        .send(&Client::head(&["SET", "k"], Some(value.len())))
        .await;
    // Longer in all than a client may rest; far less at once than the endpoint waits for.
    let (trickle, rest) = value.split_at(15_000);
    for piece in trickle.chunks(1000) {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    client.send(rest).await;
    // What stands behind a value arrives with its end, and its answer is due at once.
    client.send(b"\r\nPING\r\n").await;
    assert_eq!(client.answer().await, ok());
    assert_eq!(client.answer().await, Answer::Line("+PONG".into()));
    assert_eq!(client.call(&["GET", "k"]).await, Answer::Value(value));
    assert_eq!(server.metrics.stalled.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_the_agent() {
    let server = Server::start(Config::default(), 16).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for n in 0..8_u64 {
        let (address, stop) = (server.nil, stop.clone());
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let (key, value) = (format!("k{n}"), pattern(256 << 10, n));
            let (mut hits, mut misses) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.set(&key, &value).await, ok());
                match client.call(&["GET", &key]).await {
                    Answer::Value(got) => {
                        assert!(got == value, "other bytes came back");
                        hits += 1;
                    }
                    Answer::Nil => misses += 1,
                    other => panic!("{other:?}"),
                }
            }
            (hits, misses)
        });
    }
    for round in 1..=5 {
        let (hits, dropped) = (server.metrics.hits.get(), server.metrics.dropped.get());
        until("hits", || server.metrics.hits.get() > hits + 20).await;
        server.store.set_down(true);
        until("drops", || server.metrics.dropped.get() > dropped + 20).await;
        server.store.set_down(false);
        assert_eq!(server.metrics.connections.get(), 8, "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = clients.join_next().await {
        let (hits, misses) = done.unwrap();
        assert!(hits > 0 && misses > 0, "{hits} hits, {misses} misses");
    }
    assert_eq!(server.metrics.accepted.get(), 8);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let server = Server::start(config, 4).await;
    let mut first = Client::connect(server.nil).await;
    assert_eq!(first.call(&["PING"]).await, Answer::Line("+PONG".into()));
    let mut second = Client::connect(server.nil).await;
    assert_eq!(second.call(&["PING"]).await, Answer::Line("+PONG".into()));
    let mut third = Client::connect(server.nil).await;
    let refusal = Answer::Line("-ERR max number of clients reached".into());
    assert_eq!(third.answer().await, refusal);
    drop(second);
    until("one left", || server.metrics.connections.get() == 1).await;
    let mut fourth = Client::connect(server.nil).await;
    assert_eq!(fourth.call(&["PING"]).await, Answer::Line("+PONG".into()));
}

/// A value that is sent in parts needs room for each, which must not be kept by values that are only asked for after it.
#[tokio::test]
async fn what_is_fetched_ahead_gives_way_to_a_value_that_is_sent_in_parts() {
    let server = Server::start(Config::default(), 2).await;
    let mut client = Client::connect(server.nil).await;
    // The first tells that values are short: then as many as possible are fetched ahead.
    let lengths = [10, (2 << 20) + 5, 1 << 20, 1 << 20];
    for (number, length) in lengths.into_iter().enumerate() {
        let value = pattern(length, number as u64);
        assert_eq!(client.set(&number.to_string(), &value).await, ok());
    }
    let gets = (0..lengths.len()).flat_map(|n| Client::head(&["GET", &n.to_string()], None));
    client.send(&gets.collect::<Vec<u8>>()).await;
    for (number, length) in lengths.into_iter().enumerate() {
        let answer = timeout(PATIENCE, client.answer()).await.expect("it hangs");
        assert_eq!(answer, Answer::Value(pattern(length, number as u64)));
    }
}
