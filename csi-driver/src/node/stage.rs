//! NodeStageVolume, NodeUnstageVolume: from a device of the agent's to one mount that all its pods share, and back.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use strand_csi::v1::{
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse,
};

use super::filesystem::{self, Content};
use super::{Parts, make_directory, mounts};
use crate::agent::AttachmentRequest;
use crate::context::{GENERATION, READ_ONLY, SOURCED};
use crate::error::Error;
use crate::request::capability::{Access, Capability, FsType};
use crate::request::id;

/// Name of the file in a staging directory that a raw volume's device is bound to.
const DEVICE: &str = "device";

/// Where a raw volume's device is in its staging directory.
pub fn staged_device(staging: &Path) -> PathBuf {
    staging.join(DEVICE)
}

/// The staging or target path as the kernel knows it; `None`: its parent is gone, and so is all that was there.
pub fn known(path: &Path) -> Result<Option<PathBuf>, Error> {
    match mounts::real(path) {
        Ok(path) => Ok(Some(path)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::host("cannot look at", path)(error)),
    }
}

/// A file system that shall be mounted.
pub struct Plan<'a> {
    pub volume: &'a str,
    pub fs: FsType,
    pub options: &'a [String],
    pub read_only: bool,
    /// Whether the file system may be smaller than its device.
    pub sourced: bool,
}

impl Parts {
    pub(super) async fn stage(
        &self,
        request: &NodeStageVolumeRequest,
    ) -> Result<NodeStageVolumeResponse, Error> {
        let volume = id::id("volume_id", &request.volume_id)?;
        let staging = id::path("staging_target_path", &request.staging_target_path)?;
        let capability = Capability::read(request.volume_capability.as_ref())?;
        let how = attachment(request)?;
        let volume = volume.ok_or_else(|| Error::NoVolume(request.volume_id.clone()))?;
        let _held = self.locks.take(volume)?;

        // A volume that is not here leaves no directory.
        let device = self.agent.attach(volume, &how).await?;
        make_directory(&staging)?;
        let staging = staging
            .canonicalize()
            .map_err(Error::host("cannot look at", &staging))?;
        // A device's file would be made in the volume's own file system, or that mounted over it.
        let (other, what) = match &capability.access {
            Access::Block => (staging.clone(), "a file system"),
            Access::Mount { .. } => (staged_device(&staging), "a device"),
        };
        if mounts::at(&other)?.is_some() {
            return Err(Error::Exists {
                what: format!("volume {volume} at {}", staging.display()),
                why: what.into(),
            });
        }
        match &capability.access {
            Access::Block => bind_device(&device, &staged_device(&staging))?,
            Access::Mount { fs, options } => {
                let plan = Plan {
                    volume,
                    fs: *fs,
                    options,
                    read_only: how.read_only,
                    sourced: request.volume_context.contains_key(SOURCED),
                };
                plan.mount(&device, &staging).await?;
            }
        }
        Ok(NodeStageVolumeResponse {})
    }

    pub(super) async fn unstage(
        &self,
        request: &NodeUnstageVolumeRequest,
    ) -> Result<NodeUnstageVolumeResponse, Error> {
        let volume = id::id("volume_id", &request.volume_id)?;
        let staging = id::path("staging_target_path", &request.staging_target_path)?;
        let Some(volume) = volume else {
            return Ok(NodeUnstageVolumeResponse {});
        };
        let _held = self.locks.take(volume)?;
        if let Some(staging) = known(&staging)? {
            let device = staged_device(&staging);
            mounts::take_away(&device)?;
            mounts::take_away(&staging)?;
            // What is left there when nothing is mounted is the file that a device was bound to.
            remove_file(&device)?;
        }
        self.agent.detach(volume).await?;
        Ok(NodeUnstageVolumeResponse {})
    }
}

