//! Unmodified clients against the endpoint. `scripts/install-test-tools` brings them.

mod support;

use kv_endpoint::Config;
use support::programs::{python, run};
use support::{Server, until};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_py() {
    // On the listener for everyone: it must recognise an ordinary client.
    let server = Server::start(Config::default(), 64).await;
    python("redis_py.py", &[&server.padded.port().to_string()]).await;
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
    assert_eq!(server.metrics.dropped.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_glide() {
    let server = Server::start(Config::default(), 64).await;
    python("valkey_glide.py", &[&server.padded.port().to_string()]).await;
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lmcache_native() {
    let server = Server::start(Config::default(), 64).await;
    python("lmcache_native.py", &[&server.padded.port().to_string()]).await;
    assert_eq!(server.metrics.misses_unknown_length.get(), 0);
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lmcache_native_with_a_password() {
    let config = Config {
        password: Some("secret".into()),
        ..Config::default()
    };
    let server = Server::start(config, 64).await;
    python(
        "lmcache_native.py",
        &[&server.padded.port().to_string(), "secret"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cli_and_redis_benchmark() {
    let server = Server::start(Config::default(), 64).await;
    for port in [server.padded.port(), server.nil.port()] {
        let port = port.to_string();
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.args([
            "-p",
            &port,
            "-n",
            "2000",
            "-t",
            "ping,set,get,mset",
            "-P",
            "8",
            "--csv",
        ]);
        let table = run(&mut benchmark).await;
        // A header, PING twice, SET, GET, MSET.
        assert_eq!(
            table.lines().filter(|l| l.starts_with('"')).count(),
            6,
            "{table}"
        );
        assert!(!table.contains("Error"), "{table}");

        let cli = |words: &[&str]| {
            let mut command = Command::new("redis-cli");
            command.args(["-p", &port, "-e"]).args(words);
            command
        };
        assert_eq!(run(&mut cli(&["flushall"])).await, "OK\n");
        assert_eq!(run(&mut cli(&["set", "a", "1"])).await, "OK\n");
        assert_eq!(run(&mut cli(&["get", "a"])).await, "1\n");
        assert_eq!(run(&mut cli(&["get", "nothing"])).await, "\n");
        assert_eq!(run(&mut cli(&["--scan"])).await, "a\n");
        assert_eq!(
            run(&mut cli(&["-3", "mget", "a", "nothing"])).await,
            "1\n\n"
        );
        let pattern = ["--scan", "--pattern", "b*"];
        assert_eq!(run(&mut cli(&pattern)).await, "");
    }
}
