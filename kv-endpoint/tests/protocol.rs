//! The stories in `protocol/`, to the byte. `protocol/README.md` tells how to write one.

#![allow(clippy::unwrap_used, reason = "all of this is test")]

mod support;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use kv_endpoint::Config;
use support::{PATIENCE, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn every_story_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol");
    let mut told = 0;
    let mut faults = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "txt") {
            told += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            if let Err(fault) = tell(&text).await {
                let _ = writeln!(faults, "{}: {fault}", path.display());
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    assert!(told >= 10, "only {told} stories were found");
}

async fn tell(text: &str) -> Result<(), String> {
    let mut config = Config::default();
    for line in text.lines() {
        if let Some(word) = line.strip_prefix("! password ") {
            config.password = Some(word.into());
        } else if let Some(n) = line.strip_prefix("! chunk ") {
            config.chunk_bytes = Some(n.parse().map_err(|e| format!("{line}: {e}"))?);
        }
    }
    let server = Server::start(config, 64).await;
    let mut address = server.nil;
    let mut client = TcpStream::connect(address).await.unwrap();
    for (number, line) in text.lines().enumerate() {
        let at = |what: String| format!("line {}: {what}", number + 1);
        if let Some(bytes) = line.strip_prefix(">> ") {
            client
                .write_all(&unescape(bytes))
                .await
                .map_err(|e| at(e.to_string()))?;
        } else if let Some(words) = line.strip_prefix("> ") {
            let line = format!("{words}\r\n");
            client
                .write_all(line.as_bytes())
                .await
                .map_err(|e| at(e.to_string()))?;
        } else if let Some(expected) = line.strip_prefix("< ") {
            expect(&mut client, format!("{expected}\r\n").as_bytes())
                .await
                .map_err(at)?;
        } else if let Some(what) = line.strip_prefix("! ") {
            match what.split(' ').collect::<Vec<_>>()[..] {
                ["connect"] => {
                    rest(client).await.map_err(at)?;
                    client = TcpStream::connect(address).await.unwrap();
                }
                ["closed"] => {
                    let mut byte = [0];
                    match timeout(PATIENCE, client.read(&mut byte)).await {
                        Ok(Ok(0)) => {}
                        other => {
                            return Err(at(format!("the connection is still open: {other:?}")));
                        }
                    }
                }
                ["padded"] => address = server.padded,
                ["nil"] => address = server.nil,
                ["agent", state] => server.store.set_down(state == "down"),
                ["evict", key] => server.store.evict(key.as_bytes()),
                ["counted", name, count] => counted(&server, name, count).await.map_err(at)?,
                ["password" | "chunk", _] => {}
                _ => return Err(at(format!("what is {line:?}?"))),
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            return Err(at(format!("what is {line:?}?")));
        }
    }
    rest(client).await
}

async fn expect(client: &mut TcpStream, expected: &[u8]) -> Result<(), String> {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let mut byte = [0];
        match timeout(Duration::from_secs(10), client.read(&mut byte)).await {
            Ok(Ok(1)) => got.push(byte[0]),
            Ok(Ok(_)) => break,
            Ok(Err(e)) => return Err(format!("{e} after {}", got.escape_ascii())),
            Err(_) => break,
        }
        if !expected.starts_with(&got) {
            break;
        }
    }
    if got == expected {
        return Ok(());
    }
    // The rest of what came helps whoever reads this.
    let mut more = vec![0; 200];
    let read = timeout(Duration::from_millis(100), client.read(&mut more)).await;
    if let Ok(Ok(n)) = read {
        got.extend_from_slice(&more[..n]);
    }
    Err(format!(
        "expected {}, got {}",
        expected.escape_ascii(),
        got.escape_ascii()
    ))
}

/// Nothing more may come on this connection.
async fn rest(mut client: TcpStream) -> Result<(), String> {
    // A connection that the endpoint closed cannot be shut down again.
    let _ = client.shutdown().await;
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, client.read_to_end(&mut rest)).await;
    match (read, rest.is_empty()) {
        (Ok(Ok(_)), true) => Ok(()),
        (read, _) => Err(format!("unread: {} ({read:?})", rest.escape_ascii())),
    }
}

async fn counted(server: &Server, name: &str, count: &str) -> Result<(), String> {
    let mut client = server.connect().await;
    client.write_all(b"INFO strand\r\nQUIT\r\n").await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    let line = format!("{name}:{count}");
    match text.lines().any(|l| l == line) {
        true => Ok(()),
        false => Err(format!("{line} is not in {text}")),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two digits after \\x")
            }
            Some(other) => other,
            None => b'\\',
        });
    }
    out
}
