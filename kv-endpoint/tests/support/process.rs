//! The endpoint's own process.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::PATIENCE;

/// An endpoint whose door is nowhere, unless `arguments` say where.
pub fn endpoint(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-endpoint"));
    command
        .env("STRAND_KV_DOOR", "/nowhere/door.sock")
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts an endpoint on ports of its own choice: the process, its RESP address, its HTTP address.
pub async fn start(arguments: &[&str]) -> (Child, SocketAddr, SocketAddr) {
    let json = ["--resp", "127.0.0.1:0", "--log-format", "json"];
    let mut child = endpoint(&[&json[..], arguments].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = |line: &str, name: &str| -> SocketAddr {
        let rest = line.split(&format!("\"{name}\":\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    };
    let line = timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it ended");
            if line.contains("endpoint runs") {
                break line;
            }
        }
    });
    let line = line.await.expect("it does not start");
    // What it logs later must not stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address(&line, "resp"), address(&line, "listen"))
}
