//! A store with its doors, from outside.

use anyhow::Context;
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use strand_kv_client::{Client, Connection, Options};

use super::{
    child::Driven,
    load::{self, Blocks},
    medium::Device,
};
use crate::process::Process;

/// Arena bytes of a pod, as the design has them by default.
const ARENA: u64 = 64 << 20;

/// Part of the segments that a fill leaves free: more than at which eviction begins.
pub const LEAST_FREE: f64 = 0.16;
/// Bytes of each length that a fill puts between two looks.
const BATCH: u64 = 8 << 20;

/// A process that serves one store.
pub struct Serving {
    driven: Driven,
    directory: tempfile::TempDir,
    /// What it found when it opened the store.
    pub recovery: Recovery,
}

/// What opening a store found.
#[derive(Debug, Deserialize)]
pub struct Recovery {
    /// Segments of which a footer was read.
    pub sealed: u32,
    /// Segments that were scanned.
    pub scanned: u32,
    /// How long it took.
    pub seconds: f64,
}

/// How a store stands; sizes in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    /// What segments can hold.
    pub capacity: u64,
    /// Live blocks' bytes.
    pub live: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Part of the segments that is free.
    pub free: f64,
    /// Memory of the index.
    pub index: u64,
    /// Moved to outlive their segments.
    pub moved: u64,
    /// Puts dropped.
    pub dropped: u64,
}

impl Serving {
    /// Serves a whole device.
    pub async fn start(device: &Device) -> anyhow::Result<Self> {
        Self::part(device.path(), (0, device.len())).await
    }

    /// Serves a part of a device: first byte and bytes.
    pub async fn part(device: &Path, part: (u64, u64)) -> anyhow::Result<Self> {
        Self::with(device, part, &[]).await
    }

    /// The same without TRIM: on a loop device over a file that frees the file's blocks, which stops all writes to the file meanwhile
    /// and makes later ones slower, as on no drive.
    pub async fn untrimmed(device: &Path, part: (u64, u64)) -> anyhow::Result<Self> {
        Self::with(device, part, &["--no-trim"]).await
    }

    async fn with(device: &Path, part: (u64, u64), flags: &[&str]) -> anyhow::Result<Self> {
        let device = device.to_string_lossy();
        let (first, bytes) = (part.0.to_string(), part.1.to_string());
        let arguments = [&["serve-door", &device, &first, &bytes], flags].concat();
        let mut driven = Driven::start(&std::env::current_exe()?, arguments, "")?;
        let recovery = serde_json::from_str(&driven.answer().await?)?;
        Ok(Self {
            driven,
            directory: tempfile::tempdir()?,
            recovery,
        })
    }

    /// Opens a pod's door; its socket.
    pub async fn door(&mut self, namespace: u32) -> anyhow::Result<PathBuf> {
        let socket = self.socket(namespace);
        self.driven
            .ask(&format!("door {namespace} {ARENA} {}", socket.display()))
            .await?;
        Ok(socket)
    }

    /// Where a pod's door is.
    pub fn socket(&self, namespace: u32) -> PathBuf {
        self.directory.path().join(format!("{namespace}.sock"))
    }

    /// Opens a pod's door and connects to it; `get` is the share of the arena that is for gets.
    pub async fn client(&mut self, namespace: u32, get: f64) -> anyhow::Result<Client> {
        let socket = self.door(namespace).await?;
        connect(&socket, get, Duration::ZERO).await
    }

    /// How the store stands.
    pub async fn stats(&mut self) -> anyhow::Result<Stats> {
        Ok(serde_json::from_str(&self.driven.ask("stats").await?)?)
    }

    /// Puts blocks until nearly all segments are taken, and none was evicted.
    pub async fn fill(
        &mut self,
        client: &Client,
        lengths: &[usize],
    ) -> anyhow::Result<Vec<Blocks>> {
        fill(client, lengths, async || Ok(self.stats().await?.free)).await
    }

    /// What /proc says of it.
    pub fn process(&self) -> Process {
        self.driven.process()
    }

    /// Ends it in order.
    pub async fn end(self) -> anyhow::Result<()> {
        self.driven.end().await
    }

    /// `kill -9`.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.driven.kill().await
    }
}

/// A client of the door at `socket`.
pub async fn connect(socket: &Path, get: f64, spin: Duration) -> anyhow::Result<Client> {
    let bytes = (ARENA as f64 * get) as u64;
    let client = Client::new(Options {
        get_bytes: bytes,
        put_bytes: ARENA - bytes,
        spin,
        name: "strand-bench".into(),
        ..Options::new(socket)
    });
    match client.connected(Duration::from_secs(20)).await {
        Connection::Up { .. } => Ok(client),
        Connection::Down { reason } => Err(anyhow::anyhow!(reason)).context("no session"),
    }
}

/// Puts blocks of these lengths, as many bytes of each, while a larger part of the segments is free than [`LEAST_FREE`];
/// those that are there then.
pub async fn fill(
    client: &Client,
    lengths: &[usize],
    mut free: impl AsyncFnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<Blocks>> {
    let mut filled: Vec<_> = lengths
        .iter()
        .map(|len| Blocks {
            count: 0,
            len: *len,
        })
        .collect();
    while free().await? > LEAST_FREE {
        for blocks in &mut filled {
            let numbers = blocks.count..blocks.count + BATCH / blocks.len as u64;
            load::put(client, *blocks, numbers.clone(), 8).await?;
            blocks.count = numbers.end;
        }
    }
    Ok(filled)
}
