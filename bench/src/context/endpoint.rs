//! A pod's endpoint, as it runs beside an inference server.

use anyhow::bail;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use crate::process::{Measured, Process};

/// A server of RESP in a process of its own.
pub struct Server {
    measured: Measured,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Server {
    /// An endpoint in front of the door at `socket`.
    pub async fn endpoint(socket: &Path) -> anyhow::Result<Self> {
        let socket = socket.to_string_lossy().into_owned();
        Self::start(&crate::process::beside("kv-endpoint")?, |port| {
            let resp = format!("127.0.0.1:{port}");
            [
                "--door",
                &socket,
                "--resp",
                &resp,
                "--listen",
                "127.0.0.1:0",
            ]
            .map(String::from)
            .to_vec()
        })
        .await
    }

    /// Redis, all in memory.
    pub async fn redis() -> anyhow::Result<Self> {
        Self::start(Path::new("redis-server"), |port| {
            let port = port.to_string();
            let arguments = [
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ];
            arguments.map(String::from).to_vec()
        })
        .await
    }

    async fn start(program: &Path, arguments: impl Fn(u16) -> Vec<String>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // Asked for, given back, and taken at once.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let log = directory.path().join("log");
        let measured = Measured::program(program, arguments(port), log.clone())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{} does not start: {log}", program.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            measured,
            address,
            _directory: directory,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What /proc says of it.
    pub fn process(&self) -> Process {
        self.measured.process()
    }

    /// Stops it.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.measured.stop().await
    }
}
