//! Where the time of a get goes, and what it costs in processor time:
//!
//! ```text
//! cargo run --release -p strand-kv-door --example latency -- serve PARTITION SOCKET
//! cargo run --release -p strand-kv-door --example latency -- native SOCKET BYTES DEPTH COUNT SPIN_US
//! cargo run --release -p strand-kv-door --example latency -- bare PARTITION BYTES DEPTH COUNT
//! ```
//! `serve` stands for an agent with one store on a file or device (1 GiB of it) and one door; `native` is a pod's client
//! of it; `bare` asks the store itself, in the same process, without a door.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use strand_context_store::{
    Get, Identity, Medium, Options as StoreOptions, PutOptions as StorePut, Region, Store,
};
use strand_kv_client::{Client, Connection, Options, PutOptions};
use strand_kv_door::{ArenaBudget, DoorOptions, Namespace, Node, StoreBlocks};

/// Bytes of the partition that are used.
const PARTITION: u64 = 1 << 30;
/// Bytes of the blocks that are read in turn.
const SET: usize = 256 << 20;

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", partition, socket] => runtime(true)?.block_on(serve(partition, socket)),
        ["native", socket, bytes, depth, count, spin] => runtime(spin == "0")?.block_on(native(
            socket,
            bytes.parse()?,
            depth.parse()?,
            count.parse()?,
            Duration::from_micros(spin.parse()?),
        )),
        ["bare", partition, bytes, depth, count] => {
            let (bytes, depth, count) = (bytes.parse()?, depth.parse()?, count.parse()?);
            runtime(true)?.block_on(bare(partition, bytes, depth, count))
        }
        _ => Err("see the example's first lines for what to say".into()),
    }
}

fn runtime(many: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match many {
        true => tokio::runtime::Builder::new_multi_thread(),
        // A client that polls wants nobody else to be woken by what it polls for.
        false => tokio::runtime::Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all().build()
}

async fn open(partition: &str) -> Result<Store, Failed> {
    let mut options = File::options();
    let file = (options.read(true).write(true).create(true).truncate(false)).open(partition)?;
    if file.metadata()?.is_file() {
        file.set_len(PARTITION)?;
    }
    let medium = Medium {
        file,
        offset: 0,
        len: PARTITION,
    };
    let identity = Identity {
        pool: "latency".into(),
        drive: "latency".into(),
    };
    let options = StoreOptions {
        patience: Duration::from_secs(30),
        ..StoreOptions::default()
    };
    Ok(Store::open(medium, &identity, options).await?.0)
}

async fn serve(partition: &str, socket: &str) -> Result<(), Failed> {
    let blocks = StoreBlocks::new(Arc::new(open(partition).await?));
    let node = Node::new(blocks, ArenaBudget::new(256 << 20));
    let _door = node.open(DoorOptions {
        socket: Path::new(socket).into(),
        namespace: Namespace(1),
        arena_bytes: DoorOptions::ARENA_BYTES,
    })?;
    println!("serves {partition} at {socket}");
    Ok(tokio::signal::ctrl_c().await?)
}

async fn native(
    socket: &str,
    bytes: usize,
    depth: usize,
    count: usize,
    spin: Duration,
) -> Result<(), Failed> {
    let client = Client::new(Options {
        spin,
        ..Options::new(socket)
    });
    if let Connection::Down { reason } = client.connected(Duration::from_secs(5)).await {
        return Err(reason.into());
    }
    let keys = (SET / bytes).min(count) as u64;
    for key in 0..keys {
        let value = vec![key as u8; bytes];
        client
            .put(&name(bytes, key), &value, PutOptions::default())
            .await?;
    }
    let get = async |key: u64| {
        let began = Instant::now();
        let block = client.get(&name(bytes, key)).await?;
        if block.is_none_or(|block| block.len() != bytes || block[bytes - 1] != key as u8) {
            return Err(Failed::from("a block is missing"));
        }
        Ok(began.elapsed())
    };
    measure(bytes, depth, count, keys, get).await
}

async fn bare(partition: &str, bytes: usize, depth: usize, count: usize) -> Result<(), Failed> {
    let store = open(partition).await?;
    let region = Region::anonymous(bytes.next_multiple_of(1 << 20) * depth)?;
    store.register(&region)?;
    let keys = (SET / bytes).min(count) as u64;
    for key in 0..keys {
        let value = vec![key as u8; bytes];
        store
            .put_bytes(Namespace(1), &name(bytes, key), &value, StorePut::default())
            .await?;
    }
    // A queue of free places.
    let places = std::sync::Mutex::new((0..depth).collect::<Vec<_>>());
    let free = || {
        places
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let get = async |key: u64| {
        let began = Instant::now();
        let place = free().pop().ok_or("no free place")?;
        let span = region
            .span(place * bytes.next_multiple_of(1 << 20), bytes)
            .ok_or("no span")?;
        let got = store.get(Namespace(1), &name(bytes, key), &[span]).await?;
        free().push(place);
        match got {
            Get::Hit { .. } => Ok(began.elapsed()),
            Get::Miss => Err(Failed::from("a block is missing")),
        }
    };
    measure(bytes, depth, count, keys, get).await
}

fn name(bytes: usize, key: u64) -> Vec<u8> {
    format!("{bytes}-{key}").into_bytes()
}

async fn measure(
    bytes: usize,
    depth: usize,
    count: usize,
    keys: u64,
    get: impl AsyncFn(u64) -> Result<Duration, Failed>,
) -> Result<(), Failed> {
    // Keys in an order that is none, the same in every run.
    let order = (0..count as u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20);
    let began = Instant::now();
    let mut times: Vec<Duration> = Vec::with_capacity(count);
    let mut gets = stream::iter(order)
        .map(|n| get(n % keys))
        .buffer_unordered(depth);
    while let Some(time) = gets.next().await {
        times.push(time?);
    }
    let took = began.elapsed();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "{bytes} bytes, depth {depth}: p50 {:.0} us, p90 {:.0}, p99 {:.0}; {:.2} GB/s",
        at(0.5),
        at(0.9),
        at(0.99),
        (bytes * count) as f64 / took.as_secs_f64() / 1e9,
    );
    Ok(())
}
