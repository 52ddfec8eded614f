//! Devices to measure on: loop devices with direct I/O over a file in memory or on disk.
//!
//! The file has no name and the device clears itself with its last user: whatever ends this process, nothing is left. But a
//! blank one, for an agent that takes no drive that others have open, is cleared when it is dropped.

use anyhow::{Context, bail};
use serde::Serialize;
use std::{
    borrow::Cow,
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
};

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Kind {
    /// On tmpfs.
    Memory,
    /// Where temporary files are.
    Disk,
}

impl Kind {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Memory => "RAM-backed",
            Self::Disk => "disk-backed",
        }
    }

    /// Where such files lie.
    pub fn directory(self) -> PathBuf {
        match self {
            Self::Memory => "/dev/shm".into(),
            Self::Disk => "/var/tmp".into(),
        }
    }
}

/// A loop device; gone with its last user after this is dropped.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    len: u64,
    /// Holds the device, which was told to clear itself; none: it was not.
    open: Option<File>,
}

impl Device {
    /// A device of `len` bytes, all of them allocated; reads as zeroes in its first MiB, as noise behind.
    pub fn new(kind: Kind, len: u64) -> anyhow::Result<Self> {
        Self::with(kind, len, Use::Store)
    }

    /// A device of `len` bytes, all of them allocated, that reads as zeroes.
    pub fn blank(kind: Kind, len: u64) -> anyhow::Result<Self> {
        Self::with(kind, len, Use::Agent)
    }

    /// A device over a file that is there, with all of its `len` bytes written.
    pub fn over(file: &Path, len: u64) -> anyhow::Result<Self> {
        let device = Self {
            path: attach(&file.to_string_lossy())?,
            len,
            open: None,
        };
        device.allocate(Use::Store)?;
        Ok(device)
    }

    fn with(kind: Kind, len: u64, used_by: Use) -> anyhow::Result<Self> {
        let directory = kind.directory();
        let file = tempfile::tempfile_in(&directory)
            .with_context(|| format!("cannot make a file in {}", directory.display()))?;
        file.set_len(len)?;
        let own = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut device = Self {
            path: attach(&own)?,
            len,
            open: None,
        };
        if used_by == Use::Store {
            let open = File::open(&device.path);
            device.open =
                Some(open.with_context(|| format!("cannot open {}", device.path.display()))?);
            // Busy, it is only marked, and cleared when the last one closes it.
            detach(&device.path)?;
        }
        device.allocate(used_by)?;
        Ok(device)
    }

    fn allocate(&self, used_by: Use) -> anyhow::Result<()> {
        const BLANK: u64 = 1 << 20;
        let file = format!("--filename={}", self.path.display());
        let (offset, size) = (
            format!("--offset={BLANK}"),
            format!("--size={}", self.len - BLANK),
        );
        let job = [
            "--name=allocate",
            &file,
            &offset,
            &size,
            "--rw=write",
            "--bs=1M",
            "--ioengine=io_uring",
            "--iodepth=16",
            "--direct=1",
            "--minimal",
        ];
        let content: &[&str] = match used_by {
            Use::Store => &[],
            Use::Agent => &["--zero_buffers"],
        };
        run("fio", &[&job, content].concat())?;
        Ok(())
    }

    fn name(&self) -> Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that were written to it so far. Source: Documentation/block/stat.rst, field 7, in sectors of 512 bytes.
    pub fn written(&self) -> anyhow::Result<u64> {
        let path = format!("/sys/block/{}/stat", self.name());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let sectors: u64 = text
            .split_whitespace()
            .nth(6)
            .with_context(|| format!("{path} is too short"))?
            .parse()?;
        Ok(sectors * 512)
    }
}

/// Who uses a device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A store that takes what it is given.
    Store,
    /// An agent that takes blank drives which nobody has open.
    Agent,
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.open.is_none()
            && let Err(error) = detach(&self.path)
        {
            eprintln!("{error:#}");
        }
    }
}

fn attach(file: &str) -> anyhow::Result<PathBuf> {
    let options = ["--find", "--show", "--direct-io=on", "--sector-size=4096"];
    let path = run("losetup", &[&options[..], &[file]].concat())?;
    Ok(PathBuf::from(path.trim()))
}

fn detach(path: &Path) -> anyhow::Result<()> {
    run("losetup", &["--detach", &path.to_string_lossy()]).map(drop)
}

/// Runs a program to its end; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| {
            format!("cannot run {program}; scripts/install-bench-tools installs it")
        })?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
