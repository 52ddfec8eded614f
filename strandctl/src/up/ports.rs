//! Ports of a rack's processes: the same each time it comes up, as long as they are free.

use super::layout::replace;
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};
use tokio::net::TcpSocket;

/// Hands out ports on the loopback address by name, and remembers them in a file.
#[derive(Debug)]
pub struct Ports {
    file: PathBuf,
    before: BTreeMap<String, u16>,
    given: BTreeMap<String, u16>,
    /// Bound, and not listened at: those whom a port was given can listen there, and the kernel gives it to nobody who asks for
    /// any port.
    kept: Vec<TcpSocket>,
}

impl Ports {
    /// Reads what was handed out before; a file that cannot be read counts as none.
    pub fn open(file: PathBuf) -> Ports {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ports {
            before: serde_json::from_str(&text).unwrap_or_default(),
            given: BTreeMap::new(),
            kept: Vec::new(),
            file,
        }
    }

    /// The address that `name` shall listen on, kept for it as long as this is. It was free a moment ago; who finds it taken must say so.
    pub fn give(&mut self, name: &str) -> Result<SocketAddr> {
        let taken: BTreeSet<u16> = self.given.values().copied().collect();
        let before = self.before.get(name).copied();
        let before = before.filter(|port| !taken.contains(port) && free(*port));
        let (port, socket) = match before.and_then(|port| bound(port).ok()) {
            Some(before) => before,
            None => loop {
                let (port, socket) = bound(0).context("no free port on 127.0.0.1")?;
                let meant_for_another = self.before.values().any(|p| *p == port);
                if !taken.contains(&port) && !meant_for_another {
                    break (port, socket);
                }
            },
        };
        self.kept.push(socket);
        self.given.insert(name.into(), port);
        replace(&self.file, &serde_json::to_string_pretty(&self.given)?)?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

fn free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A socket at this port, or at any free one for 0, that leaves room for one that listens.
fn bound(port: u16) -> io::Result<(u16, TcpSocket)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok((socket.local_addr()?.port(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_port_while_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        let mut ports = Ports::open(file.clone());
        let (a, b) = (ports.give("a").unwrap(), ports.give("b").unwrap());
        assert_ne!(a, b);
        for _ in 0..200 {
            let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            assert!(![a, b].contains(&other.local_addr().unwrap()));
        }

        let mut again = Ports::open(file.clone());
        assert_eq!(again.give("b").unwrap(), b);
        assert_eq!(again.give("a").unwrap(), a);

        let _taken = TcpListener::bind(a).unwrap();
        assert_ne!(Ports::open(file).give("a").unwrap(), a);
    }
}
