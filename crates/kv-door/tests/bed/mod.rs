//! A node with one door, in a directory of its own.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod raw;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strand_kv_client::{Client, Connection, Lost, Options, Value};
use strand_kv_door::{ArenaBudget, Door, DoorOptions, MemoryBlocks, Namespace, Node, Usage};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Bed {
    pub node: Arc<Node<MemoryBlocks>>,
    pub door: Door,
    pub directory: TempDir,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(64 << 20, 256 << 20)
    }

    pub fn with(pod_bytes: usize, node_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(MemoryBlocks::default(), ArenaBudget::new(node_bytes));
        let door = open(&node, directory.path(), "kv.sock", 1, pod_bytes);
        Self {
            node,
            door,
            directory,
        }
    }

    /// The first door again, where an earlier bed had it.
    pub fn at(directory: TempDir, node: Arc<Node<MemoryBlocks>>) -> Self {
        let door = open(&node, directory.path(), "kv.sock", 1, 64 << 20);
        Self {
            node,
            door,
            directory,
        }
    }

    pub fn door(&self, name: &str, namespace: u128, bytes: usize) -> Door {
        open(&self.node, self.directory.path(), name, namespace, bytes)
    }

    pub async fn client(&self) -> Client {
        self.client_of(&self.door).await
    }

    pub async fn client_of(&self, door: &Door) -> Client {
        connect(Options {
            patience: PATIENCE,
            ..Options::new(door.path())
        })
        .await
    }

    pub async fn client_with(&self, change: impl FnOnce(&mut Options)) -> Client {
        let mut options = Options {
            patience: PATIENCE,
            ..Options::new(self.door.path())
        };
        change(&mut options);
        connect(options).await
    }

    pub async fn until(&self, reached: impl Fn(Usage) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !reached(self.node.usage()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        if waited.await.is_err() {
            panic!("not reached: {:?}", self.node.usage());
        }
    }

    /// Nothing is pinned, mapped or running any more.
    pub async fn at_rest(&self) {
        self.until(|usage| {
            let used = (usage.sessions, usage.requests, usage.leases, usage.arenas);
            used == (0, 0, 0, 0) && (usage.streams, usage.gathered_bytes) == (0, 0)
        })
        .await;
    }
}

fn open(
    node: &Arc<Node<MemoryBlocks>>,
    directory: &Path,
    name: &str,
    namespace: u128,
    arena_bytes: usize,
) -> Door {
    node.open(DoorOptions {
        socket: directory.join(name),
        namespace: Namespace(namespace),
        arena_bytes,
    })
    .unwrap()
}

pub async fn connect(options: Options) -> Client {
    let client = Client::new(options);
    match client.connected(PATIENCE).await {
        Connection::Up { .. } => client,
        Connection::Down { reason } => panic!("no session: {reason}"),
    }
}

/// All parts of a value, one after the other.
pub async fn whole(mut value: Value) -> Result<Vec<u8>, Lost> {
    let mut bytes = Vec::new();
    while let Some(part) = value.next().await? {
        bytes.extend_from_slice(&part);
    }
    assert_eq!(bytes.len() as u64, value.length());
    Ok(bytes)
}

/// Bytes that tell seeds apart at every position.
pub fn value(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
