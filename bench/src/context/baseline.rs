//! Other ways to keep blocks on a device, as children that are driven a line at a time: `fill COUNT LEN`,
//! `get DEPTH MILLISECONDS`.

use anyhow::{Context, ensure};
use std::{ffi::OsStr, path::Path, time::Duration};

use super::{child::Driven, load::Blocks};

/// Such a child.
pub struct Baseline {
    driven: Driven,
    len: usize,
}

impl Baseline {
    /// foyer's disk cache on `device`; `engine` is `psync` or `uring`.
    pub fn foyer(device: &Path, bytes: u64, engine: &str) -> anyhow::Result<Self> {
        let program = foyer();
        ensure!(
            program.exists(),
            "{} is missing; scripts/install-bench-tools builds it",
            program.display()
        );
        let device = device.to_string_lossy();
        Self::start(&program, [&device, bytes.to_string().as_str(), engine])
    }

    /// A file a block on a new XFS, mounted where nobody else sees it.
    pub fn files(device: &Path) -> anyhow::Result<Self> {
        let (program, device) = (std::env::current_exe()?, device.as_os_str());
        let arguments = ["--mount", "--propagation=private", "--kill-child"].map(OsStr::new);
        let arguments = [
            &arguments[..],
            &[program.as_os_str(), OsStr::new("serve-files"), device],
        ];
        Self::start(Path::new("unshare"), arguments.concat())
    }

    fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            driven: Driven::start(program, arguments, "= ")?,
            len: 0,
        })
    }

    /// Keeps these blocks, all of which must then be there.
    pub async fn fill(&mut self, blocks: Blocks) -> anyhow::Result<()> {
        let command = format!("fill {} {}", blocks.count, blocks.len);
        let there: u64 = self.driven.ask(&command).await?.parse()?;
        ensure!(
            there == blocks.count,
            "the baseline keeps {there} of {} blocks of {} bytes",
            blocks.count,
            blocks.len
        );
        self.len = blocks.len;
        Ok(())
    }

    /// Bytes a second of random gets.
    pub async fn get(&mut self, depth: usize, time: Duration) -> anyhow::Result<f64> {
        let answer = self
            .driven
            .ask(&format!("get {depth} {}", time.as_millis()))
            .await?;
        let (found, nanos) = answer.split_once(' ').context("an answer of two numbers")?;
        let (found, nanos): (f64, f64) = (found.parse()?, nanos.parse()?);
        Ok(found * self.len as f64 / nanos * 1e9)
    }

    /// Ends it in order.
    pub async fn end(self) -> anyhow::Result<()> {
        self.driven.end().await
    }
}

/// Where the install script puts foyer's child.
fn foyer() -> std::path::PathBuf {
    std::env::var_os("STRAND_BENCH_FOYER").map_or_else(
        || ".cache/bench-foyer/release/strand-bench-foyer".into(),
        Into::into,
    )
}
