//! NodePublishVolume, NodeUnpublishVolume: binds of what is staged, at the paths of pods.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use strand_csi::v1::{
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};

use super::mounts::{self, Mount};
use super::stage::{known, make_file, staged_device};
use super::{Parts, inline, make_directory};
use crate::error::Error;
use crate::request::capability::{Access, Capability, Sharing};
use crate::request::id;

/// Binds `from` to `target` (which is there), or finds it bound; for reading only where there is a place `aside` to make that.
///
/// # Errors
/// The kernel's; [`Error::Exists`] where it is bound there in the other way.
pub fn bind(from: &Path, target: &Path, aside: Option<&Path>) -> Result<(), Error> {
    let Some(there) = mounts::at(target)? else {
        return match aside {
            None => mounts::bind(from, target),
            Some(aside) => bind_read_only(from, target, aside),
        };
    };
    let as_it_is = match there.read_only() {
        true => "reading only",
        false => "writing too",
    };
    if there.read_only() == aside.is_some() {
        return Ok(());
    }
    Err(Error::Exists {
        what: format!("a mount at {}", target.display()),
        why: as_it_is.into(),
    })
}

/// A bind begins as its source is, so the one that refuses writes is made aside: at no moment can a pod's path be written to, and
/// one that can be was asked for so.
fn bind_read_only(from: &Path, target: &Path, aside: &Path) -> Result<(), Error> {
    // What a call that was killed has left.
    mounts::take_away(aside)?;
    make_directory(aside)?;
    mounts::bind(from, aside)?;
    let made = mounts::at(aside)?;
    let made =
        made.ok_or_else(|| Error::host("cannot bind a mount to", aside)(rustix::io::Errno::NOENT))?;
    mounts::make_read_only(&made)?;
    mounts::bind(aside, target)?;
    mounts::take_away(aside)?;
    remove(aside)
}

impl Parts {
    pub(super) async fn publish(
        &self,
        request: &NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse, Error> {
        let volume = id::id("volume_id", &request.volume_id)?;
        let target = id::path("target_path", &request.target_path)?;
        let capability = Capability::read(request.volume_capability.as_ref())?;
        let volume = volume.ok_or_else(|| Error::NoVolume(request.volume_id.clone()));
        if inline::is_inline(&request.volume_context) {
            // Kubernetes makes ids of inline volumes that are too long for an object of ours.
            let id = inline::id(&request.volume_id)?;
            let _held = self.locks.take(id)?;
            let (read_only, context) = (request.readonly, &request.volume_context);
            self.publish_inline(id, &target, &capability, read_only, context)
                .await?;
            return Ok(NodePublishVolumeResponse {});
        }
        let volume = volume?;
        if request.staging_target_path.is_empty() {
            return Err(Error::NotStaged {
                volume: volume.to_owned(),
                path: PathBuf::new(),
            });
        }
        let staging = id::path("staging_target_path", &request.staging_target_path)?;
        let _held = self.locks.take(volume)?;

        let block = capability.access == Access::Block;
        let staged = known(&staging)?.map(|path| if block { staged_device(&path) } else { path });
        let staged = match staged {
            Some(path) => mounts::at(&path)?,
            None => None,
        };
        // Without it, a pod would write into the host's own directory.
        let staged = staged.ok_or_else(|| Error::NotStaged {
            volume: volume.to_owned(),
            path: staging.clone(),
        })?;
        let reads = matches!(
            capability.sharing,
            Sharing::OneReader | Sharing::ManyReaders
        );
        let read_only = !block && (request.readonly || reads);
        if !block && staged.read_only() && !read_only {
            return Err(Error::Exists {
                what: format!("volume {volume} at {}", staging.display()),
                why: "reading only".into(),
            });
        }
        if capability.sharing == Sharing::OnePath {
            alone(volume, &staged, known(&target)?.as_ref().unwrap_or(&target))?;
        }
        let target = place(&target, block)?;
        if let Some(there) = mounts::at(&target)?
            && !there.shows(&staged)
        {
            return Err(Error::Exists {
                what: format!("a mount at {}", target.display()),
                why: "another volume".into(),
            });
        }
        let aside = read_only.then(|| self.aside(volume)).transpose()?;
        bind(&staged.at, &target, aside.as_deref())?;
        Ok(NodePublishVolumeResponse {})
    }

    /// Where a mount of this volume is made that refuses writes: out of the sight of pods, and gone with this container.
    pub(super) fn aside(&self, volume: &str) -> Result<PathBuf, Error> {
        let all = self.config.doors.with_file_name("publishing");
        make_directory(&all)?;
        let all = all.canonicalize();
        let all = all.map_err(Error::host("cannot look at", &self.config.doors))?;
        Ok(all.join(volume))
    }

    pub(super) fn unpublish(
        &self,
        request: &NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Error> {
        let volume = inline::id(&request.volume_id);
        let target = id::path("target_path", &request.target_path)?;
        let Ok(volume) = volume else {
            // None that was ever published, unless the id is missing.
            id::id("volume_id", &request.volume_id)?;
            return Ok(NodeUnpublishVolumeResponse {});
        };
        let _held = self.locks.take(volume)?;
        if let Some(target) = known(&target)? {
            mounts::take_away(&target)?;
            remove(&target)?;
        }
        let aside = self.aside(volume)?;
        mounts::take_away(&aside)?;
        remove(&aside)?;
        self.doors.leave(volume)?;
        self.sweep.soon();
        Ok(NodeUnpublishVolumeResponse {})
    }
}

/// Makes what a volume is bound to: a directory, or a file.
pub fn place(target: &Path, file: bool) -> Result<PathBuf, Error> {
    if let Some(parent) = target.parent() {
        make_directory(parent)?;
    }
    let target = mounts::real(target).map_err(Error::host("cannot look at", target))?;
    if file {
        make_file(&target)?;
    } else {
        make_directory(&target)?;
    }
    Ok(target)
}

/// Takes away what a volume was bound to. Never more than an empty directory or an empty file: what has content is not ours.
pub fn remove(target: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::host("cannot look at", target))?,
    };
    let removed = if metadata.is_dir() {
        fs::remove_dir(target)
    } else if metadata.is_file() && metadata.len() == 0 {
        fs::remove_file(target)
    } else {
        Err(ErrorKind::DirectoryNotEmpty.into())
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::host("cannot remove", target)(error))
        }
        _ => Ok(()),
    }
}

/// Whether a volume for one path is at no other.
fn alone(volume: &str, staged: &Mount, target: &Path) -> Result<(), Error> {
    let elsewhere = mounts::table()?
        .into_iter()
        .find(|m| m.shows(staged) && m.at != staged.at && m.at != target);
    elsewhere.map_or(Ok(()), |other| {
        Err(Error::InUse {
            volume: format!("volume {volume}"),
            why: format!(
                "is published at {}, and may be at one path only",
                other.at.display()
            ),
        })
    })
}
