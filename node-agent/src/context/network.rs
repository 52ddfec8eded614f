//! What all pools of this node share towards its peers: its name, the key, the port.

use std::io;
use std::net::SocketAddr;

use strand_api::ContextMemoryPolicy;
use strand_kv_rack::{PeerKey, Peers, Rack, RackOptions};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{ContextConfig, ContextError};
use crate::peer_key;

pub(super) struct Network {
    node: String,
    key: PeerKey,
    peers: Option<Peers>,
}

impl Network {
    /// Reads the key and opens the port. Without a key nobody is let in, and nobody lets this node in.
    pub(super) fn open(config: &ContextConfig, node: &str) -> Result<Self, ContextError> {
        let Some(path) = &config.peer_key_file else {
            let mut unguessable = [0; 32];
            rustix::rand::getrandom(&mut unguessable, rustix::rand::GetRandomFlags::empty())
                .map_err(|error| ContextError::State(error.into()))?;
            return Ok(Self {
                node: node.to_owned(),
                key: PeerKey::new(unguessable),
                peers: None,
            });
        };
        let listening = |address: SocketAddr| {
            listen(address).map_err(|error| ContextError::Listen { address, error })
        };
        Ok(Self {
            node: node.to_owned(),
            key: PeerKey::new(*peer_key::PeerKey::read(path)?.bytes()),
            peers: config.peer_listen.map(listening).transpose()?,
        })
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// This node's part of a pool.
    pub(super) fn rack(&self, pool: Uuid, policy: &ContextMemoryPolicy) -> io::Result<Rack> {
        let rack = Rack::new(RackOptions {
            copies: usize::try_from(policy.copies).unwrap_or(1),
            ..RackOptions::new(&self.node, pool.to_string(), self.key.clone())
        })?;
        if let Some(peers) = &self.peers {
            peers.add(&rack);
        }
        Ok(rack)
    }

    /// Peers find the pool here no longer.
    pub(super) fn forget(&self, pool: Uuid) {
        if let Some(peers) = &self.peers {
            peers.remove(&pool.to_string());
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<Peers> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Peers::listen(TcpListener::from_std(listener)?)
}
