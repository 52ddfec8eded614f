//! Programs that this machine has for a rack: the operator, `strandctl` as its administrator has it, and an earlier version's.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// An operator; killed when dropped.
pub(crate) struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    /// Starts it; its log lies in `dir`.
    pub(crate) fn start(dir: &Path, kubeconfig: &Path) -> Result<Self> {
        let log = dir.join("operator.log");
        let file = File::create(&log)?;
        // A port that was free a moment ago.
        let listen: SocketAddr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program("operator")?)
            .args(["--leader-elect", "false", "--listen", &listen.to_string()])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("the operator cannot be started")?;
        Ok(Self { child, log })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the operator said:\n{said}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `strandctl` to its end; what it said.
pub(crate) async fn strandctl(
    kubeconfig: &Path,
    arguments: &[&str],
    bound: Duration,
) -> Result<String> {
    let mut command = tokio::process::Command::new(program("strandctl")?);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(bound, command.output()).await;
    let ended = ended.with_context(|| format!("strandctl {arguments:?} does not end"))??;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    ensure!(
        ended.status.success(),
        "strandctl {arguments:?} ended with {}: {said}",
        ended.status
    );
    Ok(said)
}

/// A program of the revision that `e2e/rack/previous` names, which runs in guests as it does here.
pub(crate) fn previous(name: &str) -> Result<Vec<u8>> {
    let programs = std::env::var_os("STRAND_RACK_PREVIOUS").context(
        "STRAND_RACK_PREVIOUS does not name the directory of an earlier version's programs; run these tests by `make rack-test`",
    )?;
    let path = Path::new(&programs).join(name);
    std::fs::read(&path).with_context(|| {
        format!(
            "{} is not there; scripts/previous-programs makes it where the repository has its history",
            path.display()
        )
    })
}

fn program(name: &str) -> Result<PathBuf> {
    let programs = std::env::var_os("STRAND_RACK_HOST_PROGRAMS").context(
        "STRAND_RACK_HOST_PROGRAMS does not name the directory of operator and strandctl; run these tests by `make rack-test`",
    )?;
    Ok(Path::new(&programs).join(name))
}
