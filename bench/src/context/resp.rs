//! A client of RESP2 that takes whole answers into memory it has: the same for our endpoint and for Redis.

use anyhow::{Context, bail, ensure};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use super::load::{Blocks, mixed};

/// Bytes that are read at once beside values.
const LINES: usize = 16 << 10;

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    value: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream: BufReader::with_capacity(LINES, stream),
            value: Vec::new(),
        })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Stores a value.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let mut head = format!("*3\r\n$3\r\nSET\r\n${}\r\n", key.len()).into_bytes();
        head.extend_from_slice(key);
        head.extend_from_slice(format!("\r\n${}\r\n", value.len()).as_bytes());
        let stream = self.stream.get_mut();
        stream.write_all(&head)?;
        stream.write_all(value)?;
        stream.write_all(b"\r\n")?;
        let answer = self.line()?;
        ensure!(answer == "+OK", "SET was answered with {answer}");
        Ok(())
    }

    /// Reads a value; none: it is not there.
    pub fn get(&mut self, key: &[u8]) -> anyhow::Result<Option<&[u8]>> {
        let mut request = format!("*2\r\n$3\r\nGET\r\n${}\r\n", key.len()).into_bytes();
        request.extend_from_slice(key);
        request.extend_from_slice(b"\r\n");
        self.stream.get_mut().write_all(&request)?;
        let answer = self.line()?;
        if answer.starts_with("-MISS") {
            return Ok(None);
        }
        let len = match answer.strip_prefix('$').map(str::parse::<i64>) {
            Some(Ok(-1)) => return Ok(None),
            Some(Ok(len)) => len as usize,
            _ => bail!("GET was answered with {answer}"),
        };
        self.value.resize(len + 2, 0);
        self.stream.read_exact(&mut self.value)?;
        Ok(Some(&self.value[..len]))
    }
}

/// Stores blocks, and sees that they are there.
pub fn fill(address: SocketAddr, blocks: Blocks, numbers: Range<u64>) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let mut value = vec![0; blocks.len];
    for number in numbers.clone() {
        blocks.write(number, &mut value);
        connection.set(&blocks.key(number), &value)?;
    }
    for number in numbers {
        blocks.write(number, &mut value);
        let there = connection.get(&blocks.key(number))?;
        ensure!(
            there == Some(&value[..]),
            "block {number} is not there, or wrong"
        );
    }
    Ok(())
}

/// Bytes a second of gets of random blocks.
pub fn get(
    address: SocketAddr,
    blocks: Blocks,
    connections: u64,
    time: Duration,
) -> anyhow::Result<f64> {
    load(address, connections, time, |connection, random| {
        let value = connection.get(&blocks.key(random % blocks.count))?;
        let len = value.map(<[u8]>::len);
        ensure!(
            len == Some(blocks.len),
            "a get of {} bytes found {len:?}",
            blocks.len
        );
        Ok(blocks.len)
    })
}

/// Bytes a second of sets of random blocks.
pub fn set(
    address: SocketAddr,
    blocks: Blocks,
    connections: u64,
    time: Duration,
) -> anyhow::Result<f64> {
    let mut value = vec![0; blocks.len];
    blocks.write(1 << 40, &mut value);
    let value = &value;
    load(address, connections, time, |connection, random| {
        connection.set(&blocks.key(random % blocks.count), value)?;
        Ok(blocks.len)
    })
}

fn load(
    address: SocketAddr,
    connections: u64,
    time: Duration,
    one: impl Fn(&mut Connection, u64) -> anyhow::Result<usize> + Sync,
) -> anyhow::Result<f64> {
    let open: Result<Vec<_>, _> = (0..connections)
        .map(|_| Connection::open(address))
        .collect();
    let open = open?;
    let begun = Instant::now();
    let one = &one;
    let bytes = thread::scope(|scope| {
        let threads: Vec<_> = open
            .into_iter()
            .zip(0..)
            .map(|(mut connection, seed)| {
                scope.spawn(move || {
                    let mut random = mixed(begun.elapsed().as_nanos() as u64 ^ seed << 48);
                    let mut bytes = 0;
                    while begun.elapsed() < time {
                        random = mixed(random);
                        bytes += one(&mut connection, random)?;
                    }
                    anyhow::Ok(bytes)
                })
            })
            .collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            let bytes = thread
                .join()
                .ok()
                .context("a connection's thread panicked")??;
            anyhow::Ok(sum + bytes)
        })
    })?;
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}
