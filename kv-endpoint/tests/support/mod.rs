//! An endpoint over memory or an agent, on ports of its own, gone with the value.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

pub mod agent;
pub mod client;
pub mod fixed;
pub mod process;
pub mod programs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kv_endpoint::store::{MemoryStore, Store};
use kv_endpoint::{Config, Endpoint, Metrics, Misses, serve};
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Server<S = MemoryStore> {
    pub store: S,
    pub metrics: Metrics,
    pub padded: SocketAddr,
    pub nil: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(config: Config, arena_mib: usize) -> Self {
        Self::over(MemoryStore::new(arena_mib), config).await
    }
}

impl<S: Store + Clone> Server<S> {
    pub async fn over(store: S, config: Config) -> Self {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let endpoint = Arc::new(Endpoint::new(store.clone(), config, metrics.clone()));
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for misses in [Misses::Padded, Misses::Nil] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            tasks.spawn(serve(listener, misses, endpoint.clone()));
        }
        Self {
            store,
            metrics,
            padded: addresses[0],
            nil: addresses[1],
            _tasks: tasks,
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.nil).await.unwrap()
    }
}

/// Waits until `holds`, and says what did not come true otherwise.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("never came true: {what}");
    }
}
