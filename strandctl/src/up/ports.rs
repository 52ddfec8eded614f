//! Ports of a rack's processes: the same each time it comes up, as long as they are free.

use super::layout::replace;
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

/// Hands out ports on the loopback address by name, and remembers them in a file.
#[derive(Debug)]
pub struct Ports {
    file: PathBuf,
    before: BTreeMap<String, u16>,
    given: BTreeMap<String, u16>,
}

impl Ports {
    /// Reads what was handed out before; a file that cannot be read counts as none.
    pub fn open(file: PathBuf) -> Ports {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ports {
            before: serde_json::from_str(&text).unwrap_or_default(),
            given: BTreeMap::new(),
            file,
        }
    }

    /// The address that `name` shall listen on. It was free a moment ago; who finds it taken must
    /// say so.
    pub fn give(&mut self, name: &str) -> Result<SocketAddr> {
        let taken: BTreeSet<u16> = self.given.values().copied().collect();
        let before = self.before.get(name).copied();
        let port = match before.filter(|port| !taken.contains(port) && free(*port)) {
            Some(port) => port,
            None => loop {
                let port = any_free()?;
                let meant_for_another = self.before.values().any(|p| *p == port);
                if !taken.contains(&port) && !meant_for_another {
                    break port;
                }
            },
        };
        self.given.insert(name.into(), port);
        replace(&self.file, &serde_json::to_string_pretty(&self.given)?)?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

fn free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn any_free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.context("no free port on 127.0.0.1")?.port())
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

        let mut again = Ports::open(file.clone());
        assert_eq!(again.give("b").unwrap(), b);
        assert_eq!(again.give("a").unwrap(), a);

        let _taken = TcpListener::bind(a).unwrap();
        assert_ne!(Ports::open(file).give("a").unwrap(), a);
    }
}
