//! The process itself: flags, logs, HTTP, its end; without an agent, as when a node's agent is away.

#![allow(clippy::unwrap_used, reason = "all of this is test")]

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use support::PATIENCE;
use support::client::{Answer, Client, ok};
use support::process::{endpoint, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

async fn http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn refused(command: &mut Command) -> String {
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn without_an_agent_it_serves_misses() {
    let (mut child, resp, listen) = start(&[]).await;
    let mut client = Client::connect(resp).await;
    assert_eq!(client.call(&["get", "k"]).await, Answer::Nil);
    assert_eq!(client.set("k", &vec![7; 3 << 20]).await, ok());
    assert_eq!(client.call(&["GET", "k"]).await, Answer::Nil);
    assert_eq!(
        client.call(&["EXISTS", "k"]).await,
        Answer::Line(":0".into())
    );
    match client.call(&["INFO", "strand"]).await {
        Answer::Value(text) => {
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("agent:down\r\n"), "{text}");
            assert!(text.contains("puts_dropped:1\r\n"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(http(listen, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(http(listen, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = http(listen, "/metrics").await;
    for line in [
        "strand_kv_endpoint_agent_up 0",
        "strand_kv_endpoint_misses_total 2",
        "strand_kv_endpoint_puts_dropped_total 1",
        "strand_kv_endpoint_commands_total{command=\"get\"} 2",
        "strand_kv_endpoint_command_seconds_count{command=\"set\"} 1",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is not in {metrics}"
        );
    }

    let pid = child.id().unwrap().to_string();
    let killed = Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert!(killed.success());
    let status = timeout(PATIENCE, child.wait())
        .await
        .expect("it does not end")
        .unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let open = refused(&mut endpoint(&["--resp", "0.0.0.0:0"])).await;
    assert!(open.contains("--password-file"), "{open}");
    let (_first, resp, _) = start(&[]).await;
    let taken = refused(&mut endpoint(&["--resp", &resp.to_string()])).await;
    assert!(
        taken.contains(&format!("cannot listen on {resp}")),
        "{taken}"
    );
    let missing = refused(&mut endpoint(&["--password-file", "/nowhere/password"])).await;
    assert!(
        missing.contains("/nowhere/password cannot be read"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_password_file_and_a_second_listener() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "secret").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // A free port: asked for, given back, and taken at once.
    let other = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = other.local_addr().unwrap();
    drop(other);
    let second = address.to_string();
    let arguments = [
        "--password-file",
        &path,
        "--resp-other",
        &second,
        "--chunk-bytes",
        "4096",
    ];
    let (_child, resp, _) = start(&arguments).await;
    let mut padded = Client::connect(resp).await;
    assert_eq!(padded.call(&["AUTH", "secret"]).await, ok());
    assert_eq!(
        padded.call(&["GET", "k"]).await,
        Answer::Line("-MISS".into())
    );
    let mut nil = Client::connect(address).await;
    assert_eq!(nil.call(&["AUTH", "secret"]).await, ok());
    assert_eq!(nil.call(&["GET", "k"]).await, Answer::Nil);
}

#[tokio::test]
async fn two_hundred_connections_fit_16_mib() {
    let (child, resp, _) = start(&[]).await;
    let status = format!("/proc/{}/status", child.id().unwrap());
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(resp).await;
        // Dropped, for want of an agent: its bytes pass through this process' own buffers, the worst case.
        assert_eq!(client.set("k", &vec![7; 1 << 20]).await, ok());
        clients.push(client);
    }
    let anonymous = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let kib = anonymous();
    assert!(kib < 16 << 10, "{kib} KiB with 200 connections");
}