/// What the controller was granted.
fn attachment(request: &NodeStageVolumeRequest) -> Result<AttachmentRequest, Error> {
    let field = "publish_context";
    let generation = request.publish_context.get(GENERATION);
    let generation = generation.ok_or(Error::Missing(field))?;
    let generation = generation.parse().ok().filter(|n: &i64| *n >= 0);
    Ok(AttachmentRequest {
        generation: generation
            .ok_or_else(|| Error::invalid(field, "its generation is no number"))?,
        read_only: request
            .publish_context
            .get(READ_ONLY)
            .is_some_and(|v| v == "true"),
    })
}

impl Plan<'_> {
    /// Mounts it, or finds it mounted; makes it where the device is blank.
    pub async fn mount(&self, device: &Path, staging: &Path) -> Result<(), Error> {
        let numbers = numbers(device)?;
        match mounts::at(staging)? {
            Some(there) if there.device == numbers => {
                if there.fs != self.fs.name() {
                    return Err(Error::Exists {
                        what: format!("volume {} at {}", self.volume, staging.display()),
                        why: format!("file system {}", there.fs),
                    });
                }
            }
            Some(there) => {
                return Err(Error::Exists {
                    what: format!("a mount at {}", staging.display()),
                    why: format!(
                        "another device ({}); unstage it first",
                        there.source.display()
                    ),
                });
            }
            None => {
                let table = mounts::table()?;
                if let Some(other) = table.into_iter().find(|mount| mount.device == numbers) {
                    return Err(Error::InUse {
                        volume: format!("volume {}", self.volume),
                        why: format!(
                            "is mounted at {}; end that before it is staged elsewhere",
                            other.at.display()
                        ),
                    });
                }
                self.prepare(device).await?;
                let (options, read_only) = (self.options, self.read_only);
                filesystem::mount(self.fs, device, staging, options, read_only).await?;
            }
        }
        // Also where an earlier call was cut off in between.
        if self.sourced && !self.read_only && self.fs == FsType::Xfs {
            filesystem::grow(self.fs, device, staging).await?;
        }
        Ok(())
    }

    /// Sees to it that the file system is there and sound.
    async fn prepare(&self, device: &Path) -> Result<(), Error> {
        let content = |why: String| Error::Content {
            volume: self.volume.to_owned(),
            why,
        };
        match filesystem::look(device).await? {
            Content::Blank if self.read_only => {
                let why = "is blank, and attached for reading only; write it once first";
                Err(content(why.into()))
            }
            Content::Blank => {
                tracing::info!(
                    volume = self.volume,
                    fs = self.fs.name(),
                    "making a file system"
                );
                filesystem::make(self.fs, device).await
            }
            Content::Fs(found) if found != self.fs => Err(content(format!(
                "has {}, and {} is asked for",
                found.name(),
                self.fs.name()
            ))),
            Content::Fs(_) if self.read_only => Ok(()),
            Content::Fs(found) => filesystem::check(self.volume, found, device, self.sourced).await,
            Content::Other(what) => Err(content(format!(
                "holds {what}, and a file system is asked for; nothing is overwritten"
            ))),
        }
    }
}

/// `major:minor` of a device node.
fn numbers(device: &Path) -> Result<String, Error> {
    let metadata = fs::metadata(device).map_err(Error::host("cannot look at", device))?;
    if !metadata.file_type().is_block_device() {
        return Err(Error::Agent {
            status: 500,
            words: format!("{} is the device, and it is none", device.display()),
        });
    }
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    Ok(format!("{major}:{minor}"))
}

fn bind_device(device: &Path, at: &Path) -> Result<(), Error> {
    let wanted = numbers(device)?;
    if mounts::at(at)?.is_some() {
        if numbers(at).is_ok_and(|there| there == wanted) {
            return Ok(());
        }
        return Err(Error::Exists {
            what: format!("a device at {}", at.display()),
            why: "another number; unstage it first".into(),
        });
    }
    make_file(at)?;
    mounts::bind(device, at)
}

/// Makes an empty file to bind a device to; one that is there is fine.
pub fn make_file(path: &Path) -> Result<(), Error> {
    let made = File::options().append(true).create(true).open(path);
    made.map(|_| ()).map_err(Error::host("cannot make", path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::host("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}
