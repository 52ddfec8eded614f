//! Processes that are measured: started, read from /proc, and stopped again.

use anyhow::{Context, bail};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::{Child, Command};

/// A running process, as /proc shows it.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// This very process.
    pub fn own() -> Self {
        Self {
            pid: std::process::id(),
        }
    }

    /// A child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        let pid = child.id().context("the process ended at once")?;
        Ok(Self { pid })
    }

    fn status(&self, key: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {path}; the process has ended"))?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .with_context(|| format!("no {key} in {path}"))?;
        let kib: u64 = line
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib << 10)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.status("VmRSS")
    }

    /// Of it, what is shared: arenas among it.
    pub fn shared(&self) -> anyhow::Result<u64> {
        self.status("RssShmem")
    }

    /// Highest resident memory so far, in bytes.
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.status("VmHWM")
    }

    /// Processor time used so far, all threads, user and system. Source: proc_pid_stat(5), fields 14 and 15.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {path}; the process has ended"))?;
        let (_, rest) = text.rsplit_once(')').context("malformed stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first field behind the name is number 3. Linux counts in ticks of 10 ms on every architecture we build for.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }
}

/// Path of the program of that name that stands beside this one.
pub fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!(
            "{} is missing; build it first: cargo build --release -p {name}",
            path.display()
        );
    }
    Ok(path)
}

/// A running child; killed when dropped.
pub struct Measured {
    child: Child,
    process: Process,
}

impl Measured {
    /// Starts the binary of that name that stands beside this one. Its log goes to `log`.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        args: impl IntoIterator<Item = S>,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        Self::program(&beside(name)?, args, log)
    }

    /// Starts a program. Its log goes to `log`.
    pub fn program<S: AsRef<OsStr>>(
        path: &Path,
        args: impl IntoIterator<Item = S>,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let log =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // Ends with this process, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let process = Process::of(&child)?;
        Ok(Self { child, process })
    }

    /// What /proc says of it.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot stop the process")
    }
}
