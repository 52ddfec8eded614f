//! What readers on other nodes see of a leg: a loop device over its read-only one.
//!
//! The kernel's NVMe target opens a device for writing or not at all (linux drivers/nvme/target/io-cmd-bdev.c), which one that is for
//! reading only refuses. A loop over it can be opened so, and each write through it is refused below.

use std::fs::File;

use uuid::Uuid;

use crate::error::VolumeError;
use crate::ioctl;
use crate::limits::Throttle;
use crate::loops::{self, Backing, Loop, Purpose};
use crate::record::LegRecord;

fn find(leg: Uuid) -> std::io::Result<Option<Loop>> {
    let mut all = loops::all()?;
    all.retain(|found| found.purpose == Purpose::Window(leg));
    Ok(all.pop())
}

/// The window over a leg's read-only device; made where it is not there.
pub(crate) fn over(record: &LegRecord, device: &Loop) -> Result<Loop, VolumeError> {
    let make = || {
        if let Some(there) = find(record.uuid)? {
            return Ok(there);
        }
        let file = File::options().read(true).write(true).open(&device.path)?;
        let backing = Backing::of(&file, 0, 0)?;
        let (made, _) = loops::attach(&file, backing, Purpose::Window(record.uuid), false)?;
        Ok::<_, std::io::Error>(made)
    };
    make().map_err(VolumeError::at(
        &device.path,
        "attaching a loop device for readers",
    ))
}

/// Takes the window over a leg away, if there is one.
pub(crate) fn close(throttle: &Throttle, record: &LegRecord) -> Result<(), VolumeError> {
    match look(record)? {
        Some(found) => crate::attach::take_away(throttle, &record.name, &found),
        None => Ok(()),
    }
}

/// Lets readers see the size that the leg has now.
pub(crate) fn resize(record: &LegRecord) -> Result<(), VolumeError> {
    let Some(found) = look(record)? else {
        return Ok(());
    };
    File::open(&found.path)
        .and_then(|device| ioctl::resize_loop(&device))
        .map_err(VolumeError::at(&found.path, "resizing it"))
}

fn look(record: &LegRecord) -> Result<Option<Loop>, VolumeError> {
    let blocks = std::path::Path::new("/sys/class/block");
    find(record.uuid).map_err(VolumeError::at(blocks, "listing loop devices"))
}
