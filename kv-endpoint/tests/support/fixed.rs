//! A client that reads as many bytes as the answer has that it hopes for, as LMCache's native one does. An answer that
//! is shorter hangs it; a longer one is found by whatever it asks next.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

pub struct Fixed(BufStream<TcpStream>);

impl Fixed {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufStream::new(stream))
    }

    async fn send(&mut self, words: &[&[u8]]) {
        let sent = timeout(PATIENCE, async {
            let count = format!("*{}\r\n", words.len());
            self.0.write_all(count.as_bytes()).await.unwrap();
            for word in words {
                let length = format!("${}\r\n", word.len());
                self.0.write_all(length.as_bytes()).await.unwrap();
                self.0.write_all(word).await.unwrap();
                self.0.write_all(b"\r\n").await.unwrap();
            }
            self.0.flush().await.unwrap();
        });
        sent.await.expect("the endpoint takes no bytes");
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = timeout(PATIENCE, self.0.read_exact(&mut bytes)).await;
        read.expect("an answer that is too short hangs the client")
            .expect("the connection was closed");
        bytes
    }

    pub async fn set(&mut self, key: &str, value: &[u8]) {
        self.send(&[b"SET", key.as_bytes(), value]).await;
        let answer = self.exactly(5).await;
        assert_eq!(answer, b"+OK\r\n", "{}", answer.escape_ascii());
    }

    pub async fn exists(&mut self, key: &str) -> bool {
        self.send(&[b"EXISTS", key.as_bytes()]).await;
        match &self.exactly(4).await[..] {
            b":1\r\n" => true,
            b":0\r\n" => false,
            other => panic!("to EXISTS: {}", other.escape_ascii()),
        }
    }

    /// The value, of which the length is known; none is a miss.
    pub async fn get(&mut self, key: &str, length: usize) -> Option<Vec<u8>> {
        self.send(&[b"GET", key.as_bytes()]).await;
        let header = format!("${length}\r\n");
        let answer = self.exactly(header.len()).await;
        if answer != header.as_bytes() {
            let words = answer.escape_ascii().to_string();
            assert!(answer.starts_with(b"-"), "{words} to GET {key}");
            assert!(answer.ends_with(b"\r\n"), "{words} to GET {key}");
            return None;
        }
        let mut value = self.exactly(length + 2).await;
        assert!(value.ends_with(b"\r\n"));
        value.truncate(length);
        Some(value)
    }
}
