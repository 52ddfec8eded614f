//! A small client that sees lengths and bytes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

pub struct Client {
    pub stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Line(String),
    Value(Vec<u8>),
    Nil,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// A client of an endpoint that has its agent: before that it answers with misses.
    pub async fn of_an_agent(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        let up = timeout(PATIENCE, async {
            loop {
                match client.call(&["INFO", "strand"]).await {
                    Answer::Value(text) if text.windows(8).any(|word| word == b"agent:up") => {
                        return;
                    }
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        up.await.expect("the endpoint finds no agent");
        client
    }

    /// The head of a command whose last argument has `value` bytes, up to where they begin.
    pub fn head(words: &[&str], value: Option<usize>) -> Vec<u8> {
        let count = words.len() + usize::from(value.is_some());
        let mut head = format!("*{count}\r\n");
        for word in words {
            head += &format!("${}\r\n{word}\r\n", word.len());
        }
        if let Some(length) = value {
            head += &format!("${length}\r\n");
        }
        head.into_bytes()
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.get_mut().write_all(bytes))
            .await
            .expect("the endpoint takes no bytes")
            .unwrap();
    }

    pub async fn set(&mut self, key: &str, value: &[u8]) -> Answer {
        self.send(&Self::head(&["SET", key], Some(value.len())))
            .await;
        self.send(value).await;
        self.send(b"\r\n").await;
        self.answer().await
    }

    pub async fn call(&mut self, words: &[&str]) -> Answer {
        self.send(&Self::head(words, None)).await;
        self.answer().await
    }

    pub async fn answer(&mut self) -> Answer {
        timeout(PATIENCE, self.read())
            .await
            .expect("the endpoint does not answer")
    }

    async fn read(&mut self) -> Answer {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        let line = line
            .strip_suffix("\r\n")
            .unwrap_or_else(|| panic!("closed within {line:?}"));
        match line.strip_prefix('$') {
            None => Answer::Line(line.into()),
            Some("-1") => Answer::Nil,
            Some(length) => {
                let mut value = vec![0; length.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut value).await.unwrap();
                assert!(value.ends_with(b"\r\n"));
                value.truncate(value.len() - 2);
                Answer::Value(value)
            }
        }
    }
}

/// Bytes that differ from place to place, and from `seed` to `seed`.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

pub fn ok() -> Answer {
    Answer::Line("+OK".into())
}
