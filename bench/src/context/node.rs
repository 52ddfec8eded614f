//! `strand-bench serve-door`: a store and its native doors in a process of their own, so that what they cost can be read
//! from /proc. A command a line in, an answer a line out; ends with its input.

use super::Serve;
use anyhow::{Context, bail};
use serde_json::json;
use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};
use strand_context_store::{Identity, Medium, Namespace, Options, Store};
use strand_kv_door::{DoorOptions, Node, StoreBlocks};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Arena bytes of all pods of the node.
const ARENAS: usize = 1 << 30;

/// Serves until the input ends.
pub async fn run(serve: Serve) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(&serve.device);
    let file = file.with_context(|| format!("cannot open {}", serve.device.display()))?;
    let medium = Medium {
        file,
        offset: serve.offset,
        len: serve.len,
    };
    let identity = Identity {
        pool: "bench".into(),
        drive: "bench".into(),
    };
    let usual = Options::default();
    let options = Options {
        // Fills are to lose nothing on a busy machine.
        patience: Duration::from_secs(10),
        trim_rate: if serve.no_trim { 0 } else { usual.trim_rate },
        ..usual
    };
    let (store, recovery) = Store::open(medium, &identity, options).await?;
    let node = Node::new(
        StoreBlocks::new(Arc::new(store.clone())),
        strand_kv_door::ArenaBudget::new(ARENAS),
    );
    let mut doors = Vec::new();
    if let Some(why) = &recovery.fallback {
        eprintln!("{why}");
    }
    println!(
        "{}",
        json!({
            "sealed": recovery.sealed, "scanned": recovery.scanned, "seconds": recovery.took.as_secs_f64(),
        })
    );
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["door", namespace, arena, socket] => {
                let door = node.open(DoorOptions {
                    socket: PathBuf::from(socket),
                    namespace: Namespace(namespace.parse()?),
                    arena_bytes: arena.parse()?,
                })?;
                doors.push(door);
                json!({})
            }
            ["stats"] => stats(&store),
            _ => bail!("unknown command: {line}"),
        };
        println!("{answer}");
    }
    drop(doors);
    drop(node);
    store.close().await;
    Ok(())
}

fn stats(store: &Store) -> serde_json::Value {
    let stats = store.stats();
    json!({
        "capacity": stats.capacity, "live": stats.live_bytes, "blocks": stats.blocks,
        "free": f64::from(stats.free_segments) / f64::from(stats.segments.max(1)),
        "index": stats.index_bytes, "moved": stats.moved_bytes,
        "dropped": stats.dropped_no_space + stats.dropped_busy + stats.dropped_first_touch + stats.dropped_budget + stats.dropped_quota,
    })
}
