//! Processes that are driven a line at a time.

use anyhow::{Context, bail};
use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::process::Process;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Such a process; killed when dropped.
pub struct Driven {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// What answers begin with; other lines are the program's own.
    mark: &'static str,
    process: Process,
}

impl Driven {
    /// Starts it.
    pub fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        mark: &'static str,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        let process = Process::of(&child)?;
        Ok(Self {
            child,
            input,
            output,
            mark,
            process,
        })
    }

    /// The next answer.
    pub async fn answer(&mut self) -> anyhow::Result<String> {
        let answered = tokio::time::timeout(PATIENCE, async {
            loop {
                let line = self.output.next_line().await?;
                let line = line.context("the process ended; its last words are above")?;
                if let Some(answer) = line.strip_prefix(self.mark) {
                    return anyhow::Ok(answer.to_owned());
                }
            }
        });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => bail!("a process was silent for {PATIENCE:?}"),
        }
    }

    /// Gives a command and waits for its answer.
    pub async fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        self.input
            .write_all(format!("{command}\n").as_bytes())
            .await
            .context("the process has ended")?;
        self.answer().await
    }

    /// What /proc says of it.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Lets it end in order, and waits for that.
    pub async fn end(mut self) -> anyhow::Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("a process ended with {status}");
        }
        Ok(())
    }

    /// `kill -9`, and waits for its end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a process")
    }
}
