//! What all pools of this node share towards its peers: its name, the key, the port.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use strand_api::ContextMemoryPolicy;
use strand_kv_rack::{PeerKey, Peers, Rack, RackOptions};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{ContextConfig, ContextError};

/// Hexadecimal digits of a key.
const DIGITS: usize = 64;

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
            key: PeerKey::new(read(path)?),
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

fn read(path: &Path) -> Result<[u8; 32], ContextError> {
    let error = |reason: String| ContextError::Key {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    parse(text.trim()).ok_or_else(|| error(format!("it has {} characters", text.trim().len())))
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let hex = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut key = [0; 32];
    for (number, byte) in key.iter_mut().enumerate().filter(|_| hex) {
        *byte = u8::from_str_radix(&text[2 * number..2 * number + 2], 16).ok()?;
    }
    hex.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        let key = parse(&"0f".repeat(32)).unwrap();
        assert_eq!(key, [0x0f; 32]);
        for text in [
            "",
            "0f",
            &"0g".repeat(32),
            &"0f".repeat(33),
            &"é".repeat(32),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
