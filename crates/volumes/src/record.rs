//! What is written beside the bytes: whose they are and how they were made.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::VolumeError;

/// The format of both records.
const FORMAT: u32 = 1;
/// Name of a leg's record in its directory.
pub(crate) const LEG: &str = "record.json";
/// Name of the drive's record at its root.
pub(crate) const DRIVE: &str = "drive.json";

/// Whether a drive's legs have their space reserved. A drive's legs are one or the other, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// Every leg, snapshot and clone is counted at its full size and cannot run out of space.
    Thick,
    /// Space is taken as it is written; the drive can fill up under its legs.
    Thin,
}

/// How many losses the volume outlives, of which a leg is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redundancy {
    /// One leg: its bytes are the volume's.
    None,
    /// Several legs, each with a part of the bytes.
    Stripe,
    /// Two legs with the same bytes.
    Mirror,
    /// Several legs, any two of which can be lost.
    Raid6,
}

/// Of which array a leg is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArrayRecord {
    /// The array's UUID, as in the superblock on the leg.
    pub uuid: Uuid,
    /// How many legs it has.
    pub legs: u32,
}

/// What a volume is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeMode {
    /// Mounted, with a file system in it.
    Filesystem,
    /// As a device.
    Block,
}

/// `drive.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveRecord {
    format: u32,
    /// The drive.
    pub drive_id: Uuid,
    /// The pool that it was in when the file system was made.
    pub pool_id: Uuid,
}

impl DriveRecord {
    pub(crate) fn new(drive_id: Uuid, pool_id: Uuid) -> DriveRecord {
        DriveRecord {
            format: FORMAT,
            drive_id,
            pool_id,
        }
    }
}

/// `record.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegRecord {
    pub(crate) format: u32,
    /// The leg's name, as its directory's.
    pub name: String,
    /// Identity of these bytes.
    pub uuid: Uuid,
    /// The volume that it belongs to, or that it is a snapshot of.
    pub volume: String,
    /// The snapshot that it belongs to. Such a leg is never attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Where a pod sees it, if it is that pod's scratch space: it lives as long as that directory, and no object speaks of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// UID of the volume or snapshot that owns it.
    #[serde(rename = "ownerUID")]
    pub owner_uid: String,
    /// The pool.
    pub pool_id: Uuid,
    /// Its place in the volume.
    pub index: u32,
    /// Bytes, a multiple of 4096.
    pub size: u64,
    /// What it is a part of.
    pub redundancy: Redundancy,
    /// Of which array; none where its bytes are the volume's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayRecord>,
    /// Whether its space is reserved.
    pub provisioning: Provisioning,
    /// What its volume is used as; none in records from before that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<VolumeMode>,
    /// UUID of the leg that it began as a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Uuid>,
    /// When its bytes were as they are (a snapshot) or began (any other), in milliseconds since 1970.
    pub made_at_ms: u64,
    /// The highest attachment generation seen; 0 before the first.
    pub attachment_generation: u64,
    /// The highest of those that could write; none in records from before that was written. Readers that came after it may have the
    /// leg whichever of them came first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_generation: Option<u64>,
    /// How it is attached on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<AttachmentRecord>,
}

/// How a leg is attached: to whom its one device is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentRecord {
    /// For reading only.
    pub read_only: bool,
    /// A consumer on this node has it.
    #[serde(default = "here", skip_serializing_if = "is_here")]
    pub here: bool,
    /// It is lent to consumers on other nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lent: bool,
}

/// Records that say nothing are from before legs were lent.
fn here() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_here(here: &bool) -> bool {
    *here
}

impl LegRecord {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// The lowest attachment generation that may have it now.
    pub(crate) fn oldest(&self, read_only: bool) -> u64 {
        let highest = self.attachment_generation;
        match self.writer_generation.filter(|_| read_only) {
            Some(writer) => highest.min(writer + 1),
            None => highest,
        }
    }
}

/// Reads a record; none where there is no file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, VolumeError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(VolumeError::at(path, "reading it")(error)),
    };
    let damaged = |why: String| VolumeError::Damaged {
        path: path.to_owned(),
        why,
    };
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("it is no record ({error})")))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        format => {
            return Err(damaged(format!(
                "its format is {format:?}, this version knows {FORMAT}"
            )));
        }
    }
    serde_json::from_value(value)
        .map(Some)
        .map_err(|error| damaged(format!("it is no record ({error})")))
}

/// Writes a record so that at every instant there is the old one or the new one.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), VolumeError> {
    let aside = path.with_extension("json.new");
    let text = serde_json::to_vec_pretty(record)
        .map_err(|error| VolumeError::at(path, "encoding it")(std::io::Error::from(error)))?;
    let mut file = File::create(&aside).map_err(VolumeError::at(&aside, "making it"))?;
    file.write_all(&text)
        .map_err(VolumeError::at(&aside, "writing it"))?;
    file.sync_all()
        .map_err(VolumeError::at(&aside, "flushing it"))?;
    fs::rename(&aside, path).map_err(VolumeError::at(path, "replacing it"))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes what was made, renamed or removed in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), VolumeError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(VolumeError::at(path, "flushing the directory"))
}
