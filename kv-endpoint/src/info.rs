//! `INFO`: the sections that clients read, and what Strand has to say.

use std::fmt::Write;

use crate::endpoint::Endpoint;
use crate::session::REDIS_VERSION;
use crate::store::{Connection, NamespaceStats, Store};

/// The text for the sections named in `words` (none: all of them).
pub async fn info<S: Store>(endpoint: &Endpoint<S>, words: &[Vec<u8>]) -> String {
    let asked = |section: &str| {
        words.is_empty()
            || words.iter().any(|w| {
                w.eq_ignore_ascii_case(section.as_bytes())
                    || [&b"all"[..], b"default", b"everything"]
                        .contains(&w.to_ascii_lowercase().as_slice())
            })
    };
    // Without an agent the namespace is unknown, and everything is a miss.
    let stats = match asked("memory") || asked("keyspace") {
        true => endpoint.store.stats().await.ok(),
        false => None,
    };
    let held = stats.unwrap_or_default();
    let sections = [
        ("Server", server(endpoint)),
        ("Clients", clients(endpoint)),
        ("Memory", memory(held)),
        ("Persistence", "loading:0\r\n".to_owned()),
        ("Stats", counted(endpoint)),
        (
            "Replication",
            "role:master\r\nconnected_slaves:0\r\n".to_owned(),
        ),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        ("Keyspace", keyspace(held)),
        ("Strand", strand(endpoint)),
    ];
    let mut text = String::new();
    for (name, body) in sections {
        if asked(name) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str("# ");
            text.push_str(name);
            text.push_str("\r\n");
            text.push_str(&body);
        }
    }
    text
}

fn server<S: Store>(endpoint: &Endpoint<S>) -> String {
    format!(
        "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nserver_name:strand\r\n\
         strand_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        endpoint.started.elapsed().as_secs(),
    )
}

fn clients<S: Store>(endpoint: &Endpoint<S>) -> String {
    format!(
        "connected_clients:{}\r\nmaxclients:{}\r\n",
        endpoint.metrics.connections.get(),
        endpoint.config.max_connections,
    )
}

fn memory(held: NamespaceStats) -> String {
    // What the namespace holds on the drives; no limit that a client could know.
    format!(
        "used_memory:{}\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n",
        held.bytes
    )
}

fn keyspace(held: NamespaceStats) -> String {
    match held.blocks {
        0 => String::new(),
        blocks => format!("db0:keys={blocks},expires=0,avg_ttl=0\r\n"),
    }
}

fn counted<S: Store>(endpoint: &Endpoint<S>) -> String {
    let m = &endpoint.metrics;
    format!(
        "total_connections_received:{}\r\nrejected_connections:{}\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\n",
        m.accepted.get(),
        m.turned_away.get(),
        m.hits.get(),
        m.misses.get(),
    )
}

fn strand<S: Store>(endpoint: &Endpoint<S>) -> String {
    let mut text = String::new();
    match endpoint.store.connection() {
        Connection::Up {
            epoch,
            version,
            get_bytes,
            put_bytes,
        } => {
            let _ = write!(
                text,
                "agent:up\r\nagent_epoch:{epoch}\r\nagent_protocol:{version}\r\n\
                 arena_get_bytes:{get_bytes}\r\narena_put_bytes:{put_bytes}\r\n"
            );
        }
        Connection::Down { reason } => {
            let _ = write!(
                text,
                "agent:down\r\nagent_down_reason:{}\r\n",
                reason.escape_debug()
            );
        }
    }
    let m = &endpoint.metrics;
    for (name, value) in [
        ("puts_stored", &m.stored),
        ("puts_dropped", &m.dropped),
        ("misses_agent_away", &m.misses_agent_away),
        ("misses_after_exists", &m.misses_after_exists),
        ("misses_unknown_length", &m.misses_unknown_length),
        ("values_streamed", &m.streamed_out),
        ("late_failures", &m.late_failures),
        ("commands_refused", &m.refused),
        ("connections_stalled", &m.stalled),
        ("value_bytes_read", &m.bytes_read),
        ("value_bytes_written", &m.bytes_written),
    ] {
        let _ = write!(text, "{name}:{}\r\n", value.get());
    }
    text
}
