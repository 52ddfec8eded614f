//! An endpoint and a native door over memory, and `strandctl` in front of them.

use kv_endpoint::{Config, Endpoint, Metrics, Misses, serve, store::MemoryStore};
use prometheus::Registry;
use std::{net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc, time::Duration};
use strand_kv_door::{ArenaBudget, Door, DoorOptions, MemoryBlocks, Namespace, Node};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, task::JoinSet, time::timeout};

/// Longest that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Said {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub struct Bed {
    pub store: MemoryStore,
    pub resp: SocketAddr,
    pub socket: PathBuf,
    pub dir: TempDir,
    _door: Door,
    _tasks: JoinSet<()>,
}

impl Bed {
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let store = MemoryStore::new(64);
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let endpoint = Arc::new(Endpoint::new(store.clone(), config, metrics));
        // The default of an endpoint: fixed-width clients get padded misses.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let resp = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Misses::Padded, endpoint));
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("door.sock");
        let node = Node::new(MemoryBlocks::default(), ArenaBudget::new(256 << 20));
        let door = node.open(DoorOptions {
            socket: socket.clone(),
            namespace: Namespace(1),
            arena_bytes: DoorOptions::ARENA_BYTES,
        });
        Self {
            store,
            resp,
            socket,
            dir,
            _door: door.unwrap(),
            _tasks: tasks,
        }
    }

    /// The flags of each way in.
    pub fn doors(&self) -> [Vec<String>; 2] {
        [
            vec!["--endpoint".into(), self.resp.to_string()],
            vec!["--socket".into(), self.socket.display().to_string()],
        ]
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandctl"));
    command
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs `strandctl` with `words` and `input` on its standard input.
pub async fn run(words: &[&str], input: &[u8]) -> Said {
    let mut child = command(words).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end without having read all of it.
    let write = async {
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1.unwrap() };
    let output = timeout(PATIENCE, both).await.expect("it does not end");
    Said {
        code: output.status.code().unwrap(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `words`, then the flags of a door.
pub async fn through(door: &[String], words: &[&str], input: &[u8]) -> Said {
    let door = door.iter().map(String::as_str);
    let words: Vec<&str> = words.iter().copied().chain(door).collect();
    run(&words, input).await
}
