//! An agent's part in this process: a store on a file, and doors of one namespace before it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strand_context_store::{Identity, Medium, Options, Store};
use strand_kv_client::{Client, Connection};
use strand_kv_door::{ArenaBudget, Door, DoorOptions, Namespace, Node, StoreBlocks};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{PATIENCE, until};

pub struct Agent {
    pub node: Arc<Node<StoreBlocks>>,
    pub directory: TempDir,
}

impl Agent {
    /// Over a partition of so many bytes, in memory where that is possible: what it shows is no matter of a drive's speed.
    pub async fn start(partition: u64) -> Self {
        Self::with(partition, Options::default()).await
    }

    pub async fn with(partition: u64, options: Options) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.unwrap();
        let store = open_store(&directory.path().join("partition"), partition, options).await;
        let node = Node::new(StoreBlocks::new(store), ArenaBudget::new(256 << 20));
        Self { node, directory }
    }

    /// A pod's way in, until dropped.
    pub fn door(&self, name: &str, arena_bytes: usize) -> Door {
        self.node
            .open(DoorOptions {
                socket: self.directory.path().join(name),
                namespace: Namespace(1),
                arena_bytes,
            })
            .unwrap()
    }

    pub fn store(&self) -> &Store {
        self.node.blocks().store()
    }

    /// Waits until nothing is held but by `sessions` sessions that are at rest.
    pub async fn at_rest(&self, sessions: usize) {
        until("nothing is held", || {
            let (usage, stats) = (self.node.usage(), self.store().stats());
            let used = (usage.sessions, usage.arenas, usage.requests, usage.leases);
            used == (sessions, sessions, 0, 0)
                && (usage.streams, usage.gathered_bytes) == (0, 0)
                && (stats.pins, stats.in_flight) == (0, 0)
        })
        .await;
    }
}

/// The store on a file, which is made if need be.
pub async fn open_store(path: &Path, bytes: u64, options: Options) -> Arc<Store> {
    let open = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = open.unwrap();
    file.set_len(bytes).unwrap();
    let identity = Identity {
        pool: "pool".into(),
        drive: "drive".into(),
    };
    // Transfers of a process that was killed may keep the partition for a moment.
    let opened = timeout(PATIENCE, async {
        loop {
            let medium = Medium {
                file: file.try_clone().unwrap(),
                offset: 0,
                len: bytes,
            };
            match Store::open(medium, &identity, options.clone()).await {
                Ok((store, _)) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    Arc::new(opened.await.expect("the store does not open"))
}

/// A client of the door at `socket`, once it has a session.
pub async fn connect(socket: &Path) -> Client {
    let client = Client::new(strand_kv_client::Options::new(socket));
    match client.connected(PATIENCE).await {
        Connection::Up { .. } => client,
        Connection::Down { reason } => panic!("no session: {reason}"),
    }
}
