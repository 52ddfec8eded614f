//! Which volumes of other nodes this one has: a small file each.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strand_fabric::Nqn;
use strand_volumes::IoLimits;
use uuid::Uuid;

/// A volume that this node reaches on others, or of which it has several legs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub volume: String,
    pub generation: u64,
    #[serde(default)]
    pub read_only: bool,
    pub legs: Vec<Nqn>,
    /// The array that its legs are, those on this node among them; none where its one leg is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<Uuid>,
    /// Operations a second that its consumer may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
}

impl Record {
    /// What limits its device.
    pub fn limits(&self) -> IoLimits {
        IoLimits {
            iops: self.iops,
            bandwidth: self.bandwidth,
        }
    }
}

/// Whether an object, and so a file, can have this name.
pub fn is_name(volume: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    volume.bytes().next().is_some_and(letter)
        && volume
            .bytes()
            .all(|b| letter(b) || matches!(b, b'-' | b'.'))
}

/// Where a volume's record is.
pub fn path(records: &Path, volume: &str) -> PathBuf {
    records.join(format!("{volume}.json"))
}

/// All records.
pub fn all(records: &Path) -> Vec<Record> {
    // Without the directory there are none.
    let Ok(entries) = fs::read_dir(records) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| read(&path))
        .collect()
}

/// A record; none where there is no file. One that cannot be read is as good as none: its connections are found without it.
pub fn read(path: &Path) -> Option<Record> {
    let text = fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "this is no record of an attachment");
            None
        }
    }
}

/// Writes a record so that at every instant there is the old one or the new one.
pub fn put(records: &Path, record: &Record) -> io::Result<()> {
    let path = path(records, &record.volume);
    if read(&path).as_ref() == Some(record) {
        return Ok(());
    }
    fs::create_dir_all(records)?;
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(records)?.sync_all()
}
