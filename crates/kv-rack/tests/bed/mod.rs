//! Racks of a few nodes in this process, each with a store on a file, a port for peers behind a proxy, a door and a client.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

pub mod proxy;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proxy::Proxy;
use strand_api::{MapDrive, MapNode, PoolMapSpec};
use strand_context_store::{Identity, Medium, Options as StoreOptions, Store};
use strand_kv_client::{Client, Connection, Options};
use strand_kv_door::{ArenaBudget, Door, DoorOptions, Namespace, Node};
use strand_kv_rack::{PeerKey, PeerState, Peers, Rack, RackOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const PATIENCE: Duration = Duration::from_secs(120);
pub const POOL: &str = "6f1f6f0e-pool";
pub const NS: Namespace = Namespace(1);
const LEN: u64 = 256 << 20;

pub struct Member {
    pub name: String,
    pub drive: u32,
    pub store: Arc<Store>,
    pub rack: Rack,
    pub peers: Peers,
    pub proxy: Proxy,
    pub node: Arc<Node<Rack>>,
    pub door: Door,
    pub client: Client,
    /// Epoch since which it is in the map.
    pub since: i64,
}

pub struct Bed {
    pub members: Vec<Member>,
    pub directory: TempDir,
    pub epoch: i64,
}

/// Options for tests in which no time is measured: a busy machine is no dead peer.
pub fn patient(name: &str) -> RackOptions {
    RackOptions {
        patience: Duration::from_secs(5),
        ..RackOptions::new(name, POOL, PeerKey::new([7; 32]))
    }
}

pub async fn store(directory: &Path, name: &str) -> Arc<Store> {
    let path = directory.join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.unwrap();
    file.set_len(LEN).unwrap();
    let medium = Medium {
        file,
        offset: 0,
        len: LEN,
    };
    let identity = Identity {
        pool: POOL.into(),
        drive: name.into(),
    };
    let options = StoreOptions {
        patience: PATIENCE,
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(medium, &identity, options).await.unwrap();
    Arc::new(store)
}

impl Member {
    async fn new(directory: &Path, number: usize, options: RackOptions) -> Self {
        let name = options.node.clone();
        let rack = Rack::new(options).unwrap();
        let peers = Peers::listen(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        peers.add(&rack);
        let proxy = Proxy::to(peers.address()).await;
        let store = store(directory, &name).await;
        let drive = 0x100 + number as u32;
        rack.add_drive(drive, Arc::clone(&store)).await;
        let node = Node::new(rack.clone(), ArenaBudget::new(512 << 20));
        let door = door(&node, directory, &format!("{name}.sock"), NS);
        let client = connect(Options {
            get_bytes: 32 << 20,
            put_bytes: 32 << 20,
            patience: PATIENCE,
            ..Options::new(door.path())
        })
        .await;
        Self {
            name,
            drive,
            store,
            rack,
            peers,
            proxy,
            node,
            door,
            client,
            since: 0,
        }
    }

    pub fn entry(&self) -> MapNode {
        MapNode {
            node: self.name.clone(),
            at: self.proxy.address().to_string(),
            domain: None,
            drives: vec![MapDrive {
                weight: 100,
                since: self.since,
                key: self.drive,
            }],
        }
    }

    /// How this member sees another one.
    pub fn sees(&self, other: &str) -> strand_kv_rack::PeerStats {
        let peers = self.rack.stats().peers;
        peers.into_iter().find(|peer| peer.node == other).unwrap()
    }
}

impl Bed {
    pub async fn new(count: usize) -> Self {
        Self::with(count, |_| {}).await
    }

    pub async fn with(count: usize, change: impl Fn(&mut RackOptions)) -> Self {
        let mut bed = Self {
            members: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            epoch: 0,
        };
        for _ in 0..count {
            bed.join(&change).await;
        }
        bed.map((0..count).collect());
        bed
    }

    /// Another node, in no map yet.
    pub async fn join(&mut self, change: impl Fn(&mut RackOptions)) -> usize {
        let number = self.members.len();
        let mut options = patient(&format!("node-{number}"));
        change(&mut options);
        let member = Member::new(self.directory.path(), number, options).await;
        self.members.push(member);
        number
    }

    /// Gives all nodes a new map of these.
    pub fn map(&mut self, members: Vec<usize>) {
        self.epoch += 1;
        for (at, member) in self.members.iter_mut().enumerate() {
            match (members.contains(&at), member.since) {
                (false, _) => member.since = 0,
                (true, 0) => member.since = self.epoch,
                (true, _) => {}
            }
        }
        let nodes = members.into_iter().map(|at| self.members[at].entry());
        let map = PoolMapSpec {
            epoch: self.epoch,
            pool_id: POOL.into(),
            nodes: nodes.collect(),
        };
        for member in &self.members {
            member.rack.set_map(&map);
        }
    }

    /// Gives one node a map by which it reaches another one without its proxy.
    pub fn map_direct(&self, member: usize, other: usize) {
        let mut nodes: Vec<_> = self.members.iter().map(Member::entry).collect();
        nodes[other].at = self.members[other].peers.address().to_string();
        self.members[member].rack.set_map(&PoolMapSpec {
            epoch: self.epoch + 1,
            pool_id: POOL.into(),
            nodes,
        });
    }

    pub fn client(&self, member: usize) -> &Client {
        &self.members[member].client
    }

    /// Which members have a key on their drives.
    pub fn holders(&self, key: &[u8]) -> Vec<usize> {
        let has = |at: &usize| self.members[*at].store.len_of(NS, key).is_some();
        (0..self.members.len()).filter(has).collect()
    }

    /// Keys that this member owns, found by putting them.
    pub async fn keys_of(&self, owner: usize, count: usize, tag: &str) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        for number in 0.. {
            let key = format!("{tag}-{number}").into_bytes();
            let put = self.client(owner).put(&key, b"x", Default::default()).await;
            assert_eq!(put.unwrap(), strand_kv_client::Put::Stored);
            if self.holders(&key) == [owner] {
                keys.push(key);
                if keys.len() == count {
                    break;
                }
            }
        }
        keys
    }

    /// Has one member notice that another one is away.
    pub async fn until_asked_in_vain(&self, member: usize, other: usize, key: &[u8]) {
        assert!(self.client(member).get(key).await.unwrap().is_none());
        self.until(member, other, PeerState::Dead).await;
    }

    /// Waits until one member sees another one so.
    pub async fn until(&self, member: usize, other: usize, state: PeerState) {
        let name = &self.members[other].name;
        wait(|| self.members[member].sees(name).state == state).await;
    }

    /// Nothing is in flight, buffered, pinned or running any more.
    pub async fn at_rest(&self) {
        wait(|| {
            self.members.iter().all(|member| {
                let (stats, usage) = (member.rack.stats(), member.node.usage());
                let peers: usize = stats.peers.iter().map(|peer| peer.waiting).sum();
                (stats.in_flight_bytes, stats.buffered_bytes, peers) == (0, 0, 0)
                    && (usage.requests, usage.leases) == (0, 0)
            })
        })
        .await;
    }
}

pub async fn wait(reached: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "not reached");
}

pub fn door(node: &Arc<Node<Rack>>, directory: &Path, name: &str, namespace: Namespace) -> Door {
    node.open(DoorOptions {
        socket: directory.join(name),
        namespace,
        arena_bytes: 2 * DoorOptions::ARENA_BYTES,
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

/// Bytes that tell seeds apart at every position.
pub fn value(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
