//! The endpoint over memory in place of an agent: `cargo run -p kv-endpoint --example in-memory -- 127.0.0.1:6379 64`
//! (address, MiB of arena each way). Serves until it is stopped.

use std::sync::Arc;

use kv_endpoint::store::MemoryStore;
use kv_endpoint::{Config, Endpoint, Metrics, Misses, serve};

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:6379".into());
    let mib = arguments
        .next()
        .map_or(64, |mib| mib.parse().expect("MiB of arena"));
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
    let endpoint = Endpoint::new(MemoryStore::new(mib), Config::default(), metrics);
    let listener = tokio::net::TcpListener::bind(&address)
        .await
        .expect("a free address");
    println!("{}", listener.local_addr().expect("it is bound"));
    serve(listener, Misses::Padded, Arc::new(endpoint)).await;
}
