//! An emulated NVMe drive: a sparse file, and how QEMU is told of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::cache::{Cache, Lost};

/// A drive that a guest shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrivePlan {
    /// Its serial number: at most 20 letters and digits, the first a letter; no two drives of a rack have the same.
    pub serial: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it has a write cache that [`Guest::lose_power`](crate::Guest::lose_power) empties.
    pub cached: bool,
}

impl DrivePlan {
    /// A blank drive of 4 GiB.
    pub fn new(serial: impl Into<String>) -> Self {
        Self {
            serial: serial.into(),
            bytes: 4 << 30,
            cached: false,
        }
    }
}

/// What a drive answers with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reads of one sector (512 bytes), by its number.
    Unreadable {
        /// The number.
        sector: u64,
    },
    /// Every write.
    Unwritable,
}

/// A drive and the file that its bytes lie in.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Its serial number, which is also its name towards QEMU.
    pub serial: String,
    file: PathBuf,
    cache: Option<Cache>,
}

impl Drive {
    /// Makes the file in `dir`; one that is there keeps its bytes.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn make(dir: &Path, plan: &DrivePlan) -> io::Result<Self> {
        let file = dir.join(format!("{}.raw", plan.serial));
        let mut options = File::options();
        let opened = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)?;
        opened.set_len(plan.bytes)?;
        Ok(Self {
            serial: plan.serial.clone(),
            cache: plan.cached.then(|| Cache::of(&file)),
            file,
        })
    }

    /// Bytes of the host's disk that its file takes: what was written and not discarded since.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn allocated(&self) -> io::Result<u64> {
        // stat(2) counts in 512 bytes.
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Readies its write cache for a machine that is about to be turned on.
    ///
    /// # Errors
    /// When its content cannot be copied.
    pub(crate) fn begin(&self) -> Result<()> {
        self.cache
            .as_ref()
            .map_or(Ok(()), |cache| cache.begin(&self.file))
    }

    /// Empties its write cache, if it has one: its machine lost power.
    ///
    /// # Errors
    /// When its content cannot be made anew.
    pub(crate) fn lose(&self, seed: u64) -> Result<Option<Lost>> {
        let cache = self.cache.as_ref();
        cache.map(|cache| cache.lose(&self.file, seed)).transpose()
    }

    /// Its nodes in QEMU's block layer for `-blockdev` and `blockdev-add`, the lowest first.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        // It is the guest that loses power, never the host: its page cache is as good as a medium, and flushing it would only take time.
        let file = json!({
            "driver": "file", "node-name": self.file_node(), "filename": self.file,
            "discard": "unmap", "aio": "threads", "cache": {"no-flush": true},
        });
        let cache = self.cache.as_ref();
        let cache = cache.map(|cache| cache.options(&self.lowest(), &self.file_node()));
        let medium = self.medium_options(&self.lowest());
        [Some(file), cache, Some(medium)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Name of the file as a node.
    fn file_node(&self) -> String {
        format!("{}-file", self.serial)
    }

    /// Name of the node on which the medium lies while it is whole.
    pub(crate) fn lowest(&self) -> String {
        match self.cache {
            Some(_) => format!("{}-cache", self.serial),
            None => self.file_node(),
        }
    }

    /// Name of the node that answers with errors.
    pub(crate) fn faulty_node(&self) -> String {
        format!("{}-faulty", self.serial)
    }

    /// What the drive reads and writes, on top of the node `below`; for `-blockdev`, `blockdev-add` and `blockdev-reopen`.
    pub(crate) fn medium_options(&self, below: &str) -> Value {
        // QEMU 7.2 spoils the log of a cache when writes of zeroes come beside others.
        let zeroes = match self.cache {
            Some(_) => "off",
            None => "unmap",
        };
        json!({
            "driver": "raw", "node-name": self.serial, "file": below,
            "discard": "unmap", "detect-zeroes": zeroes,
        })
    }

    /// A node that answers with errors, for `blockdev-add`.
    pub(crate) fn faulty_options(&self, fault: Fault) -> Value {
        // EIO.
        let mut error = json!({"event": "none", "iotype": "write", "errno": 5});
        if let Fault::Unreadable { sector } = fault {
            error["iotype"] = json!("read");
            error["sector"] = json!(sector);
        }
        json!({
            "driver": "blkdebug", "node-name": self.faulty_node(), "image": self.lowest(),
            "discard": "unmap", "inject-error": [error],
        })
    }

    /// The device, for `-device` and `device_add`.
    pub(crate) fn device_options(&self, slot: &str) -> Value {
        json!({
            "driver": "nvme", "id": self.device(), "serial": self.serial, "drive": self.serial,
            "bus": slot,
        })
    }

    /// Name of the device.
    pub(crate) fn device(&self) -> String {
        format!("nvme-{}", self.serial)
    }
}
