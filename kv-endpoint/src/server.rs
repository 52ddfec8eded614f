//! Listeners and their connections.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::connection::Peer;
use crate::endpoint::Endpoint;
use crate::store::Store;
use crate::wire::{End, Wire};

/// How a listener's clients are told that a key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misses {
    /// In lines of the length that clients expect which read fixed lengths, as long as a connection looks like one of
    /// theirs: `AUTH`, `SET`, `GET`, `EXISTS` and `DEL` in capitals, in their shortest forms, in RESP2. Any other
    /// command shows an ordinary client, and from then on a miss is nil.
    Padded,
    /// By nil.
    Nil,
}

/// Serves clients of `listener`; does not end. Dropped, it closes their connections.
pub async fn serve<S: Store>(listener: TcpListener, misses: Misses, endpoint: Arc<Endpoint<S>>) {
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = clients.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let endpoint = endpoint.clone();
                clients.spawn(client(stream, peer.to_string(), misses, endpoint));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                // Such as too many open files: others must leave first.
                if error.kind() != ErrorKind::ConnectionAborted {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One more open connection, until dropped.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn client<S: Store>(
    stream: TcpStream,
    peer: String,
    misses: Misses,
    endpoint: Arc<Endpoint<S>>,
) {
    let metrics = &endpoint.metrics;
    metrics.connections.inc();
    let _open = Open(metrics.connections.clone());
    if metrics.connections.get() > endpoint.config.max_connections as i64 {
        metrics.turned_away.inc();
        // A fresh socket's buffer takes a line at once; otherwise the client sees the connection close.
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    }
    metrics.accepted.inc();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "the socket stays slow");
    }
    let wire = Wire::new(stream, endpoint.config.stall);
    match Peer::new(wire, endpoint, misses, peer.clone()).run().await {
        End::Closed => tracing::debug!(%peer, "closed"),
        End::Io(error) => tracing::debug!(%peer, %error, "connection lost"),
        end => tracing::warn!(%peer, reason = %end, "connection closed"),
    }
}
